"""Sums of hinges over all triplets of a row, without the cube.

For one anchor with positives p and negatives n,

  total = sum over p, n of max(0, (d_p + margin) - d_n)
        = sum_p k_p d_p - sum_n c_n d_n + (sum_p k_p) margin

where k_p counts the active negatives of a positive and c_n the active positives of a
negative. Between kinks they are constant, so they are found without gradient, by any
algorithm, and the second line has the value and the derivatives of every order; at a
kink (a violation of exactly 0) the slope is 0. Positives and negatives have as many
slopes, sum_p k_p = sum_n c_n: any number may be taken from all distances of a row, and
one of their size leaves the fewest digits to cancel.

Two algorithms count. A visit to one positive after the other costs a comparison a
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


@partial(_sums.defjvp, symbolic_zeros=True)
def _(primals: tuple, tangents: tuple) -> tuple:
    """Differentiate the second line, which is the value too, to the last bit.

    Written out, because the value alone is taken by a way that `vmap` may replace, and
    that has no derivative. Its total can be differentiated again as it stands: under
    rematerialisation no rule of a rule is kept.
    """
    total, num_active, slope = _sums_and_slopes(*primals)
    d, margin, change = *tangents[:2], jnp.zeros_like(total)
    if not isinstance(d, SymbolicZero):
        # A distance without an active triplet may be infinite, and its slope is 0.
        change += jnp.sum(jnp.where(slope != 0, slope * d, 0), -1)
    if not isinstance(margin, SymbolicZero):
        change += num_active.astype(total.dtype) * margin
    return (total, num_active), (change, tangents[2])


@custom_vmap
def _sums_of_margins(
    d: jax.Array, margin: jax.Array, count: jax.Array, masks: tuple
) -> tuple[jax.Array, jax.Array]:
    """Return the sums, by a way that many margins share where they are mapped over."""
    return _sums_and_slopes(d, margin, count, masks)[:2]


@_sums_of_margins.def_vmap
def _(size: int, is_batched: list, *operands: Any) -> tuple:
    find = lambda *operands: _sums_and_slopes(*operands)[:2]  # noqa: E731
    others = (is_batched[0], *is_batched[2:])
    can_sort = isinstance(operands[3][2], ClassSegments)
    if size >= _MANY_MARGINS and can_sort and not any(jax.tree.leaves(others)):
        # One sort of each row serves all margins, and no slope is needed.
        find = partial(_sorted_hinges.sums, chunk=_CHUNK_OF_MARGINS)
    axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(is_batched))
    return jax.vmap(find, in_axes=axes)(*operands), (True, True)


def _sums_and_slopes(
    d: jax.Array, margin: jax.Array, count: jax.Array, masks: tuple
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return total, number of active triplets and [b, n] slopes: k_p, or -c_n."""
    fixed = lax.stop_gradient((d, margin))
    num_active, slope, origin = _count(*fixed, count, masks)
    origin = jnp.where(jnp.isfinite(origin), origin, 0)[:, None]
    total = jnp.sum(jnp.where(slope != 0, slope * (d - origin), 0), -1)
    return total + num_active.astype(d.dtype) * margin, num_active, slope


def _count(
    d: jax.Array, margin: jax.Array, count: jax.Array, masks: tuple
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the number of active triplets, the slopes, and a positive's distance."""
    segments = masks[2]
    if d.shape[1] <= _LARGE_CLASS or not isinstance(segments, ClassSegments):
        return _visit(d, margin, count, masks)
    sort = partial(_sorted_hinges.slopes, chunk=_CHUNK)
    is_large = jnp.max(segments.size) >= _LARGE_CLASS
    return lax.cond(is_large, sort, _visit, d, margin, count, masks)


def _visit(
    d: jax.Array, margin: jax.Array, count: jax.Array, masks: tuple
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Visit one positive of every row at a time."""
    positive, negative, segments = masks
    rows = jnp.arange(d.shape[0])
    others = jnp.where(negative, d, jnp.inf)

    def step(slot: jax.Array, state: tuple) -> tuple:
        num_active, slope, origin = state
        p, exists = segments.candidate(slot)
        exists &= positive[rows, p]
        d_p = d[rows, p]
        t = jnp.where(exists, d_p + margin, -jnp.inf)
        # Counted as numbers: XLA adds floats several at a time on CPU.
        is_active = (others < t[:, None]).astype(d.dtype)
        active_negatives = jnp.sum(is_active, -1)
        slope = (slope - is_active).at[rows, p].add(active_negatives)
        num_active += active_negatives.astype(jnp.int32)
        return num_active, slope, jnp.where(exists, d_p, origin)

    start = (count, jnp.zeros_like(d), jnp.zeros_like(margin))
    start = _numerics.varying_like(start, d, margin, count)
    return _selection.visit_slots(step, start, segments, d)
