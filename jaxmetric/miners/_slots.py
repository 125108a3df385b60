"""From masks of what is chosen to slots: arrays of a static number of indices.

What is chosen is known block by block, as masks. Either every candidate has its slot,
or the chosen ones are written one after another into a buffer of fixed size, which
takes memory for a block and the buffer alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _checks, _numerics, _rows, _selection
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Geometry
from jaxmetric._rows import Block
from jaxmetric.pairs import Pairs, Triplets

# Positions in a buffer are added without overflow up to this size.
_LARGEST_SIZE = 2**30

# [b] positives and which of them exist -> [b, n], which negatives go with them.
Opposed = Callable[[jax.Array, jax.Array], jax.Array]


def check_size(function: str, size: int | None) -> None:
    """Require a number of slots, or None for all."""
    if size is None:
        return
    _checks.positive_int(function, "size", size)
    if size > _LARGEST_SIZE:
        must, remedy = f"be at most {_LARGEST_SIZE}", "Use a smaller buffer."
        raise ValueError(_checks.text(function, "size", must, str(size), remedy))


def measured(comparison: Comparison) -> tuple[Comparison, Geometry]:
    """Return a comparison and its geometry, ready for distances without gradient.

    Rows that are not finite are taken for rows that do not exist.
    """
    comparison = _rows.gather(comparison)
    anchors, references = comparison.anchors, comparison.references
    y = comparison.x if comparison.y is None else comparison.y
    comparison = dataclasses.replace(
        comparison,
        anchors=anchors._replace(where=anchors.where & _is_finite(comparison.x)),
        references=references._replace(where=references.where & _is_finite(y)),
    )
    return comparison, lax.stop_gradient(_rows.prepare(comparison))


def global_rows(comparison: Comparison) -> jax.Array:
    """Return [m] int32 numbers of the anchors among those of all devices."""
    rows = jnp.arange(comparison.num_rows, dtype=jnp.int32)
    if comparison.axis_name is None:
        return rows
    return rows + lax.axis_index(comparison.axis_name) * comparison.num_rows


def finite(block: Block) -> Block:
    """Return a block whose masks hold no pair at a distance that is not finite.

    Sums of squares may overflow, and a callable may return anything.
    """
    is_finite = jnp.isfinite(block.distances)
    return dataclasses.replace(
        block,
        positive=block.positive & is_finite,
        negative=block.negative & is_finite,
    )


def triplets(
    anchor: jax.Array, positive: jax.Array, negative: jax.Array, valid: jax.Array
) -> Triplets:
    """Return triplets whose invalid slots hold index 0."""
    a, p, n = (jnp.where(valid, index, 0) for index in (anchor, positive, negative))
    return Triplets(a, p, n, valid)


def pairs_of(
    anchor: jax.Array, other: jax.Array, is_positive: jax.Array, valid: jax.Array
) -> Pairs:
    """Return pairs whose invalid slots hold index 0."""
    a, o = (jnp.where(valid, index, 0) for index in (anchor, other))
    return Pairs(a, o, valid & is_positive, valid)


def each_pair(
    search: tuple[Comparison, Geometry],
    body: Callable[..., tuple[jax.Array, jax.Array]],
    per_row: tuple[jax.Array, ...],
    size: int | None,
    block_size: int | None,
    *,
    by_class: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return anchors, others, what goes with them, and `valid`, of [m n] or [size].

    `body(block, *per_row)` returns the [b, n] mask of the chosen pairs and a [b, n]
    array of integers or bool that goes with them.
    """
    comparison, geometry = search
    if size is None:
        valid, extra = _rows.map_rows(
            *search, body, per_row, block_size, by_class=by_class
        )
        anchor = lax.broadcasted_iota(jnp.int32, valid.shape, 0)
        other = lax.broadcasted_iota(jnp.int32, valid.shape, 1)
        anchor, other, extra, valid = (
            a.reshape(-1) for a in (anchor, other, extra, valid)
        )
        return anchor, other, extra, valid

    def write(state: tuple, block: Block, rows: jax.Array, *per_row: Any) -> tuple:
        count, buffers = state
        chosen, extra = body(block, *per_row)
        others = lax.broadcasted_iota(jnp.int32, chosen.shape, 1)
        rank = jnp.cumsum(chosen.reshape(-1), dtype=jnp.int32)
        rows = jnp.broadcast_to(rows, chosen.shape)
        position = (count + rank - 1).reshape(chosen.shape)
        values = (rows, others, extra.astype(jnp.int32), chosen)
        buffers = _write(buffers, position, chosen, values)
        return jnp.minimum(count + rank[-1], size), buffers

    rows = jnp.arange(comparison.num_rows, dtype=jnp.int32)
    start = (jnp.int32(0), _buffers(size))
    start = _numerics.varying_like(start, geometry.x, geometry.y)
    _, (anchor, other, extra, valid) = _rows.fold_rows(
        *search, write, (rows, *per_row), start, block_size, by_class=by_class
    )
    return anchor, other, extra, valid


def each_triplet(
    search: tuple[Comparison, Geometry],
    opposed_of: Callable[..., Opposed],
    per_row: tuple[jax.Array, ...],
    size: int | None,
    block_size: int | None,
) -> Triplets:
    """Return triplets of [m n n] slots or of [size].

    `opposed_of(block, *per_row)` returns a function that says which negatives go with
    a positive of each row.
    """
    comparison, geometry = search

    def opposed_in(block: Block, *per_row: jax.Array) -> Callable[..., Any]:
        assert block.segments is not None
        segments, rows = block.segments, jnp.arange(block.where.size)
        opposed = opposed_of(block, *per_row)

        def at(slot: jax.Array) -> tuple[jax.Array, jax.Array]:
            p, exists = segments.candidate(slot)
            exists &= block.positive[rows, p]
            return p, opposed(p, exists) & exists[:, None] & block.negative

        return at

    if size is None:

        def mark(block: Block, *per_row: jax.Array) -> jax.Array:
            block = finite(block)
            at, (b, n) = opposed_in(block, *per_row), block.distances.shape

            def step(slot: jax.Array, state: tuple) -> tuple:
                p, chosen = at(slot)
                # A row without a triplet in this slot writes past the end: nowhere.
                column = jnp.where(jnp.any(chosen, -1), p, n)
                where = (jnp.arange(b), column)
                return (state[0].at[where].set(chosen, mode="drop"),)

            none = (jnp.zeros((b, n, n), bool),)
            return _selection.visit_positives(step, none, block)[0]

        valid = _rows.map_rows(*search, mark, per_row, block_size, by_class=True)
        index = (lax.broadcasted_iota(jnp.int32, valid.shape, k) for k in range(3))
        anchor, positive, negative = (a.reshape(-1) for a in index)
        return triplets(anchor, positive, negative, valid.reshape(-1))

    def write(
        state: tuple, block: Block, rows: jax.Array, *per_row: jax.Array
    ) -> tuple:
        count, buffers = state
        block = finite(block)
        at, negatives = (
            opposed_in(block, *per_row),
            jnp.arange(block.distances.shape[1]),
        )
        none = jnp.zeros(block.where.size, jnp.int32)

        def add(slot: jax.Array, state: tuple) -> tuple:
            return (state[0] + jnp.sum(at(slot)[1], -1, dtype=jnp.int32),)

        (of_rows,) = _selection.visit_positives(add, (none,), block)
        # Sums are cut at `size`, beyond which nothing is written: none overflows.
        before = lax.associative_scan(
            lambda a, b: jnp.minimum(a + b, size), jnp.minimum(of_rows, size)
        )
        total = jnp.minimum(count + before[-1], size)
        before = jnp.concatenate([jnp.zeros(1, jnp.int32), before[:-1]])

        def put(slot: jax.Array, state: tuple) -> tuple:
            written, buffers = state
            p, chosen = at(slot)
            rank = jnp.cumsum(chosen, -1, dtype=jnp.int32)
            position = count + (before + written)[:, None] + rank - 1
            shape = chosen.shape
            values = (
                jnp.broadcast_to(rows, shape),
                jnp.broadcast_to(p[:, None], shape),
                jnp.broadcast_to(negatives.astype(jnp.int32)[None, :], shape),
                chosen,
            )
            return written + rank[:, -1], _write(buffers, position, chosen, values)

        _, buffers = _selection.visit_positives(put, (none, buffers), block)
        return total, buffers

    rows = jnp.arange(comparison.num_rows, dtype=jnp.int32)
    start = (jnp.int32(0), _buffers(size))
    start = _numerics.varying_like(start, geometry.x, geometry.y)
    _, buffers = _rows.fold_rows(
        *search, write, (rows, *per_row), start, block_size, by_class=True
    )
    return triplets(*buffers)


def _is_finite(x: jax.Array) -> jax.Array:
    """Return [m] bool, which rows are finite."""
    return jnp.all(jnp.isfinite(x), -1)


def _buffers(size: int) -> tuple[jax.Array, ...]:
    """Return empty buffers of three indices and of `valid`."""
    return *(jnp.zeros(size, jnp.int32),) * 3, jnp.zeros(size, bool)


def _write(
    buffers: tuple[jax.Array, ...],
    position: jax.Array,
    chosen: jax.Array,
    values: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
    """Write the chosen of [b, n] values to their positions; past the end, nowhere."""
    position = jnp.where(chosen, position, buffers[0].size)
    return tuple(
        buffer.at[position].set(value, mode="drop")
        for buffer, value in zip(buffers, values, strict=True)
    )
