"""The 24 degenerate shapes, each padded to the same [ROWS, DIM] with a mask.

Padding a shape of one coordinate with zero columns changes no distance, so all of
them are one stack that a compiled function takes at once.
"""

import math
from typing import Any, NamedTuple

import numpy as np

ROWS, DIM = 8, 4
NUM_CLASSES = ROWS

_INT32 = np.iinfo(np.int32)


class Shape(NamedTuple):
    """A batch before padding.

    `is_exact` says that distances and margins are exactly representable, so that even
    the counts at a tie are known.
    """

    name: str
    embeddings: np.ndarray
    labels: list[int]
    where: list[bool]
    is_exact: bool = False


def shapes(dtype: Any = np.float32) -> list[Shape]:
    """Return the 24 shapes, unpadded, in a floating dtype."""
    rng = np.random.default_rng(0)

    def shape(name, rows, labels, *, where=None, is_exact=False) -> Shape:
        rows = np.asarray(rows, np.float64)
        where = [True] * len(rows) if where is None else where
        assert len(rows) == len(labels) == len(where) <= ROWS
        return Shape(name, rows.astype(dtype), list(labels), where, is_exact)

    def normal(n: int, dim: int = DIM) -> np.ndarray:
        return rng.normal(size=(n, dim))

    pairs = [0, 0, 1, 1, 2, 2]
    same = np.tile(normal(1), (6, 1))
    within, across, zero = normal(6), normal(6), normal(6)
    within[1], across[2], zero[3] = within[0], across[0], 0
    antipodal = normal(3) / 2
    antipodal /= np.linalg.norm(antipodal, axis=1, keepdims=True)
    holey = normal(8)
    holey[1], holey[4], holey[6] = math.nan, math.inf, -math.inf
    # float16 ends at 65504 and starts at 6e-8, float32 at 1e-45.
    is_half = np.dtype(dtype) == np.float16
    large, subnormal = (1e4, 1e-7) if is_half else (1e15, 1e-40)
    return [
        shape("one row", normal(1), [0]),
        shape("two of one class", normal(2), [0, 0]),
        shape("two of two classes", normal(2), [0, 1]),
        shape("one class", normal(6), [3] * 6),
        shape("all unique", normal(8), range(8)),
        shape("one pair and singletons", normal(6), [0, 1, 2, 0, 3, 4]),
        shape("seven against one", normal(8), [0, 0, 0, 0, 1, 0, 0, 0]),
        shape("all rows identical", same, pairs, is_exact=True),
        shape("duplicate within a class", within, pairs),
        shape("duplicate across classes", across, pairs),
        shape("one zero row", zero, pairs),
        shape("all zero rows", np.zeros((6, DIM)), pairs, is_exact=True),
        shape("one coordinate", normal(6, 1), pairs),
        shape("integers", [[0], [1], [2], [3], [4], [6]], pairs, is_exact=True),
        shape("simplex", np.eye(4), [0, 0, 1, 1]),
        shape("scale 1e15", normal(6) * large, pairs),
        shape("scale 1e-15", normal(6) * 1e-15, pairs),
        shape("offset 1e3, spread 1e-3", normal(6) * 1e-3 + 1e3, pairs),
        shape("subnormal", normal(6) * subnormal, pairs),
        shape("antipodal", np.vstack([antipodal, -antipodal]), [0, 1, 2, 0, 1, 2]),
        shape(
            "extreme labels",
            normal(8),
            [-1, -1, _INT32.min, _INT32.min, _INT32.max, _INT32.max, 0, -7],
        ),
        shape("all masked", normal(6), pairs, where=[False] * 6),
        shape(
            "mask leaves one class", normal(6), pairs, where=[True] * 2 + [False] * 4
        ),
        shape(
            "masked rows hold NaN and inf",
            holey,
            [0, 0, 0, 1, 1, 1, 2, 2],
            where=[True, False, True, True, False, True, False, True],
        ),
    ]


def padded(shape: Shape) -> dict[str, np.ndarray]:
    """Return the arrays of a shape with masked rows up to [ROWS, DIM]."""
    n, dim = shape.embeddings.shape
    embeddings = np.zeros((ROWS, DIM), shape.embeddings.dtype)
    embeddings[:n, :dim] = shape.embeddings
    labels, where = np.zeros(ROWS, np.int32), np.zeros(ROWS, bool)
    labels[:n], where[:n] = shape.labels, shape.where
    return {"embeddings": embeddings, "labels": labels, "where": where}
