"""Cumulative matching over groups: pictures by the own camera are left out."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance
from jaxmetric.retrieval import scores, sides

__all__ = ["cmc"]


def cmc(
    query: ArrayLike,
    query_labels: ArrayLike,
    reference: ArrayLike | None = None,
    reference_labels: ArrayLike | None = None,
    *,
    ranks: Sequence[int] = (1, 5, 10),
    query_groups: ArrayLike | None = None,
    reference_groups: ArrayLike | None = None,
    distance: Distance = "euclidean",
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    reduction: scores.Reduction = "mean",
    block_size: int | None = None,
) -> dict[str, jax.Array]:
    """Return how often the right identity is among the first, over cameras.

    Of each query's references, those of the same label and the same group are left
    out: another picture by the same camera is no evidence. References of other labels
    stay, whatever their group. Of what is left, with the symbols of `evaluate`:

    cmc_{rank}               1 if h_rank >= 1: the right label is among the first
    mean_average_precision   sum over k of rel_k h_k / k, over R

    These are averaged over the queries with R >= 1; `num_queries` says how many they
    are. Without any the metrics are NaN, and also when an existing row is not finite.
    Among equal distances the irrelevant references come first. Without groups nothing
    is left out, but a query itself where there is no `reference`.

    Args:
      query: [q, dim] floating.
      query_labels: [q] integer, identities.
      ranks: the ranks of `cmc_{rank}`; beyond the number of references it means all.
      query_groups, reference_groups: [q], [n] integer, cameras. Both, or neither, or
        the first alone where there is no `reference`.
      reference, reference_labels, distance, where, ref_where, block_size: as in
        `jaxmetric.retrieval`.
      reduction: "mean", or "none" for the metrics of each query, as in `evaluate`.

    Returns:
      A dict of scalars in [0, 1], float32 or wider, and `num_queries`, int32.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x n). Time: as `evaluate`.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [1.0], [3.0], [7.0]])
      >>> labels, cameras = jnp.array([0, 0, 1, 0]), jnp.array([0, 0, 0, 1])
      >>> metrics = cmc(x, labels, ranks=(1, 2), query_groups=cameras)
      >>> for name, value in metrics.items():
      ...     print(f"{name} {value:.4g}")
      cmc_1 0
      cmc_2 1
      mean_average_precision 0.5278
      num_queries 3

    Source: Zheng, Shen, Tian, Wang, Wang, Tian. Scalable Person Re-identification: A
    Benchmark. ICCV, 2015 (Market-1501). Its own code takes the trapezoid rule for the
    average precision (see `evaluate`); the field's later code this one.
    """
    function = "cmc"
    comparison = sides.compare(
        function,
        query,
        query_labels,
        reference,
        reference_labels,
        distance=distance,
        where=where,
        ref_where=ref_where,
        axis_name=None,
    )
    groups = _check_groups(function, comparison, query_groups, reference_groups)
    _checks.block_size(function, block_size)
    scores.check_reduction(function, reduction)
    at = sides.positive_ints(function, "ranks", ranks, "Use ranks=(1, 5, 10).")
    metrics = _cmc(comparison, groups, (at, reduction, block_size))
    names = (*map(_name, at), "mean_average_precision", "num_queries")
    return {name: metrics[name] for name in names}


@partial(jax.jit, static_argnames="options")
def _cmc(
    comparison: Comparison,
    groups: tuple[jax.Array, jax.Array] | None,
    options: tuple,
) -> dict[str, jax.Array]:
    """Name the samples by label and group, rank by blocks of queries, and average."""
    at, reduction, block_size = options
    if groups is not None:
        comparison = _with_ids(comparison, groups)
    found, is_good = scores.score(comparison, block_size)
    values = {_name(k): scores.is_within(found, k) for k in at}
    name = "mean_average_precision"
    values[name] = scores.metrics(found)[name]
    return scores.reduce(values, found.size > 0, is_good, reduction)


def _with_ids(
    comparison: Comparison, groups: tuple[jax.Array, jax.Array]
) -> Comparison:
    """Give rows of the same label and group the same id: they are not compared."""
    anchors, references = comparison.anchors, comparison.references
    labels = jnp.concatenate([anchors.labels, references.labels])
    both = jnp.concatenate(groups)
    iota = jnp.arange(labels.shape[0], dtype=jnp.int32)
    labels, both, order = lax.sort((labels, both, iota), num_keys=2)
    is_new = (labels[1:] != labels[:-1]) | (both[1:] != both[:-1])
    numbers = jnp.pad(jnp.cumsum(is_new, dtype=jnp.int32), (1, 0))
    ids = jnp.zeros_like(numbers).at[order].set(numbers)
    q = comparison.num_rows
    return dataclasses.replace(
        comparison,
        anchors=anchors._replace(ids=ids[:q]),
        references=references._replace(ids=ids[q:]),
    )


def _check_groups(
    function: str,
    comparison: Comparison,
    query_groups: ArrayLike | None,
    reference_groups: ArrayLike | None,
) -> tuple[jax.Array, jax.Array] | None:
    """Return the groups of both sides, [q] and [n] integer, or None."""
    if query_groups is None and reference_groups is None:
        return None
    is_self = comparison.y is None
    if query_groups is None or (reference_groups is None) != is_self:
        name, other, got = "reference_groups", "query_groups", "None"
        remedy = "Pass one integer a row of both sides."
        if query_groups is None:
            name, other = other, name
        elif is_self:
            other, got = "reference", "it alone"
            remedy = "Pass `query_groups` alone to compare the queries with each other."
        must = f"come with `{other}`"
        raise ValueError(_checks.text(function, name, must, got, remedy))
    x, y = comparison.x, comparison.y
    mine = _checks.integers(function, "query_groups", query_groups, x, "query")
    if y is None or reference_groups is None:
        return mine, mine
    name = "reference_groups"
    others = _checks.integers(function, name, reference_groups, y, "reference")
    return _checks.alike(mine, others)


def _name(rank: int) -> str:
    """Return the name of the cumulative matching at a rank."""
    return f"cmc_{rank}"
