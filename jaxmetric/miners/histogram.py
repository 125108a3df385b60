"""Pairs drawn evenly over the range of their distances."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.miners import _slots
from jaxmetric.pairs import Pairs
from jaxmetric.relations import Labels

__all__ = ["uniform_histogram"]


def uniform_histogram(
    key: jax.Array,
    embeddings: jax.Array,
    labels: Labels,
    *,
    num_bins: int = 100,
    positives_per_bin: int = 10,
    negatives_per_bin: int = 10,
    distance: Distance = "euclidean",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    block_size: int | None = None,
) -> Pairs:
    """Draw as many pairs from every part of the range of distances.

    The range of the distances of all positive pairs, from the least to the greatest,
    is cut into equal bins; from each bin that holds pairs some are drawn uniformly and
    with replacement. Likewise for negative pairs. A bin holds its lower edge and not
    its upper one, the last bin both. Slots of empty bins are invalid. It compares
    pairs of different anchors, so there is no `axis_name`; the same key gives the same
    pairs for every `block_size`.

    Args:
      key: a `jax.random` key.
      embeddings: [batch, dim] floating.
      labels: [batch] integer, or a `jaxmetric.Relation`.
      num_bins: for each kind.
      positives_per_bin: draws from a bin of positive pairs; negatives_per_bin: from
        one of negative pairs.
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, ids, ref_embeddings, ref_labels, ref_where, ref_ids, block_size:
        as in `jaxmetric.losses`.

    Returns:
      `Pairs` of [num_bins * (positives_per_bin + negatives_per_bin)] slots: the
      positive pairs bin by bin, then the negative ones.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x (n + slots)). Time: O(batch (n (dim + log n) + slots)).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> found = uniform_histogram(
      ...     jax.random.key(0), x, y, num_bins=2, positives_per_bin=1,
      ...     negatives_per_bin=1
      ... )
      >>> print(jnp.abs(x[found.anchor, 0] - x[found.other, 0])[:2])
      [1. 4.]

    Source: the miner of this name in PyTorch Metric Learning; no paper.
    """
    function = "uniform_histogram"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance=distance,
        precision=precision,
        where=where,
        ids=ids,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        ref_ids=ref_ids,
    )
    _checks.block_size(function, block_size)
    _checks.positive_int(function, "num_bins", num_bins)
    _checks.positive_int(function, "positives_per_bin", positives_per_bin)
    _checks.positive_int(function, "negatives_per_bin", negatives_per_bin)
    draws = (positives_per_bin, negatives_per_bin)
    return _uniform_histogram(comparison, key, (num_bins, draws, block_size))


@partial(jax.jit, static_argnames="options")
def _uniform_histogram(comparison: Comparison, key: jax.Array, options: tuple) -> Pairs:
    """Find the ranges in one pass over the rows, draw in another."""
    num_bins, draws, block_size = options
    search = _slots.measured(comparison)

    def extremes(block: Block) -> tuple[jax.Array, ...]:
        d, block = block.distances, _slots.finite(block)
        masks = (block.positive, block.negative)
        return tuple(_numerics.masked_max(s * d, m) for m in masks for s in (-1, 1))

    found = _rows.map_rows(*search, extremes, (), block_size)
    least_p, greatest_p, least_n, greatest_n = (jnp.max(a) for a in found)
    ranges = ((-least_p, greatest_p), (-least_n, greatest_n))
    kinds = tuple(zip(jax.random.split(key), ranges, draws, strict=True))

    def draw(state: tuple, block: Block, rows: jax.Array) -> tuple:
        d, block = block.distances, _slots.finite(block)
        masks = (block.positive, block.negative)
        return tuple(
            _draw_rows(best, rows[:, 0], _bins(d, mask, *limits, num_bins), key)
            for best, mask, (key, limits, _) in zip(state, masks, kinds, strict=True)
        )

    rows, dtype = jnp.arange(comparison.num_rows, dtype=jnp.int32), comparison.dtype
    start = tuple(_nothing((num_bins, count), dtype) for count in draws)
    state = _rows.fold_rows(*search, draw, (rows,), start, block_size)
    times, anchor, other = (
        jnp.concatenate([a.reshape(-1) for a in slots])
        for slots in zip(*state, strict=True)
    )
    is_positive = jnp.arange(times.size) < num_bins * draws[0]
    return _slots.pairs_of(anchor, other, is_positive, times < jnp.inf)


def _nothing(shape: tuple[int, int], dtype: jnp.dtype) -> tuple[jax.Array, ...]:
    """Return the state of draws before any row: arrival times, anchors, others."""
    index = jnp.zeros(shape, jnp.int32)
    return jnp.full(shape, jnp.inf, dtype), index, index


def _bins(
    d: jax.Array,
    mask: jax.Array,
    least: jax.Array,
    greatest: jax.Array,
    num_bins: int,
) -> tuple[jax.Array, jax.Array]:
    """Return [b, n] columns sorted by bin, and [b, num_bins + 1] where bins start."""
    width = greatest - least
    # Without any width only the last bin, which is closed, holds anything.
    share = jnp.where(width > 0, (d - least) / jnp.where(width > 0, width, 1), 1)
    place = jnp.floor(share * num_bins)
    place = jnp.clip(jnp.where(mask, place, 0), 0, num_bins - 1).astype(jnp.int32)
    place = jnp.where(mask, place, num_bins)
    order = jnp.argsort(place, axis=-1, stable=True).astype(jnp.int32)
    place = jnp.take_along_axis(place, order, -1)
    edges = jnp.arange(num_bins + 1, dtype=jnp.int32)
    starts = jax.vmap(lambda row: jnp.searchsorted(row, edges))(place)
    return order, starts.astype(jnp.int32)


def _draw_rows(
    best: tuple[jax.Array, ...],
    rows: jax.Array,
    bins: tuple[jax.Array, jax.Array],
    key: jax.Array,
) -> tuple[jax.Array, ...]:
    """Let the rows of a block compete for every draw.

    A row with m pairs in a bin arrives at the time E / m, with E exponential: the
    first of all rows to arrive is each with a chance in proportion to its m. Its pair
    is any of the m. So no count over the whole batch is needed.
    """
    order, starts = bins
    times, anchor, other = best
    b, (num_bins, count) = rows.size, times.shape
    number = jnp.diff(starts, axis=-1)[:, :, None]

    def random(row: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_row, key_pair = jax.random.split(jax.random.fold_in(key, row))
        arrival = jax.random.exponential(key_row, times.shape, times.dtype)
        return arrival, jax.random.uniform(key_pair, times.shape, times.dtype)

    arrival, uniform = jax.vmap(random)(rows)
    safe = jnp.maximum(number, 1)
    arrival = jnp.where(number > 0, arrival / safe.astype(times.dtype), jnp.inf)
    rank = (uniform * safe.astype(times.dtype)).astype(jnp.int32)
    position = starts[:, :-1, None] + jnp.minimum(rank, safe - 1)
    column = jnp.take_along_axis(
        order, jnp.minimum(position, order.shape[1] - 1).reshape(b, -1), -1
    ).reshape(b, num_bins, count)
    first = jnp.argmin(arrival, axis=0)[None]
    mine = jnp.take_along_axis(arrival, first, 0)[0]
    is_earlier = mine < times
    column = jnp.take_along_axis(column, first, 0)[0]
    return (
        jnp.where(is_earlier, mine, times),
        jnp.where(is_earlier, rows[first[0]], anchor),
        jnp.where(is_earlier, column, other),
    )
