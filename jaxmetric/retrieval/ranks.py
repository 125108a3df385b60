"""The ranks of a query's relevant references, by counting or by sorting.

A tie counts against, so the rank of the r-th nearest relevant reference is

  r + #{irrelevant references at most as far}

and nothing needs sorting but the few relevant ones: each costs one pass of comparisons
over its row. Where a query has too many of them for that, the row is sorted by
(distance, relevance). Both give the same whole numbers.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _numerics, pairs


class Ranks(NamedTuple):
    """Slots of relevant references, [b, slots] each.

    Attributes:
      rank: int32, among all candidates of the query, from 1.
      hits: int32, among the relevant ones, from 1.
      is_relevant: bool, whether the slot holds a relevant reference.
    """

    rank: jax.Array
    hits: jax.Array
    is_relevant: jax.Array


def by_counting(
    keys: jax.Array,
    negative: jax.Array,
    segments: pairs.ClassSegments,
    most_counted: int,
    kept: jax.Array | None = None,
) -> Ranks:
    """Return the ranks of at most `most_counted` relevant references a query.

    Args:
      keys: [b, n] order keys of a block's distances.
      negative: [b, n] bool, irrelevant references.
      segments: where each row's relevant references stand.
      most_counted: the static number of slots.
      kept: [b, n] bool, which of them are relevant; None for all.
    """
    largest = jnp.iinfo(keys.dtype).max
    slots = jnp.arange(most_counted, dtype=jnp.int32)
    index, is_relevant = jax.vmap(segments.candidate, out_axes=1)(slots)
    relevant = jnp.take_along_axis(keys, index, axis=1)
    if kept is not None:
        is_relevant &= jnp.take_along_axis(kept, index, axis=1)
    relevant = lax.sort(jnp.where(is_relevant, relevant, largest))
    irrelevant = jnp.where(negative, keys, largest)

    def count(slot: jax.Array, closer: jax.Array) -> jax.Array:
        # One slot a pass: counting several at once is no faster, and on wide rows
        # several times slower.
        limit = lax.dynamic_slice_in_dim(relevant, slot, 1, axis=1)
        counts = jnp.sum(irrelevant <= limit, -1, keepdims=True, dtype=jnp.int32)
        return lax.dynamic_update_slice_in_dim(closer, counts, slot, axis=1)

    closer = _numerics.varying_like(jnp.zeros_like(index), keys)
    closer = lax.fori_loop(0, jnp.max(segments.size), count, closer)
    hits = jnp.broadcast_to(slots[None, :] + 1, index.shape)
    # Sorted, the relevant ones stand in the first slots.
    num_relevant = jnp.sum(is_relevant, -1, keepdims=True, dtype=jnp.int32)
    return Ranks(closer + hits, hits, hits <= num_relevant)


def by_sorting(keys: jax.Array, positive: jax.Array, negative: jax.Array) -> Ranks:
    """Return the ranks of any number of relevant references, for keys >= 0.

    Args:
      keys: [b, n] order keys of a block's distances.
      positive, negative: [b, n] bool, relevant and irrelevant references.
    """
    # The keys leave one bit: moved down by half their range and doubled, they make
    # room for the relevance, which puts irrelevant references first among equals.
    limits = jnp.iinfo(keys.dtype)
    packed = ((keys + (limits.min // 2)) << 1) | positive.astype(keys.dtype)
    packed = jnp.where(positive | negative, packed, limits.max - 1)
    is_relevant = (lax.sort(packed) & 1) > 0
    hits = jnp.cumsum(is_relevant, axis=-1, dtype=jnp.int32)
    rank = lax.broadcasted_iota(jnp.int32, hits.shape, 1) + 1
    return Ranks(rank, hits, is_relevant)


def by_sorting_apart(
    keys: jax.Array, positive: jax.Array, negative: jax.Array
) -> Ranks:
    """Return the same as `by_sorting`, for keys of any sign."""
    # No bit is left for the relevance, and a sort by two keys costs three times as
    # much as two sorts and a binary search.
    largest = jnp.iinfo(keys.dtype).max
    relevant = lax.sort(jnp.where(positive, keys, largest))
    irrelevant = lax.sort(jnp.where(negative, keys, largest))
    search = partial(jnp.searchsorted, side="right", method="scan_unrolled")
    closer = jax.vmap(search)(irrelevant, relevant).astype(jnp.int32)
    hits = lax.broadcasted_iota(jnp.int32, keys.shape, 1) + 1
    num_relevant = jnp.sum(positive, -1, keepdims=True, dtype=jnp.int32)
    return Ranks(closer + hits, hits, hits <= num_relevant)
