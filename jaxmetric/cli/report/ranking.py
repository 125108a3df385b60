"""Every held-out row as a query: its metrics, their intervals, and what it finds."""

from typing import NamedTuple

import jax
import numpy as np

from jaxmetric import retrieval
from jaxmetric.cli.report.facts import Spread

# Rows are filled up to a multiple of this, and columns: small runs share a program.
_ROWS, _COLUMNS = 128, 64
# Draws times queries of the confidence intervals: a second or two.
_DRAWN = 20_000_000


class Ranking(NamedTuple):
    """What the rows find among each other.

    Attributes:
      scores: [n] numbers by metric, NaN for a row that has no other of its class.
      neighbors, distances: [n, k], nearest first.
    """

    scores: dict[str, np.ndarray]
    neighbors: np.ndarray
    distances: np.ndarray


def rank(embeddings: np.ndarray, labels: np.ndarray, *, k: int) -> Ranking:
    """Rank all other rows for each row.

    Args:
      embeddings: [n, dim], finite.
      labels: [n] integer.
      k: neighbours to return, at most n - 1.
    """
    n, dim = embeddings.shape
    missing = -n % _ROWS
    # Columns of zeros change no distance, and rows that do not exist count nowhere.
    x = np.pad(embeddings, [(0, missing), (0, -dim % _COLUMNS)])
    exists = np.arange(n + missing) < n
    padded = np.pad(labels, (0, missing))
    scores = retrieval.evaluate(x, padded, where=exists, reduction="none")
    found = retrieval.nearest_neighbors(x, k=k, where=exists)
    return Ranking(
        {name: np.asarray(values)[:n] for name, values in scores.items()},
        *(np.asarray(array)[:n] for array in found),
    )


def interval(values: np.ndarray) -> Spread:
    """Return the mean of a metric over queries, and where 95 % of its resamples lie.

    Args:
      values: [n], NaN for rows that are no queries.
    """
    num_samples = min(max(_DRAWN // len(values), 100), 1000)
    missing = -len(values) % _ROWS
    values = np.pad(values, (0, missing), constant_values=np.nan)
    # The same key for every metric: the same queries are drawn.
    found = retrieval.bootstrap(jax.random.key(0), values, num_samples=num_samples)
    return Spread(*map(float, found))
