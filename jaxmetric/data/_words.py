"""Random words that are the same on every machine and with every NumPy.

NumPy promises the stream of a bit generator for good, but not what the methods of
`numpy.random.Generator` (``permutation``, ``integers``) make of it. Everything random
in this folder is therefore made of the raw 64-bit words of Philox, a keyed counter, by
sorting them (stable) or by one multiplication.
"""

import operator
from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What words are for: words of two purposes never meet."""

    HOLD_OUT = 0
    CLASSES = 1
    ROWS = 2
    TRIPLETS = 3
    PAIRS = 4
    HOLD_OUT_ROWS = 5
    HOLD_OUT_INTERACTIONS = 6


def words(seed: int, epoch: int, stream: Stream, shape: tuple[int, ...]) -> np.ndarray:
    """Return uint64 words that depend on the arguments alone."""
    # The purpose is the highest word of the 256-bit counter, so that the streams are
    # 2**192 steps apart.
    generator = np.random.Philox(
        key=np.array([seed, epoch], np.uint64),
        counter=np.array([0, 0, 0, int(stream)], np.uint64),
    )
    return generator.random_raw(int(np.prod(shape))).reshape(shape)


def below(random: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return int64 numbers in [0, bounds) from words; bounds below 2**31.

    Unequal by at most bounds / 2**32 in probability.
    """
    high = random >> np.uint64(32)
    return ((high * bounds.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def check_counter(function: str, argument: str, value: int) -> int:
    """Return a seed or an epoch as an int in [0, 2**63)."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 2**63:
        raise ValueError(
            f"{function}: `{argument}` must be an int in [0, 2**63), got {value!r}. "
            "Use 0."
        )
    return number


def check_labels(function: str, labels: np.ndarray) -> np.ndarray:
    """Return [n] integer labels as a NumPy array."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "biu":
        raise TypeError(
            f"{function}: `labels` must be integer or bool, got {labels.dtype}. "
            "Use np.unique(labels, return_inverse=True)[1]."
        )
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(
            f"{function}: `labels` must have shape (n,) with n > 0, got "
            f"{labels.shape}. Give one integer for each row."
        )
    return labels
