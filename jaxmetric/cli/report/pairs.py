"""The distances of same and different pairs, and the threshold between them."""

import numpy as np

from jaxmetric import retrieval
from jaxmetric.cli.report.facts import Pairs

# Of each kind at most: enough for a rate of one in a thousand, and quickly measured.
_MOST = 1 << 17
_BINS = 60
_BLOCK = 1 << 14


def measure_pairs(embeddings: np.ndarray, labels: np.ndarray) -> Pairs | None:
    """Return the distances of pairs of rows, all of them or equally many of each kind.

    Args:
      embeddings: [n, dim].
      labels: [n] integer.

    Returns:
      None where there is no pair of one class, or none of two.
    """
    n = len(labels)
    if n * (n - 1) // 2 <= _MOST:
        i, j = np.triu_indices(n, 1)
        is_same = labels[i] == labels[j]
    else:
        random = np.random.default_rng(0)
        pairs = [_same(labels, random), _different(labels, random)]
        i, j = np.concatenate(pairs, axis=1)
        is_same = np.repeat([True, False], [pairs[0].shape[1], pairs[1].shape[1]])
    if is_same.all() or not is_same.any():
        return None
    return measure_distances(_distances(embeddings, i, j), is_same)


def measure_distances(distances: np.ndarray, is_same: np.ndarray) -> Pairs:
    """Return what distances tell of pairs, of both kinds and at most 262,144.

    Args:
      distances: [pairs].
      is_same: [pairs] bool.
    """
    same, different = distances[is_same], distances[~is_same]
    edges = np.linspace(0, max(float(distances.max()), 1e-6), _BINS + 1)
    return Pairs(
        edges,
        np.histogram(same, edges)[0] / len(same),
        np.histogram(different, edges)[0] / len(different),
        len(same),
        len(different),
        _equal_error_threshold(same, different),
        _rates(distances, is_same),
    )


def _same(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return [2, pairs] rows of one class, every such pair equally likely."""
    order = np.argsort(labels, kind="stable")
    _, starts, inverse, sizes = np.unique(
        labels[order], return_index=True, return_inverse=True, return_counts=True
    )
    # A row stands in as many pairs as its class has other rows.
    weights = (sizes - 1)[inverse].astype(np.float64)
    if not weights.any():
        return np.zeros((2, 0), np.int64)
    first = random.choice(len(order), _MOST, p=weights / weights.sum())
    start, size = starts[inverse[first]], sizes[inverse[first]]
    step = 1 + (random.random(_MOST) * (size - 1)).astype(np.int64)
    second = start + (first - start + step) % size
    return order[np.stack([first, second])]


def _different(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return [2, pairs] rows of two classes, every such pair equally likely."""
    pairs = random.integers(0, len(labels), (2, 2 * _MOST))
    return pairs[:, labels[pairs[0]] != labels[pairs[1]]][:, :_MOST]


def _distances(x: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return the [pairs] Euclidean distances of rows i and j, a block at a time."""
    blocks = [slice(k, k + _BLOCK) for k in range(0, len(i), _BLOCK)]
    parts = [np.linalg.norm(x[i[block]] - x[j[block]], axis=1) for block in blocks]
    return np.concatenate(parts)


def _equal_error_threshold(same: np.ndarray, different: np.ndarray) -> float:
    """Return the distance at which both kinds of error are as near as they get."""
    thresholds = np.unique(np.concatenate([same, different]))
    refused = 1 - np.searchsorted(np.sort(same), thresholds, "right") / len(same)
    accepted = np.searchsorted(np.sort(different), thresholds, "right")
    gap = np.abs(accepted / len(different) - refused)
    # Between the last distance before the crossing and the next, any would do.
    best = np.flatnonzero(gap == gap.min())
    after = thresholds[min(best[-1] + 1, len(thresholds) - 1)]
    return float((thresholds[best[0]] + after) / 2)


def _rates(distances: np.ndarray, is_same: np.ndarray) -> dict[str, float]:
    """Return the rates of verification as Python numbers."""
    # One length for all runs of a process: one program.
    missing = 2 * _MOST - len(distances)
    found = retrieval.verification(
        np.pad(distances, (0, missing)),
        np.pad(is_same, (0, missing)),
        where=np.arange(2 * _MOST) < len(distances),
    )
    return {name: float(value) for name, value in found.items()}
