"""What the ranks of its relevant references say of each query, and means of it.

A rank is a whole number, and every sum of quotients is taken over fixed-point numbers,
which add exactly. So the metrics are the same to the last bit however the queries are
split into blocks or spread over devices.
"""

import dataclasses
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _checks, _geometry, _numerics, _rows, pairs
from jaxmetric._comparison import Comparison
from jaxmetric.retrieval import fixed_point, ranks, shards, sides

Reduction = Literal["mean", "none"]

# On CPU counting costs about 0.25 ns a relevant reference and column, and sorting 35
# to 40 ns a column.
MOST_COUNTED = 128


class Scores(NamedTuple):
    """What the metrics need of each query, [q] each; meaningless where `size` is 0.

    Attributes:
      size: int32 number R of relevant references.
      first: int32 rank of the nearest of them.
      hits: int32 number of them among the first R.
      precision, precision_at_r, precision_before: sums over the relevant references,
        in float, of the precision at each (over all, over those among the first R) and
        of the precision just before each.
    """

    size: jax.Array
    first: jax.Array
    hits: jax.Array
    precision: jax.Array
    precision_at_r: jax.Array
    precision_before: jax.Array


def check_reduction(function: str, reduction: object) -> None:
    """Require "mean" or "none"."""
    _checks.choice(function, "reduction", reduction, ("mean", "none"), usual="mean")


def score(
    comparison: Comparison, block_size: int | None, most_counted: int = MOST_COUNTED
) -> tuple[Scores, jax.Array]:
    """Return the scores of all queries, and whether all is finite.

    Args:
      comparison: queries against references; where it has `ids`, equal ones are out.
      block_size: queries ranked together.
      most_counted: up to so many relevant references ranks are counted, not sorted.
    """
    is_good = _rows.is_finite(comparison)
    axis_name = comparison.axis_name
    spread = shards.spread(comparison)
    comparison = _rows.gather(comparison) if spread is None else spread.comparison
    geometry = _rows.prepare(comparison)
    if spread is not None:
        geometry = spread.share(geometry)
    shared_axis = None if spread is None else axis_name
    search, geometry = sides.to_search(comparison, geometry, shared_axis)
    references = search.references if spread is None else spread.references
    segments = pairs.class_segments(search.anchors, references)
    # Queries of large classes stand together: a block counts up to its largest one.
    by_size = jnp.argsort(-segments.size)
    geometry = _geometry.take_rows(geometry, lambda a: a[by_size])
    anchors = jax.tree.map(lambda a: a[by_size], search.anchors)
    search = dataclasses.replace(search, anchors=anchors)
    places = tuple(a[by_size] for a in (segments.start, segments.size, segments.own))

    def rank(
        distances: jax.Array,
        masks: tuple[jax.Array, jax.Array],
        columns: tuple[jax.Array, ...],
    ) -> tuple[Scores, jax.Array]:
        own_places = (column[:, 0] for column in columns)
        of_block = pairs.ClassSegments(segments.order, *own_places)
        is_signed = callable(search.distance) or search.distance == "dot"
        has_ids = search.anchors.ids is not None
        options = (most_counted, is_signed, has_ids)
        return _rank(distances, masks, of_block, options)

    def here(block: _rows.Block, *columns: jax.Array) -> tuple[Scores, jax.Array]:
        distances = sides.settle_kinds(block)
        return rank(distances, (block.positive, block.negative), columns)

    def there(
        block: _rows.Block, masks: tuple[jax.Array, jax.Array], *columns: jax.Array
    ) -> tuple[Scores, jax.Array]:
        distances = sides.settle_kinds(block, axis_name)
        return rank(shards.to_owners(distances, axis_name), masks, columns)

    if spread is None:
        found = _rows.map_rows(search, geometry, here, places, block_size)
    else:
        found = spread.map_rows(search, geometry, there, places, block_size)
    scores, is_number = found
    # Back in the order of the queries.
    scores = jax.tree.map(lambda a: jnp.zeros_like(a).at[by_size].set(a), scores)
    num_unordered = jnp.sum(~is_number, dtype=jnp.int32)
    return scores, is_good & (fixed_point.add(num_unordered, axis_name) == 0)


def _rank(
    distances: jax.Array,
    masks: tuple[jax.Array, jax.Array],
    segments: pairs.ClassSegments,
    options: tuple[int, bool, bool],
) -> tuple[Scores, jax.Array]:
    """Return the scores of a block of queries, and which have no NaN distance.

    Args:
      distances: [b, n] whose order is right wherever it matters.
      masks: [b, n] bool each, relevant and irrelevant references.
      segments: where the relevant references stand, some of which may be out.
      options: the most that are counted, whether distances may be negative, and
        whether some of the segments are out.
    """
    positive, negative = masks
    most_counted, is_signed, has_ids = options
    keys = _numerics.order_keys(distances)
    # Products of finite rows may overflow, and a callable may return anything.
    is_number = ~jnp.any(jnp.isnan(distances) & (positive | negative), -1)
    sort = ranks.by_sorting_apart if is_signed else ranks.by_sorting
    size = segments.size
    if has_ids:
        size = jnp.sum(positive, -1, dtype=jnp.int32)
    summed = partial(_summed, size=size, dtype=distances.dtype)

    def count(keys: jax.Array) -> Scores:
        slots = min(most_counted, keys.shape[-1])
        kept = positive if has_ids else None
        return summed(ranks.by_counting(keys, negative, segments, slots, kept))

    if keys.shape[-1] <= most_counted:
        return count(keys), is_number
    scores = lax.cond(
        jnp.max(segments.size) <= most_counted,
        count,
        lambda keys: summed(sort(keys, positive, negative)),
        keys,
    )
    return scores, is_number


def _summed(found: ranks.Ranks, *, size: jax.Array, dtype: jnp.dtype) -> Scores:
    """Return the scores of queries with `size` relevant references, [b]."""
    rank, hits, is_relevant = found
    is_within = is_relevant & (rank <= size[:, None])
    precision = fixed_point.encode(hits.astype(dtype) / rank.astype(dtype))
    # Before the first rank the precision is 1 by convention, as in Oxford's.
    rank_before = jnp.where(rank > 1, rank - 1, 1).astype(dtype)
    before = jnp.where(rank > 1, (hits - 1).astype(dtype) / rank_before, 1)
    add = jax.vmap(partial(fixed_point.total, dtype=dtype))
    return Scores(
        size=size,
        first=jnp.min(jnp.where(is_relevant, rank, jnp.iinfo(rank.dtype).max), axis=-1),
        hits=jnp.sum(is_within, -1, dtype=jnp.int32),
        precision=add(jnp.where(is_relevant, precision, 0)),
        precision_at_r=add(jnp.where(is_within, precision, 0)),
        precision_before=add(jnp.where(is_relevant, fixed_point.encode(before), 0)),
    )


def metrics(scores: Scores) -> dict[str, jax.Array]:
    """Return the metrics of each query that need no k, [q] each; 0 where R is 0."""

    def quotient(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
        dtype = scores.precision.dtype
        safe = jnp.where(scores.size > 0, denominator, 1).astype(dtype)
        return jnp.where(scores.size > 0, numerator.astype(dtype) / safe, 0)

    size, one = scores.size, jnp.ones_like(scores.size)
    trapezoids = (scores.precision_before + scores.precision) / 2
    return {
        "precision_at_1": is_within(scores, 1),
        "r_precision": quotient(scores.hits, size),
        "mean_average_precision": quotient(scores.precision, size),
        "mean_average_precision_at_r": quotient(scores.precision_at_r, size),
        "mean_average_precision_trapezoid": quotient(trapezoids, size),
        "mean_reciprocal_rank": quotient(one, scores.first),
    }


def is_within(scores: Scores, k: int) -> jax.Array:
    """Return 1 where a relevant reference is among the first k, else 0: [q]."""
    is_hit = (scores.size > 0) & (scores.first <= k)
    return is_hit.astype(scores.precision.dtype)


def reduce(
    values: dict[str, jax.Array],
    is_counted: jax.Array,
    is_good: jax.Array,
    reduction: Reduction,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    """Return the means of [q] numbers in [0, 1] over the counted queries, or these.

    Args:
      values: name to [q].
      is_counted: [q] bool; with "none" the others are NaN.
      is_good: scalar bool; False makes everything NaN but `num_queries`.
      reduction: "mean" or "none".
      axis_name: devices over which means are taken.
    """
    count = is_counted.astype(jnp.int32)
    if reduction == "none":
        is_known = is_counted & is_good
        known = {name: jnp.where(is_known, x, jnp.nan) for name, x in values.items()}
        return known | {"num_queries": count}
    means = {
        name: fixed_point.mean(x, is_counted, axis_name) for name, x in values.items()
    }
    means = {name: jnp.where(is_good, x, jnp.nan) for name, x in means.items()}
    return means | {"num_queries": fixed_point.add(jnp.sum(count), axis_name)}
