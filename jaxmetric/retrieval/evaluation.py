"""Retrieval metrics from the ranks of relevant references."""

from collections.abc import Sequence
from functools import partial

import jax
from jax.typing import ArrayLike

from jaxmetric import _checks
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance
from jaxmetric.retrieval import scores, sides

__all__ = ["evaluate"]

_NAMES = (
    "precision_at_1",
    "r_precision",
    "mean_average_precision",
    "mean_average_precision_at_r",
    "mean_average_precision_trapezoid",
    "mean_reciprocal_rank",
    "num_queries",
)


def evaluate(
    query: ArrayLike,
    query_labels: ArrayLike,
    reference: ArrayLike | None = None,
    reference_labels: ArrayLike | None = None,
    *,
    ks: Sequence[int] = (1, 2, 4, 8),
    distance: Distance = "euclidean",
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    reduction: scores.Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    """Return how well each query's nearest references share its label.

    With R the number of a query's references of its own label, rel_k whether its k-th
    nearest reference is one of them, and h_k how many of its k nearest are:

    recall_at_{k}                     1 if h_k >= 1
    precision_at_1                    rel_1
    r_precision                       h_R / R
    mean_average_precision            sum over k of rel_k h_k / k, over R
    mean_average_precision_at_r       the same over k <= R, over R
    mean_average_precision_trapezoid  see below
    mean_reciprocal_rank              1 / rank of the first relevant reference

    The trapezoid rule takes, in place of the precision h_k / k at a relevant reference,
    its mean with the one just before, (h_k - 1) / (k - 1), which is 1 for k = 1. It is
    the average precision of Oxford5k, Paris6k, their revisited versions and the
    original code of Market-1501, and never larger than the usual one.

    These are averaged over the queries with R >= 1; `num_queries` says how many they
    are. Without any the metrics are NaN, and also when an existing row is not finite.
    Among equal distances the irrelevant references come first.

    Args:
      query: [q, dim] floating.
      query_labels: [q] integer.
      reference, reference_labels, distance, where, ref_where, block_size, axis_name:
        as in `jaxmetric.retrieval`.
      reduction: "mean", or "none" for the metrics of each query.
      ks: the k of `recall_at_{k}`; beyond the number of references it means all.

    Returns:
      A dict of scalars in [0, 1], float32 or wider, and `num_queries`, int32. Float32
      rounds the metrics by less than 1e-6, for up to 2^23 queries and references.
      With reduction="none" the same names with [q] numbers each, NaN for a query that
      is left out; its `num_queries` is 0, and 1 for the others.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x n). Time: O(q n (dim + largest class)) where no class has more
    than 128 references, else O(q n (dim + log n)).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [1.0], [3.0], [7.0]])
      >>> metrics = evaluate(x, jnp.array([0, 0, 1, 1]), ks=(1,))
      >>> for name, value in metrics.items():
      ...     print(f"{name} {value:.4g}")
      recall_at_1 0.75
      precision_at_1 0.75
      r_precision 0.75
      mean_average_precision 0.8333
      mean_average_precision_at_r 0.75
      mean_average_precision_trapezoid 0.7917
      mean_reciprocal_rank 0.8333
      num_queries 4

    Source: Musgrave, Belongie, Lim. A Metric Learning Reality Check. ECCV, 2020.
    arXiv:2003.08505 (R-precision and MAP@R). Philbin, Chum, Isard, Sivic, Zisserman.
    Object retrieval with large vocabularies and fast spatial matching. CVPR, 2007 (the
    trapezoid rule).
    """
    function = "evaluate"
    comparison = sides.compare(
        function,
        query,
        query_labels,
        reference,
        reference_labels,
        distance=distance,
        where=where,
        ref_where=ref_where,
        axis_name=axis_name,
    )
    _checks.block_size(function, block_size)
    ks = sides.positive_ints(function, "ks", ks, "Use ks=(1, 2, 4, 8).")
    scores.check_reduction(function, reduction)
    metrics = _evaluate(comparison, (ks, reduction, block_size, scores.MOST_COUNTED))
    # A compiled function returns a dict in the order of its keys.
    return {name: metrics[name] for name in (*map(_recall, ks), *_NAMES)}


@partial(jax.jit, static_argnames="options")
def _evaluate(comparison: Comparison, options: tuple) -> dict[str, jax.Array]:
    """Rank by blocks of queries, and average."""
    ks, reduction, block_size, most_counted = options
    found, is_good = scores.score(comparison, block_size, most_counted)
    values = {_recall(k): scores.is_within(found, k) for k in ks}
    values |= scores.metrics(found)
    is_counted, axis_name = found.size > 0, comparison.axis_name
    return scores.reduce(values, is_counted, is_good, reduction, axis_name)


def _recall(k: int) -> str:
    """Return the name of the recall at k."""
    return f"recall_at_{k}"
