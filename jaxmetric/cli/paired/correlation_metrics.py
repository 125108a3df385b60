"""How well predictions order pairs as their scores do."""

import numpy as np

from jaxmetric.cli.measure import Metrics


def correlations(predictions: np.ndarray, scores: np.ndarray) -> Metrics:
    """Return Spearman's and Pearson's correlation; of constant numbers it is 0."""
    found = {
        "spearman": _pearson(ranks(predictions), ranks(scores)),
        "pearson": _pearson(predictions, scores),
    }
    return {**found, "num_pairs": len(scores)}


def ranks(values: np.ndarray) -> np.ndarray:
    """Return [n] ranks from 0, equal values sharing the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2)[places]


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Return the correlation of [n] and [n] numbers."""
    x, y = (np.asarray(a, np.float64) - np.mean(a, dtype=np.float64) for a in (x, y))
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / spread if spread > 0 else 0.0
