"""A batch against itself, where the rows of a loss are functions of sums over pairs.

The distance of i to j is that of j to i, so a pair need be met only once, and gives a
term to both rows. Put an odd number of blocks of rows on a circle: each block meets
itself and the half of the others that follow it, and so every two blocks meet once. A
block against those is a strip of the matrix. With the total

  F = sum_i w_i f(S_i),   S_i = sum_j phi(d_ij)

the value takes half of the product of matrices that whole rows need. With
c_i = dF / dS_i

  dF / dd_ij = <c_i + c_j, phi'(d_ij)>   for both places of the pair together,

so a second walk over the strips, which knows all c, ends with the gradient: two
products in all, where whole rows take three.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _blocks, _geometry, _gradients, _numerics, _rows, pairs
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Geometry
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction, mean_of, weighted_total

# Numbers in a strip, its fewest rows, and up to how many numbers the matrix is one
# strip: small ones stay in a CPU core's cache, large ones make fast products.
_CPU = 2**18, 256, 2**20
_ACCELERATOR = 2**24, 128, 2**24

_TO_A_SCALAR = ("mean", "mean_active", "mean_per_anchor", "sum")

# Arrays of terms, [b, n] of pairs or [m] of their sums.
Terms = tuple[jax.Array, ...]


class _Moved(NamedTuple):
    """What is differentiated of the rows, [m, ...]; None where no distance asks."""

    x_centred: jax.Array
    x: jax.Array | None
    norms: jax.Array | None


class _Known(NamedTuple):
    """What is not, [m]."""

    x_exists: jax.Array
    side: pairs.Side


class _Circle(NamedTuple):
    """Rows arranged for the walk.

    Attributes:
      blocks: arrays [blocks, b, ...], the last rows padding.
      around: arrays [..., blocks b + (blocks // 2) b], rows along the last axis; the
        first half of the blocks comes once more after the last.
    """

    blocks: Any
    around: Any


def are_fewer(
    comparison: Comparison,
    hyper: tuple[jax.Array, ...],
    reduction: Reduction,
    block_size: int | None,
) -> bool:
    """Return whether strips may take the place of whole rows, and pay."""
    m = comparison.num_rows
    return (
        comparison.y is None
        and comparison.axis_name is None
        and comparison.anchors.relation is None
        and not callable(comparison.distance)
        and all(a.ndim == 0 for a in hyper)
        and reduction in _TO_A_SCALAR
        and block_size is None
        and not _blocks.is_one(m, m, None)
    )


def pair_sum_loss(
    comparison: Comparison,
    pair: Callable[..., Terms],
    row: Callable[..., LossStats],
    hyper: tuple[jax.Array, ...] = (),
    static: tuple[Any, ...] = (),
    *,
    reduction: Reduction,
) -> jax.Array | LossStats:
    """Return the loss of a formula of sums over pairs, where strips `are_fewer`.

    `pair(block, *hyper, *static)` returns [b, n] terms, 0 or False where there is no
    pair, which are the same for both rows of a pair. `row(sums, *hyper, *static)`
    returns the `LossStats` of [m] sums of them.

    Memory: O(strip + m dim), forward and backward.
    """
    return _pair_sum_loss(comparison, hyper, (pair, row, static, reduction))


def pair_loss(
    comparison: Comparison,
    pair: Callable[..., tuple[jax.Array, jax.Array]],
    hyper: tuple[jax.Array, ...] = (),
    static: tuple[Any, ...] = (),
    *,
    reduction: Reduction,
    block_size: int | None,
    function: str,
) -> jax.Array | LossStats:
    """Return the loss of a formula with one term a pair, by strips or by whole rows.

    `pair(block, *hyper, *static)` returns [b, n] terms, and who has one; they are the
    same for both rows of a pair, but for hyper-parameters of each anchor.
    """
    static = (pair, static)
    if are_fewer(comparison, hyper, reduction, block_size):
        formula = (_one_term_a_pair, _sums_of_terms, hyper, static)
        return pair_sum_loss(comparison, *formula, reduction=reduction)
    return _rows.row_loss(
        comparison,
        _row_of_terms,
        hyper,
        static,
        reduction=reduction,
        block_size=block_size,
        function=function,
    )


def _row_of_terms(block: Block, *hyper_and_static: Any) -> LossStats:
    """Return the statistics of rows of a formula with one term a pair."""
    *hyper, pair, static = hyper_and_static
    return _rows.pair_terms(*pair(block, *hyper, *static))


def _one_term_a_pair(block: Block, *hyper_and_static: Any) -> Terms:
    """Return the same to be summed: terms, who has one, and which are above 0."""
    *hyper, pair, static = hyper_and_static
    terms, is_term = pair(block, *hyper, *static)
    terms = jnp.where(is_term, terms, 0)
    return terms, is_term, terms > 0


def _sums_of_terms(sums: Terms, *hyper_and_static: Any) -> LossStats:
    """Return the statistics that sums of these are."""
    total, count, active = sums
    return LossStats(total, count.astype(jnp.int32), active.astype(jnp.int32))


@partial(jax.jit, static_argnames="options")
def _pair_sum_loss(
    comparison: Comparison, hyper: tuple[jax.Array, ...], options: tuple
) -> jax.Array | LossStats:
    """Prepare, walk and reduce; compiled once for each formula and shape."""
    pair, row, static, reduction = options
    geometry = _rows.prepare(comparison)
    moved = _Moved(geometry.x_centred, None, None)
    if comparison.distance not in ("cosine", "dot"):
        norms = _geometry.squared_norms(geometry)[0]
        moved = _Moved(geometry.x_centred, geometry.x, norms)
    known = _Known(geometry.x_exists, comparison.anchors)
    weights, shared = comparison.weights, (geometry.scale, hyper)
    leaves, tree = jax.tree.flatten(((moved, weights, shared), known))
    leaves = _numerics.varying_like(leaves, *leaves)
    named = (comparison.distance, comparison.precision)
    strip = partial(_strip, named, lambda block, *hyper: pair(block, *hyper, *static))
    m = comparison.num_rows

    def reduced(sums: Terms, weights: Any, shared: Any) -> _gradients.Result:
        stats = row(sums, *shared[1], *static)
        total = weighted_total(stats, reduction, weights)
        return total, (stats.num_terms, stats.num_active)

    def plain(*leaves: jax.Array) -> _gradients.Result:
        (moved, weights, shared), known = tree.unflatten(leaves)

        def walk(number: int, moved: _Moved, known: _Known, shared: Any) -> Terms:
            circles = _circle(moved, number), _circle(known, number)
            return tuple(a[:m] for a in _sums(strip, *circles, shared))

        return reduced(_choose(walk, m, moved, known, shared), weights, shared)

    def fused(moving: tuple[int, ...], leaves: tuple[jax.Array, ...]) -> tuple:
        """Return the result and the gradient by the moving leaves."""

        def walk(number: int, *leaves: jax.Array) -> tuple:
            (moved, weights, shared), known = tree.unflatten(leaves)
            circle, pull = jax.vjp(lambda moved: _circle(moved, number), moved)
            circles = circle, _circle(known, number)
            sums = tuple(a[:m] for a in _sums(strip, *circles, shared))
            of_sums = jax.value_and_grad(reduced, (0, 1, 2), has_aux=True)
            result, (c, of_weights, of_shared) = of_sums(sums, weights, shared)
            of_circle, through = _back(strip, *circles, shared, _circle(c, number))
            of_shared = jax.tree.map(jnp.add, of_shared, through)
            grads = jax.tree.leaves((*pull(of_circle), of_weights, of_shared))
            return result, tuple(grads[i] for i in moving)

        return _choose(walk, m, *leaves)

    counts = _numerics.varying_like(jnp.zeros(m, jnp.int32), *leaves)
    total, counted = _gradients.with_gradient(plain, fused, counts)(*leaves)
    loss = mean_of(total, LossStats(total, *counted), reduction, weights, None)
    return _rows.poisoned(loss, _rows.is_finite(comparison))


def _strip(
    named: tuple[Any, Any],
    pair: Callable[..., Terms],
    moved: tuple[_Moved, _Moved],
    known: tuple[_Known, _Known],
    shared: Any,
) -> tuple[Terms, Terms]:
    """Return the sums of a strip's terms: of its block, and of what follows that.

    Of each pair of rows, the first are the block's, and the others the strip's.
    """
    (mine, others), (known_mine, known_others) = moved, known
    (distance, precision), (scale, hyper) = named, shared
    b = mine.x_centred.shape[0]
    mine_x, others_x = (a.x_centred if a.x is None else a.x for a in (mine, others))
    geometry = Geometry(
        x=mine_x,
        y=others_x.T,
        x_centred=mine.x_centred,
        y_centred=others.x_centred.T,
        x_exists=known_mine.x_exists,
        y_exists=known_others.x_exists,
        scale=scale,
        y_columns=others.x_centred,
    )
    # A strip begins with its own block: the pair of row i with itself is at column i.
    anchors = known_mine.side._replace(index=lax.iota(jnp.int32, b))
    positive, negative = pairs.pair_masks(anchors, known_others.side)
    norms = None
    if mine.norms is not None and others.norms is not None:
        norms = (mine.norms, others.norms)
    block = Block(
        distances=_geometry.block_distances(geometry, distance, precision, norms),
        positive=positive,
        negative=negative,
        where=anchors.where,
        labels=anchors.labels,
        geometry=geometry,
        distance=distance,
        segments=None,
    )
    terms, add = pair(block, *hyper), partial(jnp.sum, dtype=geometry.x.dtype)
    return tuple(add(a, 1) for a in terms), tuple(add(a[:, b:], 0) for a in terms)


def _sums(strip: Callable, moved: _Circle, known: _Circle, shared: Any) -> Terms:
    """Return the sums of the terms of all rows, those of padding last."""
    number, b = known.blocks.x_exists.shape

    # Where the walk itself is differentiated, in second order, strips are made again,
    # and in reverse over reverse once more for what was made again.
    again = partial(jax.checkpoint, prevent_cse=False)

    @again
    def found(i: Any, mine: Any, known_mine: Any) -> Terms:
        others, known_others = _take((moved.around, known.around), i, number, b)
        own, later = strip((mine, others), (known_mine, known_others), shared)
        return jax.tree.map(lambda *both: jnp.concatenate(both), own, later)

    @again
    def step(sums: Terms, block: tuple) -> tuple[Terms, None]:
        return _add(sums, found(*block), block[0], b), None

    blocks = (lax.iota(jnp.int32, number), moved.blocks, known.blocks)
    terms = jax.eval_shape(found, *jax.tree.map(lambda a: a[0], blocks))
    sums = tuple(jnp.zeros(known.around.x_exists.shape, a.dtype) for a in terms)
    sums = _numerics.varying_like(sums, *jax.tree.leaves((moved, known, shared)))
    sums, _ = lax.scan(step, sums, blocks)
    # What the second turn of the circle has found belongs to the first rows.
    n = number * b
    return tuple(a[:n].at[: a.size - n].add(a[n:]) for a in sums)


def _back(
    strip: Callable, moved: _Circle, known: _Circle, shared: Any, c: _Circle
) -> tuple[_Circle, Any]:
    """Return the gradient by the circle and by `shared`, given `c` of the sums."""
    number, b = known.blocks.x_exists.shape

    def step(totals: tuple, block: tuple) -> tuple[tuple, _Moved]:
        i, mine, known_mine, c_mine = block
        of_around, of_shared = totals
        around = moved.around, known.around, c.around
        others, known_others, c_others = _take(around, i, number, b)
        _, pull = jax.vjp(
            lambda mine, others, shared: strip(
                (mine, others), (known_mine, known_others), shared
            ),
            *(mine, others, shared),
        )
        c_later = jax.tree.map(lambda a: a[b:], c_others)
        of_mine, of_others, of_one = pull((c_mine, c_later))
        of_shared = jax.tree.map(jnp.add, of_shared, of_one)
        return (_add(of_around, of_others, i, b), of_shared), of_mine

    zeros = jax.tree.map(jnp.zeros_like, (moved.around, shared))
    zeros = _numerics.varying_like(zeros, *jax.tree.leaves((moved, known, shared, c)))
    blocks = (lax.iota(jnp.int32, number), moved.blocks, known.blocks, c.blocks)
    (of_around, of_shared), of_blocks = lax.scan(step, zeros, blocks)
    return _Circle(of_blocks, of_around), of_shared


def _circle(rows: Any, number: int) -> _Circle:
    """Arrange [m, ...] arrays."""
    m = _blocks.num_rows(rows)
    b = -(-m // number)

    def split(a: jax.Array) -> jax.Array:
        missing = ((0, number * b - m),) + ((0, 0),) * (a.ndim - 1)
        # Padding has where=False, and so no pairs.
        return jnp.pad(a, missing).reshape((number, b) + a.shape[1:])

    def around(a: jax.Array) -> jax.Array:
        again = jnp.concatenate([a, a[: number // 2]])
        a = again.reshape((-1,) + a.shape[2:])
        # Columns to be multiplied, and kept from being turned round again: the reason
        # is told in `_geometry.columns`.
        return a if a.ndim == 1 else lax.optimization_barrier(a.T)

    blocks = jax.tree.map(split, rows)
    return _Circle(blocks, jax.tree.map(around, blocks))


def _take(around: Any, i: Any, number: int, b: int) -> Any:
    """Return what strip `i` has of arrays on the circle."""
    size = (number // 2 + 1) * b
    return jax.tree.map(
        lambda a: lax.dynamic_slice_in_dim(a, i * b, size, a.ndim - 1), around
    )


def _add(around: Any, found: Any, i: Any, b: int) -> Any:
    """Add what strip `i` has found to arrays on the circle."""

    def add(a: jax.Array, new: jax.Array) -> jax.Array:
        axis = a.ndim - 1
        old = lax.dynamic_slice_in_dim(a, i * b, new.shape[axis], axis)
        return lax.dynamic_update_slice_in_dim(a, old + new, i * b, axis)

    return jax.tree.map(add, around, found)


def _choose(walk: Callable[..., Any], m: int, *operands: Any) -> Any:
    """Call `walk(number, *operands)` with the number of blocks of the platform."""
    cpu, accelerator = _number(m, *_CPU), _number(m, *_ACCELERATOR)
    if cpu == accelerator:
        return walk(cpu, *operands)
    return lax.platform_dependent(
        *operands, cpu=partial(walk, cpu), default=partial(walk, accelerator)
    )


def _number(m: int, elements: int, minimum: int, whole: int) -> int:
    """Return an odd number of blocks, from static shapes only."""
    if m * m <= whole:
        return 1
    # A strip of b rows has b (m + b) / 2 numbers.
    b = max(minimum, int((-m + math.sqrt(m * m + 8 * elements)) / 2))
    return -(-m // b) | 1
