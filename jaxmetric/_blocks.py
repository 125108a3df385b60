"""Blocks of anchor rows: how many rows make one, and how they are streamed.

One block is the dense case. Many are looped over and rematerialised in the backward
pass, so that memory is that of one block.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# Numbers in the matrix of one block: it stays in a CPU core's cache, and fills an
# accelerator; and the fewest rows.
_CPU_ELEMENTS, _CPU_ROWS = 2**19, 32
_ACCELERATOR_ELEMENTS, _ACCELERATOR_ROWS = 2**24, 128
# Products with fewer rows are slow: of 16,384 rows, blocks of 32 take 1.3 to 1.4 times
# as long as blocks of 128. For these a block may be larger, but no more than that.
_FAST_ROWS, _LARGER = 128, 4


def map_blocks(
    one_block: Callable[[Any, Any], Any],
    rows: Any,
    shared: Any,
    n: int,
    block_size: int | None,
) -> Any:
    """Return the pytree of [m, ...] arrays that `one_block(rows, shared)` makes.

    Args:
      one_block: a function of the rows of a block and of what all blocks share.
      rows: pytree of [m, ...] arrays.
      shared: pytree of arrays.
      n: how many references each row is compared with.
      block_size: rows of a block; None for the platform's own.
    """
    m = num_rows(rows)

    def by_blocks(block_size: int, rows: Any, shared: Any) -> Any:
        if block_size >= m:
            return one_block(rows, shared)
        checkpointed = jax.checkpoint(one_block, prevent_cse=False)
        result = lax.map(
            lambda rows: checkpointed(rows, shared), split(rows, block_size)
        )
        return join(result, m)

    return choose(by_blocks, m, n, block_size, rows, shared)


def fold_blocks(
    one_block: Callable[[Any, Any, Any], Any],
    rows: Any,
    shared: Any,
    state: Any,
    n: int,
    block_size: int | None,
) -> Any:
    """Return the state after `state = one_block(rows, shared, state)`, block by block.

    For results that are not one a row; not to be differentiated. The arguments are
    those of `map_blocks`.
    """
    m = num_rows(rows)

    def by_blocks(block_size: int, rows: Any, shared: Any, state: Any) -> Any:
        if block_size >= m:
            return one_block(rows, shared, state)
        state, _ = lax.scan(
            lambda state, rows: (one_block(rows, shared, state), None),
            state,
            split(rows, block_size),
        )
        return state

    return choose(by_blocks, m, n, block_size, rows, shared, state)


def choose(
    by_blocks: Callable[..., Any],
    m: int,
    n: int,
    block_size: int | None,
    *operands: Any,
) -> Any:
    """Call `by_blocks(block_size, *operands)`; None is the size of the platform."""
    cpu, accelerator = _sizes(m, n, block_size)
    if cpu == accelerator:
        return by_blocks(cpu, *operands)
    # Only the branch of the platform at hand is ever lowered.
    return lax.platform_dependent(
        *operands, cpu=partial(by_blocks, cpu), default=partial(by_blocks, accelerator)
    )


def is_one(m: int, n: int, block_size: int | None) -> bool:
    """Return whether all rows make one block, on every platform."""
    return min(_sizes(m, n, block_size)) >= m


def num_rows(rows: Any) -> int:
    """Return the length of the leading axis of a pytree."""
    return jax.tree.leaves(rows)[0].shape[0]


def split(rows: Any, block_size: int) -> Any:
    """Return a pytree of [m, ...] arrays as one of [num_blocks, block_size, ...]."""

    def split_one(a: jax.Array) -> jax.Array:
        # Padded anchors have where=False, so they add exactly 0.
        num_blocks = -(-a.shape[0] // block_size)
        missing = num_blocks * block_size - a.shape[0]
        a = jnp.pad(a, ((0, missing),) + ((0, 0),) * (a.ndim - 1))
        return a.reshape((num_blocks, block_size) + a.shape[1:])

    return jax.tree.map(split_one, rows)


def join(blocks: Any, m: int) -> Any:
    """Return a pytree of [num_blocks, block_size, ...] arrays as one of m rows."""
    return jax.tree.map(lambda a: a.reshape((-1,) + a.shape[2:])[:m], blocks)


def _sizes(m: int, n: int, block_size: int | None) -> tuple[int, int]:
    """Return the rows of a block on a CPU and on an accelerator."""
    if block_size is not None:
        return block_size, block_size
    cpu = _rows_of_a_block(m, n, _CPU_ELEMENTS, _CPU_ROWS)
    return cpu, _rows_of_a_block(m, n, _ACCELERATOR_ELEMENTS, _ACCELERATOR_ROWS)


def _rows_of_a_block(m: int, n: int, elements: int, minimum: int) -> int:
    """Return how many of m rows make a block, from static shapes only."""
    fast = min(_FAST_ROWS, _LARGER * elements // n)
    rows = max(minimum, fast, elements // n)
    if rows >= m:
        return m
    # Equal blocks: the last one is as full as the rest, give or take a row.
    return -(-m // -(-m // rows))
