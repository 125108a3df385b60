"""Retrieval metrics from the ranks of relevant references.

A rank is a whole number, and every sum of quotients is taken over fixed-point numbers,
which add exactly. So the metrics are the same to the last bit however the queries are
split into blocks or spread over devices.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _geometry, _rows, pairs
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance
from jaxmetric.retrieval import ranks, sides

__all__ = ["evaluate"]

# On CPU counting costs about 0.25 ns a relevant reference and column, and sorting 35
# to 40 ns a column.
_MOST_COUNTED = 128

_NAMES = (
    "precision_at_1",
    "r_precision",
    "mean_average_precision",
    "mean_average_precision_at_r",
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
    block_size: int | None = None,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    """Return how well each query's nearest references share its label.

    With R the number of a query's references of its own label, rel_k whether its k-th
    nearest reference is one of them, and h_k how many of its k nearest are:

    recall_at_{k}                  1 if h_k >= 1
    precision_at_1                 rel_1
    r_precision                    h_R / R
    mean_average_precision         sum over k of rel_k h_k / k, over R
    mean_average_precision_at_r    the same over k <= R, over R
    mean_reciprocal_rank           1 / rank of the first relevant reference

    These are averaged over the queries with R >= 1; `num_queries` says how many they
    are. Without any the metrics are NaN, and also when an existing row is not finite.
    Among equal distances the irrelevant references come first.

    Args:
      query: [q, dim] floating.
      query_labels: [q] integer.
      reference, reference_labels, distance, where, ref_where, block_size, axis_name:
        as in `jaxmetric.retrieval`.
      ks: the k of `recall_at_{k}`; beyond the number of references it means all.

    Returns:
      A dict of scalars in [0, 1], float32 or wider, and `num_queries`, int32. Float32
      rounds the metrics by less than 1e-6, for up to 2^23 queries and references.

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
      mean_reciprocal_rank 0.8333
      num_queries 4

    Source: Musgrave, Belongie, Lim. A Metric Learning Reality Check. ECCV, 2020.
    arXiv:2003.08505 (R-precision and MAP@R).
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
    ks = _check_ks(function, ks)
    metrics = _evaluate(comparison, (ks, block_size, _MOST_COUNTED))
    # A compiled function returns a dict in the order of its keys.
    return {name: metrics[name] for name in (*map(_recall, ks), *_NAMES)}


class _Scores(NamedTuple):
    """What the metrics need of each query, [b] each; meaningless where R is 0.

    Attributes:
      first: int32 rank of the nearest relevant reference.
      hits: int32 number of relevant references among the first R.
      precision, precision_at_r: R times the average precisions, in float.
    """

    first: jax.Array
    hits: jax.Array
    precision: jax.Array
    precision_at_r: jax.Array


@partial(jax.jit, static_argnames="options")
def _evaluate(comparison: Comparison, options: tuple) -> dict[str, jax.Array]:
    """Prepare, rank by blocks of queries, and average."""
    ks, block_size, most_counted = options
    comparison = _rows.gather(comparison)
    search, geometry = sides.to_search(comparison, _rows.prepare(comparison))
    segments = pairs.class_segments(search.anchors, search.references)
    # Queries of large classes stand together: a block counts up to its largest one.
    by_size = jnp.argsort(-segments.size)
    geometry = _geometry.take_rows(geometry, lambda a: a[by_size])
    anchors = jax.tree.map(lambda a: a[by_size], search.anchors)
    search = dataclasses.replace(search, anchors=anchors)
    places = tuple(a[by_size] for a in (segments.start, segments.size, segments.own))

    def body(block: _rows.Block, *places: jax.Array) -> tuple[_Scores, jax.Array]:
        own_places = (column[:, 0] for column in places)
        of_block = pairs.ClassSegments(segments.order, *own_places)
        return _rank(block, of_block, most_counted)

    scores, is_number = _rows.map_rows(search, geometry, body, places, block_size)
    metrics = _average(scores, places[1], ks, comparison.axis_name)
    num_unordered = _add(jnp.sum(~is_number, dtype=jnp.int32), comparison.axis_name)
    is_good = _rows.is_finite(comparison) & (num_unordered == 0)
    return {
        name: value if name == "num_queries" else jnp.where(is_good, value, jnp.nan)
        for name, value in metrics.items()
    }


def _rank(
    block: _rows.Block, segments: pairs.ClassSegments, most_counted: int
) -> tuple[_Scores, jax.Array]:
    """Return the scores of a block of queries, and which have no NaN distance."""
    positive, negative = block.positive, block.negative
    is_near = sides.near(block)
    distances = block.distances
    if is_near is not None:
        # The order of near pairs matters where both kinds are among them.
        is_unsettled = jnp.any(is_near & positive, -1)
        is_unsettled &= jnp.any(is_near & negative, -1)
        distances = sides.settle(block, is_near, is_unsettled)
    keys = ranks.order_keys(distances)
    # Products of finite rows may overflow, and a callable may return anything.
    is_number = ~jnp.any(jnp.isnan(distances) & (positive | negative), -1)
    is_signed = callable(block.distance) or block.distance == "dot"
    sort = ranks.by_sorting_apart if is_signed else ranks.by_sorting
    score = partial(_score, size=segments.size, dtype=distances.dtype)

    def count(keys: jax.Array) -> _Scores:
        slots = min(most_counted, keys.shape[-1])
        return score(ranks.by_counting(keys, negative, segments, slots))

    if keys.shape[-1] <= most_counted:
        return count(keys), is_number
    scores = lax.cond(
        jnp.max(segments.size) <= most_counted,
        count,
        lambda keys: score(sort(keys, positive, negative)),
        keys,
    )
    return scores, is_number


def _score(found: ranks.Ranks, *, size: jax.Array, dtype: jnp.dtype) -> _Scores:
    """Return the scores of queries with `size` relevant references, [b]."""
    rank, hits, is_relevant = found
    is_within = is_relevant & (rank <= size[:, None])
    precision = _fixed_point(hits.astype(dtype) / rank.astype(dtype))
    add = jax.vmap(partial(_sum_fixed_point, dtype=dtype))
    return _Scores(
        first=jnp.min(jnp.where(is_relevant, rank, jnp.iinfo(rank.dtype).max), axis=-1),
        hits=jnp.sum(is_within, -1, dtype=jnp.int32),
        precision=add(jnp.where(is_relevant, precision, 0)),
        precision_at_r=add(jnp.where(is_within, precision, 0)),
    )


def _average(
    scores: _Scores, size: jax.Array, ks: tuple[int, ...], axis_name: str | None
) -> dict[str, jax.Array]:
    """Return the metrics of queries with `size` relevant references, [q]."""
    dtype = scores.precision.dtype
    is_counted = size > 0
    num_queries = _add(jnp.sum(is_counted, dtype=jnp.int32), axis_name)
    # Two wheres: without queries the metrics are NaN, but nothing is divided by 0.
    count = jnp.where(num_queries > 0, num_queries, 1).astype(dtype)

    def mean(total: jax.Array) -> jax.Array:
        return jnp.where(num_queries > 0, total / count, jnp.nan)

    def share(is_hit: jax.Array) -> jax.Array:
        num_hits = jnp.sum(is_hit & is_counted, dtype=jnp.int32)
        return mean(_add(num_hits, axis_name).astype(dtype))

    def mean_quotient(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
        safe = jnp.where(is_counted, denominator, 1).astype(dtype)
        quotient = jnp.where(is_counted, numerator.astype(dtype) / safe, 0)
        return mean(_sum_fixed_point(_fixed_point(quotient), dtype, axis_name))

    metrics = {_recall(k): share(scores.first <= k) for k in ks}
    return metrics | {
        "precision_at_1": share(scores.first == 1),
        "r_precision": mean_quotient(scores.hits, size),
        "mean_average_precision": mean_quotient(scores.precision, size),
        "mean_average_precision_at_r": mean_quotient(scores.precision_at_r, size),
        "mean_reciprocal_rank": mean_quotient(jnp.ones_like(size), scores.first),
        "num_queries": num_queries,
    }


def _fixed_point(x: jax.Array) -> jax.Array:
    """Return numbers in [0, 1] as integers, in units of the last place of 1."""
    kind = jnp.int32 if x.dtype == jnp.float32 else jnp.int64
    return jnp.round(x * _one(x.dtype)).astype(kind)


def _sum_fixed_point(
    x: jax.Array, dtype: jnp.dtype, axis_name: str | None = None
) -> jax.Array:
    """Return the sum of [n] fixed-point numbers, over all devices of the axis.

    The whole numbers are added, in three parts that do not overflow for n up to 2^23,
    so neither the order nor the split over devices matters.
    """
    parts = (x & 255, (x >> 8) & 255, x >> 16)
    low, middle, high = (_add(jnp.sum(a), axis_name).astype(dtype) for a in parts)
    return (low + middle * 2**8 + high * 2**16) / _one(dtype)


def _one(dtype: jnp.dtype) -> float:
    """Return what 1 is in fixed point: 2^24, or 2^40 for wider than float32."""
    return 2.0**24 if dtype == jnp.float32 else 2.0**40


def _recall(k: int) -> str:
    """Return the name of the recall at k."""
    return f"recall_at_{k}"


def _add(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Add a scalar over the devices of the axis."""
    return x if axis_name is None else lax.psum(x, axis_name)


def _check_ks(function: str, ks: Sequence[int]) -> tuple[int, ...]:
    """Return the ks as a tuple of positive ints."""
    values = tuple(ks) if isinstance(ks, Sequence | np.ndarray) else (ks,)
    for k in values:
        is_int = isinstance(k, int | np.integer) and not isinstance(k, bool)
        if not is_int or k < 1:
            must, remedy = "hold positive ints", "Use ks=(1, 2, 4, 8)."
            raise ValueError(_checks.text(function, "ks", must, repr(k), remedy))
    return tuple(int(k) for k in values)
