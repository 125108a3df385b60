"""The best linear map of two sides into one space: what a run of pairs has to beat."""

from typing import NamedTuple

import numpy as np

# A share of the mean variance is added to each direction: of many columns and few rows
# some directions correlate by chance.
_RIDGE = 1e-2
# Beyond so many columns the matrices take longer than the run.
_MOST_COLUMNS = 2048


class LinearMap(NamedTuple):
    """Rows minus an offset, times a matrix [d, dim]."""

    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return the [n, dim] float32 images of [n, ...] rows."""
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        return ((flat - self.mean) @ self.matrix).astype(np.float32)


def canonical_correlation(
    x: np.ndarray, y: np.ndarray, *, dim: int
) -> tuple[LinearMap, LinearMap] | None:
    """Return the linear maps of [n, ...] rows under which pairs correlate most.

    Columns are brought to one scale first. None where there are too many columns.

    Source: Hotelling. Relations between two sets of variates. Biometrika 1936; the
    ridge: Vinod. Canonical ridge and econometrics of joint production. 1976.
    """
    sides = [rows.reshape(len(rows), -1).astype(np.float64) for rows in (x, y)]
    if max(rows.shape[1] for rows in sides) > _MOST_COLUMNS:
        return None
    means = [rows.mean(0) for rows in sides]
    whitened, whitenings = [], []
    for rows, mean in zip(sides, means, strict=True):
        deviation = rows.std(0)
        scale = np.where(deviation > 1e-9 * (1 + np.abs(mean)), deviation, np.inf)
        centred = (rows - mean) / scale
        variances, axes = np.linalg.eigh(centred.T @ centred / len(rows))
        ridge = _RIDGE * max(variances.mean(), 1e-30)
        whitening = axes / np.sqrt(np.maximum(variances, 0) + ridge)
        whitened.append(centred @ whitening)
        whitenings.append(whitening / scale[:, None])
    cross = whitened[0].T @ whitened[1] / len(sides[0])
    left, _, right = np.linalg.svd(cross, full_matrices=False)
    chosen = (left[:, :dim], right.T[:, :dim])
    first, second = (
        LinearMap(mean, whitening @ directions)
        for mean, whitening, directions in zip(means, whitenings, chosen, strict=True)
    )
    return first, second
