"""Which references a row selects: the hardest, or the semi-hard for each positive.

Shared by the losses that select and recompute and by the miners. Everything here runs
under stop-gradient and returns indices, not masks of equal values: the same distance
computed in two kernels can differ in its last bit.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _numerics, _rows, _tiles
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Geometry
from jaxmetric._rows import Block
from jaxmetric.pairs import ClassSegments, RowSegments


def find_hardest(
    comparison: Comparison, geometry: Geometry, block_size: int | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return [m] farthest positives and nearest negatives, and who has both."""
    search = _rows.to_search(comparison, geometry)
    if _tiles.are_fewer(comparison, block_size):
        return _tiles.hardest(*search)
    return _rows.map_rows(*search, hardest, (), block_size)


def hardest(block: Block) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return [b] farthest positives and nearest negatives, and who has both."""
    p = _numerics.masked_argmax(block.distances, block.positive)
    n = _numerics.masked_argmin(block.distances, block.negative)
    return p, n, block.has_both


def semi_hard(
    block: Block, d: jax.Array
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """Return the function of a slot that selects each row's semi-hard pair there.

    It gives [b] positives, their negatives (the nearest one strictly beyond the
    positive, else the farthest), and whether the slot holds a pair. `d` are the
    block's distances under stop-gradient.
    """
    segments, rows = block.segments, jnp.arange(d.shape[0])
    assert segments is not None
    farthest = _numerics.masked_argmax(d, block.negative)
    has_negative = jnp.any(block.negative, -1)

    def select(slot: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        p, exists = segments.candidate(slot)
        exists &= block.positive[rows, p] & has_negative
        is_beyond = block.negative & (d > d[rows, p][:, None])
        nearest = _numerics.masked_argmin(d, is_beyond)
        return p, jnp.where(jnp.any(is_beyond, -1), nearest, farthest), exists

    return select


def visit_positives(
    step: Callable[..., Any],
    start: tuple,
    block: Block,
    *,
    first: int = 0,
    stop: int | None = None,
) -> tuple:
    """Return the state after `state = step(slot, state)` for the slots of positives.

    They are those from `first` up to the largest class at hand, or `stop`. How many
    there are is known only at run time; so the loop cannot be differentiated, and is
    not: see the losses that use it.
    """
    assert block.segments is not None
    return visit_slots(
        step, start, block.segments, block.distances, first=first, stop=stop
    )


def visit_slots(
    step: Callable[..., Any],
    start: tuple,
    segments: ClassSegments | RowSegments,
    like: jax.Array,
    *,
    first: int = 0,
    stop: int | None = None,
) -> tuple:
    """Do the same for the rows of `segments`; `like` varies over devices as they do."""
    last = jnp.max(segments.size)
    last = last if stop is None else jnp.minimum(last, stop)
    loop = _numerics.varying_like((jnp.int32(first), start), like, segments.size)
    _, state = lax.while_loop(
        lambda loop: loop[0] < last,
        lambda loop: (loop[0] + 1, step(*loop)),
        loop,
    )
    return state


def sum_over_positives(
    block: Block, term: Callable[[jax.Array, jax.Array], Any], start: Any
) -> Any:
    """Return `start` plus `term(p, exists)` of one positive of every row at a time.

    It can be differentiated. `p` and `exists` are [b]: an index, and whether the row
    has a positive there; the pytree of a term is that of `start`.

    Memory: that of one term, which the backward pass computes again.
    """
    segments, rows = block.segments, jnp.arange(block.where.size)
    assert segments is not None

    @partial(jax.checkpoint, prevent_cse=False)
    def add(total: Any, slot: jax.Array) -> tuple[Any, None]:
        p, exists = segments.candidate(slot)
        exists &= block.positive[rows, p]
        return jax.tree.map(jnp.add, total, term(p, exists)), None

    # Reverse mode needs loops of static length, while how many positives there are is
    # data: stretches of growing length, and those beyond the largest class are skipped.
    total = _numerics.varying_like(start, block.distances, block.positive)
    n = block.distances.shape[1]
    largest, first, length = jnp.max(segments.size), 0, 8
    while first < n:
        slots = jnp.arange(first, min(first + length, n), dtype=jnp.int32)
        total = lax.cond(
            largest > first,
            lambda total, slots=slots: lax.scan(add, total, slots)[0],
            lambda total: total,
            total,
        )
        first, length = first + length, 8 * length
    return total
