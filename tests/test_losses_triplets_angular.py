"""Angular loss: values by hand, large exponents, many positives."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import PRINTED

import jaxmetric as jm

F2 = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.float32)
PAIRS = jnp.array([0, 0, 1, 1])

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


def test_values_by_hand_and_of_loops():
    got = losses.angular_loss(jnp.asarray(F2), PAIRS)
    want = math.log(1 + 2 * math.exp(-4))
    assert got == pytest.approx(want, rel=PRINTED["float32"])
    angles = np.radians([0.0, 20.0, 40.0, 60.0, 80.0])
    rows = np.stack([2 * np.cos(angles), 0.5 * np.sin(angles)], axis=-1)
    labels = np.array([0, 0, 1, 1, 2])
    with jax.enable_x64(True):
        x = jnp.asarray(rows)
        got = losses.angular_loss(x, labels, alpha=40.0)
        assert got == pytest.approx(2.9181497852, abs=PRINTED["regression"])
        # PML leaves the negatives as they are (defect 11).
        scaled = losses.angular_loss(10 * x, labels, alpha=40.0)
        assert scaled == pytest.approx(float(got), rel=1e-12)


def test_exponents_far_beyond_the_range_of_exp():
    """At 89 degrees the slope is 3282: sums of exponentials would be infinite or 0."""
    x = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    labels = [0, 0, 0, 1, 1, 1]
    value, grad = jax.value_and_grad(
        lambda x: losses.angular_loss(x, jnp.array(labels), alpha=89.0)
    )(jnp.asarray(x))
    case = {"embeddings": x, "labels": labels}
    want = oracles.value("angular_loss", case, alpha=89.0)
    assert want > 1000
    assert value == pytest.approx(want, rel=1e-5)
    assert jnp.isfinite(grad).all()
    assert grad.any()


@pytest.mark.parametrize("block_size", [pytest.param(None, marks=pytest.mark.slow), 5])
def test_more_positives_than_the_first_stretch_of_the_loop_visits(block_size):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(26, 3)), np.sort(rng.integers(0, 2, 26))
    y[:3] = 7
    assert np.bincount(y).max() > 9
    where = rng.random(26) < 0.9
    case = {"embeddings": x, "labels": y, "where": where}
    want = oracles.evaluate("angular_loss", case)
    with jax.enable_x64(True):
        stats = losses.angular_loss(
            jnp.asarray(x), y, where=where, block_size=block_size, reduction="none"
        )
        np.testing.assert_allclose(stats.total, want.total, rtol=1e-9)
        np.testing.assert_array_equal(stats.num_terms, want.num_terms)

        def loss(x):
            return losses.angular_loss(x, y, where=where, block_size=block_size)

        grad = jax.jit(jax.grad(loss))(jnp.asarray(x))
        steps = 1e-6 * jnp.eye(x.size).reshape(-1, *x.shape)
        rise = jax.jit(jax.vmap(lambda h: loss(x + h) - loss(x - h)))(steps)
        numeric = (rise / 2e-6).reshape(x.shape)
        np.testing.assert_allclose(grad, numeric, atol=1e-7)


@pytest.mark.parametrize(("alpha", "must"), [(0.0, "> 0"), (90.0, "< 90")])
def test_the_angle_is_in_degrees_between_0_and_90(alpha, must):
    with pytest.raises(ValueError, match=f"`alpha` must be {must}, got {alpha}"):
        losses.angular_loss(jnp.asarray(F2), PAIRS, alpha=alpha)
