"""The total of a row formula with its gradient from the same pass over the blocks.

Reverse mode over rematerialised blocks computes every block twice: for the value, and
again on the way back. Where a scalar is all that the rows are wanted for, the gradient
of a block can be had while the block is at hand. With f the weighted total of all rows
and g its gradient,

  d f(v) = <g(v), d v>

holds in both modes. A `custom_jvp` with this rule takes f and g from one pass; in
reverse mode the rest is a product with g. The derivative of g itself is that of the
plain program, so second and higher orders are the plain ones.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxmetric import _blocks, _numerics, reductions
from jaxmetric.reductions import LossStats, Reduction

# The weighted total, and the counts of all rows: (num_terms, num_active).
Result = tuple[jax.Array, tuple[jax.Array, jax.Array]]


def reduced_blocks(
    one_block: Callable[[Any, Any], LossStats],
    rows: Any,
    shared: Any,
    weights: jax.Array | None,
    n: int,
    block_size: int | None,
    reduction: Reduction,
) -> Result:
    """Return the weighted total of the statistics of all blocks, and their counts.

    Args:
      one_block, rows, shared, n, block_size: as in `map_blocks`.
      weights: [m] or None.
      reduction: any but "none".
    """
    m = _blocks.num_rows(rows)
    operands = ((rows, weights), shared)
    leaves, tree = jax.tree.flatten(operands)
    # A sum over devices, where there is one, comes after the total: until then all is
    # one device's own, replicated numbers too.
    leaves = _numerics.varying_like(leaves, *leaves)
    num_row_leaves = len(jax.tree.leaves(operands[0]))

    def reduced(stats: LossStats, weights: jax.Array | None) -> Result:
        total = reductions.weighted_total(stats, reduction, weights)
        return total, (stats.num_terms, stats.num_active)

    def plain(*leaves: jax.Array) -> Result:
        (rows, weights), shared = tree.unflatten(leaves)
        stats = _blocks.map_blocks(one_block, rows, shared, n, block_size)
        return reduced(stats, weights)

    def one_total(*leaves: jax.Array) -> tuple[jax.Array, LossStats]:
        (rows, weights), shared = tree.unflatten(leaves)
        stats = one_block(rows, shared)
        return reductions.weighted_total(stats, reduction, weights), stats

    def fused(moving: tuple[int, ...], leaves: tuple[jax.Array, ...]) -> tuple:
        """Return the result and the gradient by the moving leaves, block by block."""
        value_and_grad = jax.value_and_grad(one_total, moving, has_aux=True)
        of_rows = [i for i in moving if i < num_row_leaves]
        of_shared = moving[len(of_rows) :]

        def by_blocks(block_size: int, *leaves: jax.Array) -> tuple:
            everybody = leaves[num_row_leaves:]

            def step(sums: tuple, mine: list[jax.Array]) -> tuple:
                (_, stats), grads = value_and_grad(*mine, *everybody)
                parts = grads[len(of_rows) :]
                sums = tuple(a + b for a, b in zip(sums, parts, strict=True))
                return sums, (stats, grads[: len(of_rows)])

            zeros = tuple(jnp.zeros_like(leaves[i]) for i in of_shared)
            zeros = _numerics.varying_like(zeros, *leaves)
            mine = _blocks.split(list(leaves[:num_row_leaves]), block_size)
            sums, result = lax.scan(step, zeros, mine)
            stats, grads = _blocks.join(result, m)
            weights = tree.unflatten(leaves)[0][1]
            # The same numbers are added in the same order as without a gradient.
            return reduced(stats, weights), (*grads, *sums)

        return _blocks.choose(by_blocks, m, n, block_size, *leaves)

    counts = _numerics.varying_like(jnp.zeros(m, jnp.int32), *leaves)
    return with_gradient(plain, fused, counts)(*leaves)


def with_gradient(
    plain: Callable[..., Result], fused: Callable[..., tuple], counts: jax.Array
) -> Callable[..., Result]:
    """Return `plain` with the derivatives of the module's docstring.

    `fused(moving, primals)` gives the result of `plain` and the gradient by the primals
    of these numbers; `counts` is any array of integers of their shape.
    """
    # The tangent of integers has a type of its own, which inside `jax.shard_map` tells
    # where it varies: the counts borrow that of an operand which is like them.
    function = jax.custom_jvp(lambda counts, *primals: plain(*primals))

    @partial(function.defjvp, symbolic_zeros=True)
    def _(primals: tuple, tangents: tuple) -> tuple:
        moving = _moving(tangents[1:])
        result, grads = gradient(moving)(*primals)
        total = _product(grads, tangents[1:], moving)
        return result, (total, (tangents[0], tangents[0]))

    def gradient(moving: tuple[int, ...]) -> Callable[..., tuple]:
        """Return the function of value and gradient, with the plain derivatives."""
        first = jax.custom_jvp(lambda counts, *primals: fused(moving, primals))

        @partial(first.defjvp, symbolic_zeros=True)
        def _(primals: tuple, tangents: tuple) -> tuple:
            leaves, second = primals[1:], _moving(tangents[1:])

            def slow(*values: jax.Array) -> tuple:
                every = list(leaves)
                for i, value in zip(second, values, strict=True):
                    every[i] = value
                (total, counts), grads = jax.value_and_grad(
                    plain, moving, has_aux=True
                )(*every)
                return (total, grads), counts

            (total, grads), (total_dot, grads_dot), counts = jax.jvp(
                slow,
                tuple(leaves[i] for i in second),
                tuple(tangents[1:][i] for i in second),
                has_aux=True,
            )
            result = (total, counts), grads
            return result, ((total_dot, (tangents[0], tangents[0])), grads_dot)

        return first

    return partial(function, counts)


def _moving(tangents: tuple) -> tuple[int, ...]:
    """Return which operands are differentiated."""
    still = SymbolicZero
    return tuple(i for i, t in enumerate(tangents) if not isinstance(t, still))


def _product(grads: tuple, tangents: tuple, moving: tuple[int, ...]) -> jax.Array:
    """Return the inner product of a gradient with the tangents that move."""
    pairs = zip(grads, moving, strict=True)
    return sum(jnp.sum(grad * tangents[i]) for grad, i in pairs)  # pyright: ignore
