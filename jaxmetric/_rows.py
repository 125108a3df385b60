"""The engine: blocks of anchor rows streamed through a row function.

A loss is a function of one block of rows, [b, n] distances with their masks. The
engine decides how many rows a block has (one block is the dense case), masks the
padding of the last one, gathers the references of all devices first where there are
several, and turns what the rows return into a number.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import (
    _blocks,
    _checks,
    _geometry,
    _gradients,
    _numerics,
    pairs,
    reductions,
)
from jaxmetric._comparison import Comparison, is_shard
from jaxmetric._geometry import Distance, Geometry, Precision
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Relation


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of anchor rows against all references.

    Attributes:
      distances: [b, n] in float32 or wider.
      positive, negative: [b, n] bool; rows that do not exist have neither.
      where: [b] bool, which rows exist.
      labels: [b] integer; None under a relation.
      geometry: the prepared rows of the block and of all references.
      distance: the name or callable behind `distances`.
      segments: where the candidates of each row stand among the references sorted by
        label, for formulas that visit positives one by one; None unless asked for.
      relation: [b, n] masks or weights in place of labels, or None.
    """

    distances: jax.Array
    positive: jax.Array
    negative: jax.Array
    where: jax.Array
    labels: Any
    geometry: Geometry
    distance: Distance
    segments: pairs.ClassSegments | pairs.RowSegments | None
    relation: Relation | None = None

    @property
    def similarities(self) -> jax.Array:
        """[b, n]: the cosine itself, or minus any other distance."""
        if self.distance == "cosine":
            return 1 - self.distances
        return -self.distances

    @property
    def pair_weights(self) -> jax.Array | None:
        """[b, n] soft weights of a relation, 0 outside the masks; None if all are 1."""
        return pairs.pair_weights(
            self.relation, self.positive, self.negative, self.distances.dtype
        )

    @property
    def has_both(self) -> jax.Array:
        """[b] bool, rows with at least one positive and one negative."""
        return jnp.any(self.positive, -1) & jnp.any(self.negative, -1)


def row_loss(
    comparison: Comparison,
    row: Callable[..., LossStats],
    hyper: tuple[jax.Array, ...] = (),
    static: tuple[Any, ...] = (),
    *,
    reduction: Reduction,
    block_size: int | None,
    function: str,
    by_class: bool = False,
) -> jax.Array | LossStats:
    """Return the loss of a row formula.

    `row(block, *hyper, *static)` returns the `LossStats` of the rows of a block. A
    hyper-parameter is a scalar, or [m] with one number an anchor, which the row
    receives as a column [b, 1]. With `by_class` the blocks have their `segments`.
    """
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    options = (row, static, reduction, block_size, by_class)
    return _row_loss(comparison, hyper, options)


@partial(jax.jit, static_argnames="options")
def _row_loss(
    comparison: Comparison, hyper: tuple[jax.Array, ...], options: tuple
) -> jax.Array | LossStats:
    """Prepare, map and reduce; compiled once for each row formula and shape."""
    row, static, reduction, block_size, by_class = options
    comparison = gather(comparison)
    geometry = prepare(comparison)
    body = lambda block, *hyper: row(block, *hyper, *static)  # noqa: E731
    one_block = partial(_one_block, body, (comparison.distance, comparison.precision))
    rows, shared = _split(comparison, geometry, hyper, by_class)
    n = geometry.y.shape[0]
    # Counts that are floating may have derivatives of their own (class weights). The
    # shapes are those of one row: all of them as one block need not even be possible.
    one_row = jax.tree.map(lambda a: a[:1], rows)
    count = jax.eval_shape(one_block, one_row, shared).num_terms
    has_plain_counts = jnp.issubdtype(count.dtype, jnp.integer)
    is_one = _blocks.is_one(comparison.num_rows, n, block_size)
    if reduction == "none" or is_one or not has_plain_counts:
        stats = _blocks.map_blocks(one_block, rows, shared, n, block_size)
        return finish(comparison, stats, reduction)
    weights = comparison.weights
    total, counts = _gradients.reduced_blocks(
        one_block, rows, shared, weights, n, block_size, reduction
    )
    stats, axis_name = LossStats(total, *counts), comparison.axis_name
    loss = reductions.mean_of(total, stats, reduction, weights, axis_name)
    return poisoned(loss, is_finite(comparison))


def anchor_terms(terms: jax.Array, is_counted: jax.Array) -> LossStats:
    """Return the statistics of rows with one term each, [b], where they are counted."""
    terms = jnp.where(is_counted, terms, 0)
    count, active = is_counted.astype(jnp.int32), (terms > 0).astype(jnp.int32)
    return LossStats(terms, count, active)


def pair_terms(terms: jax.Array, is_term: jax.Array) -> LossStats:
    """Return the statistics of rows of [b, n] terms, one a pair where there is one."""
    terms = jnp.where(is_term, terms, 0)
    return LossStats(
        jnp.sum(terms, -1),
        jnp.sum(is_term, -1, dtype=jnp.int32),
        jnp.sum(terms > 0, -1, dtype=jnp.int32),
    )


def piecewise_linear(
    total: jax.Array,
    slope: jax.Array,
    num_active: jax.Array,
    block: Block,
    margin: jax.Array,
) -> jax.Array:
    """Give a row's sum of hinges, found without gradient, all its derivatives.

    Between kinks the sum is linear in the distances and the margin:
      total = sum_j slope_j d_j + num_active margin
    with slope_j = (active negatives of j as a positive) - (active positives of j as a
    negative), which are constant there. The bracket below is exactly 0, so the value is
    the one that was found, and its derivatives of every order are those of the hinges.
    """
    linear = jnp.sum(jnp.where(slope != 0, slope * block.distances, 0), -1)
    linear += num_active.astype(linear.dtype) * margin[:, 0]
    return total + (linear - lax.stop_gradient(linear))


def gather(comparison: Comparison) -> Comparison:
    """Give self pairs their index, and every device the references of all devices."""
    rows = jnp.arange(comparison.num_rows, dtype=jnp.int32)
    axis_name, anchors = comparison.axis_name, comparison.anchors
    if axis_name is None:
        index = rows if comparison.y is None else None
        anchors = anchors._replace(index=index)
        return dataclasses.replace(comparison, anchors=anchors)
    place = lax.axis_index(axis_name)
    y, references = comparison.y, comparison.references
    if y is None:
        y, references = comparison.x, anchors._replace(relation=None)
        anchors = anchors._replace(index=place * comparison.num_rows + rows)

    gather_one = partial(gather_rows, axis_name=axis_name)
    # A mask made of constants is a shard like the rows that it belongs to.
    if is_shard(y, axis_name) and not comparison.has_proxies:
        y, references = jax.tree.map(gather_one, (y, references))
    return dataclasses.replace(comparison, y=y, anchors=anchors, references=references)


def gather_rows(a: jax.Array, axis_name: str | None) -> jax.Array:
    """Return the rows [m, ...] of all devices, in their order, on each."""
    if axis_name is None:
        return a
    a = _numerics.varying_like(a, lax.axis_index(axis_name))
    return lax.all_gather(a, axis_name, tiled=True)


def sum_rows(comparison: Comparison, per_anchor: Any) -> Any:
    """Sum a pytree of [m, ...] arrays over the anchors of all devices.

    For losses that are no sum of terms per anchor. Counts are added exactly, in the
    dtype of the distances; weights and `where` are the caller's.
    """

    def add(a: jax.Array) -> jax.Array:
        total = jnp.sum(a, axis=0, dtype=comparison.dtype)
        if a.ndim == 1:
            total = _numerics.sum_exactly(a, comparison.dtype)
        axis_name = comparison.axis_name
        return total if axis_name is None else lax.psum(total, axis_name)

    return jax.tree.map(add, per_anchor)


def prepare(comparison: Comparison) -> Geometry:
    """Return the prepared rows of both sides."""
    return _geometry.prepare(
        comparison.x,
        comparison.y,
        comparison.anchors.where,
        comparison.references.where,
        comparison.distance,
    )


def map_rows(
    comparison: Comparison,
    geometry: Geometry,
    body: Callable[..., Any],
    per_row: tuple[jax.Array, ...],
    block_size: int | None,
    *,
    by_class: bool = False,
) -> Any:
    """Return the pytree of [m, ...] arrays that `body` makes of the blocks.

    It is called as `body(block, *per_row)`, with a column for each [m] array. Blocks
    are rematerialised in the backward pass, so memory is O(block x n) there too.
    """
    one_block = partial(_one_block, body, (comparison.distance, comparison.precision))
    rows, shared = _split(comparison, geometry, per_row, by_class)
    n = geometry.y.shape[0]
    return _blocks.map_blocks(one_block, rows, shared, n, block_size)


def fold_rows(
    comparison: Comparison,
    geometry: Geometry,
    body: Callable[..., Any],
    per_row: tuple[jax.Array, ...],
    state: Any,
    block_size: int | None,
    *,
    by_class: bool = False,
) -> Any:
    """Return the state after `state = body(state, block, *per_row)`, block by block.

    For what is not one result a row, in memory for one block; the blocks come in the
    order of their rows, `per_row` as in `map_rows`. Not to be differentiated.
    """
    named = (comparison.distance, comparison.precision)

    def one_block(rows: Any, shared: Any, state: Any) -> Any:
        return _one_block(partial(body, state), named, rows, shared)

    rows, shared = _split(comparison, geometry, per_row, by_class)
    n = geometry.y.shape[0]
    return _blocks.fold_blocks(one_block, rows, shared, state, n, block_size)


def _split(
    comparison: Comparison,
    geometry: Geometry,
    per_row: tuple[jax.Array, ...],
    by_class: bool,
) -> tuple[Any, Any]:
    """Return the pytrees of what each anchor has, [m, ...], and of what all share."""
    order, places = None, None
    if by_class and comparison.anchors.relation is None:
        segments = pairs.class_segments(comparison.anchors, comparison.references)
        # The order is shared by all rows; the rest is theirs.
        order, places = segments.order, segments._replace(order=None)
    columns = tuple(a if a.ndim else None for a in per_row)
    scalars = tuple(None if a.ndim else a for a in per_row)
    mine = geometry._replace(y=None, y_centred=None, y_exists=None, scale=None)
    others = geometry._replace(x=None, x_centred=None, x_exists=None)
    x_norms, y_norms = None, None
    if comparison.distance in ("euclidean", "sqeuclidean"):
        # Taken here once, and not again with every block.
        x_norms, y_norms = _geometry.squared_norms(geometry)
    others = others._replace(y_columns=_geometry.columns(geometry))
    rows = (mine, x_norms, comparison.anchors, columns, places)
    return rows, (others, y_norms, comparison.references, scalars, order)


def _one_block(
    body: Callable[..., Any], named: tuple[Distance, Precision], rows: Any, shared: Any
) -> Any:
    """Return what `body` makes of one block of anchors."""
    distance, precision = named
    mine, x_norms, anchors, columns, places = rows
    others, y_norms, references, scalars, order = shared
    geometry = others._replace(
        x=mine.x, x_centred=mine.x_centred, x_exists=mine.x_exists
    )
    positive, negative = pairs.pair_masks(anchors, references)
    segments = None if places is None else places._replace(order=order)
    if anchors.relation is not None:
        # Made of the masks of the block; where no formula asks, XLA drops it.
        segments = pairs.row_segments(positive)
    block = Block(
        distances=_geometry.block_distances(
            geometry, distance, precision, (x_norms, y_norms)
        ),
        positive=positive,
        negative=negative,
        where=anchors.where,
        labels=anchors.labels,
        geometry=geometry._replace(y_columns=None),
        distance=distance,
        segments=segments,
        relation=anchors.relation,
    )
    both = zip(columns, scalars, strict=True)
    return body(block, *(a if c is None else c[:, None] for c, a in both))


def to_search(
    comparison: Comparison, geometry: Geometry
) -> tuple[Comparison, Geometry]:
    """Return both for a search under stop-gradient, where only the order matters."""
    geometry = lax.stop_gradient(geometry)
    if comparison.distance == "euclidean":
        # Squares have the same order and cost no root. Without the scale, they stay
        # in the range of the format.
        comparison = dataclasses.replace(comparison, distance="sqeuclidean")
        geometry = geometry._replace(scale=jnp.ones_like(geometry.scale))
    return comparison, geometry


def finish(
    comparison: Comparison, stats: LossStats, reduction: Reduction
) -> jax.Array | LossStats:
    """Reduce the statistics of all anchors; NaN if an existing row is not finite."""
    loss = reductions.reduce(
        stats,
        reduction,
        weights=comparison.weights,
        axis_name=comparison.axis_name,
    )
    return poisoned(loss, is_finite(comparison))


def poisoned(loss: jax.Array | LossStats, is_good: jax.Array) -> jax.Array | LossStats:
    """Return the loss, or NaN in its place unless all existing rows are good."""
    if isinstance(loss, LossStats):
        return loss._replace(total=jnp.where(is_good, loss.total, jnp.nan))
    return jnp.where(is_good, loss, jnp.nan)


def is_finite(comparison: Comparison) -> jax.Array:
    """Return whether every existing row, on every device, is finite and has its proxy.

    Comparisons drop NaN and the hinge swallows it, so non-finite rows are put back
    into the loss by this flag.
    """
    is_good = comparison.is_valid
    is_good &= _numerics.is_finite(comparison.x, comparison.anchors.where)
    if comparison.y is not None:
        is_good &= _numerics.is_finite(comparison.y, comparison.references.where)
    is_good &= pairs.has_finite_weights(comparison.anchors, comparison.references)
    if comparison.axis_name is not None:
        axis_name = comparison.axis_name
        is_good = _numerics.varying_like(is_good, lax.axis_index(axis_name))
        is_good = lax.pmin(is_good.astype(jnp.int32), axis_name) > 0
    return is_good
