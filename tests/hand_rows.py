"""The small batches of the formula sheet, whose losses are worked out by hand.

F1 are four numbers in two classes, F2 two equal pairs of unit vectors, F4 three
numbers, F5 four equal rows; the fan are five unit rows at unequal angles.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

U, V = (1.0, 0.0), (0.0, 1.0)
F1 = [[0.0], [1.0], [3.0], [7.0]]
F2 = [U, U, V, V]
F4 = [[0.0], [1.0], [3.0]]
F5 = [[0.3, -0.8]] * 4
PAIRS, TRIO = [0, 0, 1, 1], [0, 0, 1]


def rows(values) -> jax.Array:
    """Return float32 rows."""
    return jnp.asarray(values, jnp.float32)


def sp(v: float) -> float:
    """Return log(1 + exp(v))."""
    return math.log1p(math.exp(v))


def fan() -> np.ndarray:
    """Return five unit rows in float64, at unequal angles."""
    angles = np.radians([0.0, 20.0, 40.0, 60.0, 80.0])
    x = np.stack([2 * np.cos(angles), 0.5 * np.sin(angles)], axis=-1)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


FAN_LABELS = np.array([0, 0, 1, 1, 2])
