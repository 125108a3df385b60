"""Triplets around the mean of a class, in place of an anchor."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _geometry, _numerics, _rows, reductions
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction

__all__ = ["coupled_clusters_loss"]


def coupled_clusters_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    stop_centers: bool = False,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Gather each class at its mean, nearer than the negative nearest to that mean.

    L = mean over i of 1/2 max(0, (|x_i - m|^2 + margin) - min_n |x_n - m|^2)
    with m the mean of all existing rows of the class of x_i, and n of other classes

    The squared Euclidean distance is part of the formula. A row counts if its class has
    another row and there is a negative; without any such row the loss is 0. With
    references, mean and negatives are theirs. Rows of equal `ids` are in the mean like
    any other. The paper sums over one class; here all classes share one mean over rows.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer. Only equality is used.
      margin: in units of the squared distance; a number, a scalar array or one a row
        [batch].
      stop_centers: treat the means as constants of the gradient, as published code
        does; the value is the same.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch (block + dim)), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> print(f"{coupled_clusters_loss(x, y, margin=14.0):.2f}")
      2.50

    Source: Liu, Tian, Wang, Pang, Huang. Deep Relative Distance Learning: Tell the
    Difference Between Similar Vehicles. CVPR 2016, equation 5.
    """
    function = "coupled_clusters_loss"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance="sqeuclidean",
        precision=precision,
        where=where,
        weights=weights,
        ids=ids,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        ref_ids=ref_ids,
        axis_name=axis_name,
        needs_classes=True,
    )
    rows, dtype = comparison.num_rows, comparison.dtype
    margin = _checks.number(function, "margin", margin, dtype, rows=rows)
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    options = (stop_centers, reduction, block_size)
    return _coupled_clusters(comparison, margin, options)


@partial(jax.jit, static_argnames="options")
def _coupled_clusters(
    comparison: Comparison, margin: jax.Array, options: tuple
) -> jax.Array | LossStats:
    """Find the means, select their nearest negatives, and measure what was selected."""
    stop_centers, reduction, block_size = options
    comparison = _rows.gather(comparison)
    geometry = _rows.prepare(comparison)
    # Without index and ids, the positives of a row are all rows of its class.
    everybody = comparison.anchors._replace(index=None, ids=None)
    means = _rows.map_rows(
        dataclasses.replace(comparison, anchors=everybody),
        geometry,
        partial(_class_means, precision=comparison.precision),
        (),
        block_size,
    )
    if stop_centers:
        means = lax.stop_gradient(means)
    # The means have digits where the common offset is taken out.
    around = geometry._replace(x=means, x_centred=means, y=geometry.y_centred)
    search = _rows.to_search(comparison, around)
    n, has_both = _rows.map_rows(*search, _nearest_negatives, (), block_size)
    exists = (geometry.x_exists, geometry.x_exists)
    measure = partial(
        _geometry.row_distances,
        y=means,
        scale=geometry.scale,
        exists=exists,
        distance="sqeuclidean",
    )
    pull, push = measure(geometry.x_centred), measure(geometry.y_centred[n])
    terms = _numerics.relu((pull + margin) - push) / 2
    return _rows.finish(comparison, _rows.anchor_terms(terms, has_both), reduction)


def _class_means(block: Block, precision: Precision) -> jax.Array:
    """Return the [b, dim] means of the rows that a block calls positive."""
    rows = block.geometry.y_centred
    members = block.positive.astype(rows.dtype)
    total = jnp.matmul(members, rows, precision=precision)  # pyright: ignore (presets)
    return _numerics.quotient(total, jnp.sum(members, -1, keepdims=True))


def _nearest_negatives(block: Block) -> tuple[jax.Array, jax.Array]:
    """Return [b] nearest negatives, and whether a row has partners of both kinds."""
    return _numerics.masked_argmin(block.distances, block.negative), block.has_both
