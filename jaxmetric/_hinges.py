"""Sums of hinges over all triplets of a row, without the cube.

For one anchor with positives p and negatives n,

  total = sum over p, n of max(0, (d_p + margin) - d_n)

Between kinks this is linear in the distances and the margin:

  d total = sum_p k_p dd_p - sum_n c_n dd_n + (sum_p k_p) d margin

where k_p counts the active negatives of a positive and c_n the active positives of a
negative, which are constant there. So the sum is found and the triplets are counted
without gradient, by any algorithm, and the `custom_jvp` below has the counts as
slopes. They are constants of its rule, so that derivatives of every order are those of
the hinges, away from the kinks; at a kink (a violation of exactly 0) the slope is 0.

Two algorithms find them. A visit to one positive after the other costs a comparison a
triplet, and is best for many small classes. A sort of the row's negatives makes every
positive a binary search: for a few large classes, and for many margins at once.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero

from jaxmetric import _numerics, _selection, _sorted_hinges
from jaxmetric._rows import Block
from jaxmetric.pairs import ClassSegments

# From here on a sort is cheaper than a visit to each positive, or each margin.
_LARGE_CLASS = 256
_MANY_MARGINS = 8
# Positives that are searched for together: a large class, or a few under each margin.
_CHUNK, _CHUNK_OF_MARGINS = 512, 4


def hinge_sums(block: Block, margin: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return [b] sums over all triplets of a row, and how many of them are active.

    Args:
      block: with its `segments`.
      margin: [b, 1].

    Memory: O(b n). Time: O(b n min(largest class, log n)).
    """
    masks = (block.positive, block.negative, block.segments)
    count = jnp.zeros(block.where.size, jnp.int32)
    count = _numerics.varying_like(count, block.distances, margin, block.positive)
    return _sums(block.distances, margin[:, 0], count, masks)


@jax.custom_jvp
def _sums(
    d: jax.Array, margin: jax.Array, count: jax.Array, masks: tuple
) -> tuple[jax.Array, jax.Array]:
    """Return total and number of active triplets; `count` is [b] integer zeros."""
    return _sums_of_margins(d, margin, count, masks)


@jax.custom_jvp
def _sums_and_slopes(
    d: jax.Array, margin: jax.Array, count: jax.Array, masks: tuple
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return also the [b, n] slopes: k_p of a positive, -c_n of a negative."""
    return _find(d, margin, count, masks, with_slope=True)


@partial(_sums.defjvp, symbolic_zeros=True)
def _(primals: tuple, tangents: tuple) -> tuple:
    total, num_active, slope = _sums_and_slopes(*primals)
    change = _change(total, num_active, slope, tangents)
    return (total, num_active), (change, tangents[2])


@partial(_sums_and_slopes.defjvp, symbolic_zeros=True)
def _(primals: tuple, tangents: tuple) -> tuple:
    total, num_active, slope = result = _sums_and_slopes(*primals)
    change = _change(total, num_active, slope, tangents)
    return result, (change, tangents[2], jnp.zeros_like(slope))


def _change(
    total: jax.Array, num_active: jax.Array, slope: jax.Array, tangents: tuple
) -> jax.Array:
    """Return the tangent of the totals."""
    d, margin, change = *tangents[:2], jnp.zeros_like(total)
    if not isinstance(d, SymbolicZero):
        # A distance without an active triplet may be infinite, and its slope is 0.
        change += jnp.sum(jnp.where(slope != 0, slope * d, 0), -1)
    if not isinstance(margin, SymbolicZero):
        change += num_active.astype(total.dtype) * margin
    return change


@custom_vmap
def _sums_of_margins(
    d: jax.Array, margin: jax.Array, count: jax.Array, masks: tuple
) -> tuple[jax.Array, jax.Array]:
    """Return the sums, by a way that many margins share where they are mapped over."""
    return _find(d, margin, count, masks, with_slope=False)


@_sums_of_margins.def_vmap
def _(size: int, is_batched: list, *operands: Any) -> tuple:
    find = partial(_find, with_slope=False)
    others = (is_batched[0], *is_batched[2:])
    can_sort = isinstance(operands[3][2], ClassSegments)
    if size >= _MANY_MARGINS and can_sort and not any(jax.tree.leaves(others)):
        # One sort of each row serves all margins.
        chunk = _CHUNK_OF_MARGINS
        find = partial(_sorted_hinges.sums, with_slope=False, chunk=chunk)
    axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(is_batched))
    return jax.vmap(find, in_axes=axes)(*operands), (True, True)


def _find(
    d: jax.Array, margin: jax.Array, count: jax.Array, masks: tuple, *, with_slope: bool
) -> tuple:
    """Return total, number of active triplets, and the slopes if they are wanted."""
    visit = partial(_visit, with_slope=with_slope)
    segments = masks[2]
    if d.shape[1] <= _LARGE_CLASS or not isinstance(segments, ClassSegments):
        return visit(d, margin, count, masks)
    sort = partial(_sorted_hinges.sums, with_slope=with_slope, chunk=_CHUNK)
    is_large = jnp.max(segments.size) >= _LARGE_CLASS
    return lax.cond(is_large, sort, visit, d, margin, count, masks)


def _visit(
    d: jax.Array, margin: jax.Array, count: jax.Array, masks: tuple, *, with_slope: bool
) -> tuple:
    """Visit one positive of every row at a time: total, active triplets, [b, n] slopes.

    slope_j = (active negatives of j as a positive) - (active positives of j as a
    negative)
    """
    positive, negative, segments = masks
    rows = jnp.arange(d.shape[0])

    def step(slot: jax.Array, state: tuple) -> tuple:
        total, num_active, *slope = state
        p, exists = segments.candidate(slot)
        exists &= positive[rows, p]
        violation = (d[rows, p] + margin)[:, None] - d
        is_active = exists[:, None] & negative & (violation > 0)
        total += jnp.sum(jnp.where(is_active, violation, 0), -1)
        active_negatives = jnp.sum(is_active, -1, dtype=jnp.int32)
        if with_slope:
            pulled = slope[0] - is_active.astype(d.dtype)
            slope = [pulled.at[rows, p].add(active_negatives.astype(d.dtype))]
        return total, num_active + active_negatives, *slope

    start = (jnp.zeros_like(margin), count) + (jnp.zeros_like(d),) * with_slope
    start = _numerics.varying_like(start, d, margin, count)
    return _selection.visit_slots(step, start, segments, d)
