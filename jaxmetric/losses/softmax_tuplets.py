"""Tuplets: one positive against the negatives of the other classes.

The positive of a pair is to win a softmax in which every other class has a place: one
row a class (N-pairs), or all rows, with a positive that is held back by an angle.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import (
    _checks,
    _comparison,
    _geometry,
    _numerics,
    _rows,
    pairs,
    reductions,
)
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["n_pairs_loss", "tuplet_margin_loss"]


def n_pairs_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    l2_weight: ArrayLike = 0.0,
    distance: Distance = "dot",
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
    """Let the pair of each class win against the positives of all other classes.

    L = mean over classes c of log(sum_k exp(s(a_c, p_k))) - s(a_c, p_c)
        + l2_weight / 4 * mean over classes of |a_c|^2 + |p_c|^2

    One pair a class, and which rows come first decides: the anchor a_c is the first
    row of its class, the positive p_c the second (the next of another sample, under
    `ids`). With references, p_c is the first reference of the class, and the first
    ones of classes that the batch does not have are negatives too (a `Relation` does
    not tell them). Of a `Relation` within the batch, rows that are each other's first
    positive are a pair. Classes of one row are left out; with fewer than two classes
    left the loss is 0. TF-Addons' `npairs_loss` is another loss: a cross-entropy over
    all rows, their own included.

    Args:
      embeddings: [batch, dim] floating. Taken as they are.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      l2_weight: weight of the squared norms; a number or a scalar array.
      distance: similarities are s = 1 - d for "cosine", -d for any other ("dot": the
        inner product).
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
      >>> print(f"{n_pairs_loss(x, jnp.array([0, 0, 1, 1])):.4f}")
      0.3133

    Source: Sohn. Improved Deep Metric Learning with Multi-class N-pair Loss Objective.
    NIPS 2016, equation 6.
    """
    function = "n_pairs_loss"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance=distance,
        precision=precision,
        where=where,
        weights=weights,
        ids=ids,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        ref_ids=ref_ids,
        axis_name=axis_name,
    )
    dtype = comparison.dtype
    l2_weight = _checks.number(function, "l2_weight", l2_weight, dtype, at_least=0)
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    return _n_pairs(comparison, l2_weight, (reduction, block_size))


def tuplet_margin_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 0.1,
    scale: ArrayLike = 64.0,
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
    """Let each positive win a softmax against the negatives, eased by an angle.

    L = mean over positive pairs of
        log(1 + sum_n exp(scale * (cos t_n - cos(t_p - margin))))

    t are angles to the anchor: a positive that is within the margin is let go, so that
    the variance inside a class is kept. A pair counts if its anchor has a negative;
    without any such pair the loss is 0. The cosine of the difference is expanded, so
    that no arc cosine spoils the gradient of duplicates (NaN in PML 2.9).

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      margin: in radians; a number, a scalar array or one an anchor [batch].
      scale: > 0, factor of the cosines; a number or a scalar array.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
      >>> labels = jnp.array([0, 0, 1, 1])
      >>> print(f"{tuplet_margin_loss(x, labels, margin=0.0, scale=1.0):.4f}")
      0.5514

    Source: Yu, Tao. Deep Metric Learning with Tuplet Margin Loss. ICCV 2019,
    equation 6.
    """
    function = "tuplet_margin_loss"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance="cosine",
        precision=precision,
        where=where,
        weights=weights,
        ids=ids,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        ref_ids=ref_ids,
        axis_name=axis_name,
    )
    rows, dtype = comparison.num_rows, comparison.dtype
    remedy = "Give radians, such as math.radians(5.73)."
    margin = _checks.number(function, "margin", margin, dtype, rows=rows, remedy=remedy)
    scale = _checks.number(function, "scale", scale, dtype, above=0)
    return _rows.row_loss(
        comparison,
        _tuplet_margin_rows,
        (margin, scale),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


@partial(jax.jit, static_argnames="options")
def _n_pairs(
    comparison: Comparison, l2_weight: jax.Array, options: tuple
) -> jax.Array | LossStats:
    """Find the pair of each class, then let it win against the pairs of the others."""
    reduction, block_size = options
    is_self = comparison.y is None
    comparison = _rows.gather(comparison)
    # Widened here: gradients of distances and norms are not added in half precision.
    x, y, dtype = comparison.x, comparison.y, comparison.dtype
    x, y = x.astype(dtype), None if y is None else y.astype(dtype)
    comparison = dataclasses.replace(comparison, x=x, y=y)
    geometry = _rows.prepare(comparison)
    search = _rows.to_search(comparison, geometry)
    positive, has_positive = _rows.map_rows(*search, _first_positive, (), block_size)
    choose = _pairs_of_the_batch if is_self else _pairs_with_references
    is_anchor, is_column = choose(comparison, positive, has_positive)
    references = comparison.references._replace(where=is_column)
    opposed, has_negative = _rows.map_rows(
        dataclasses.replace(comparison, references=references),
        geometry,
        _logsumexp_of_negatives,
        (),
        block_size,
    )
    rows = jnp.arange(comparison.num_rows)
    d = _geometry.pair_distances(geometry, comparison.distance, rows, positive)
    is_counted = is_anchor & has_negative
    # logsumexp(z_p, z_n) - z_p = softplus(logsumexp_n z - z_p), with z = -d.
    terms = jax.nn.softplus(jnp.where(is_counted, opposed + d, 0))
    norms = others = _squared_norms(x, comparison.anchors.where)
    if y is not None:
        others = _squared_norms(y, comparison.references.where)
    terms += l2_weight / 4 * (norms + others[positive])
    return _rows.finish(comparison, _rows.anchor_terms(terms, is_counted), reduction)


def _first_positive(block: Block) -> tuple[jax.Array, jax.Array]:
    """Return [b] the first positive of each row, and who has one."""
    columns = lax.broadcasted_iota(jnp.int32, block.positive.shape, 1)
    exists = jnp.any(block.positive, -1)
    first = jnp.min(jnp.where(block.positive, columns, columns.shape[1]), -1)
    return jnp.where(exists, first, 0), exists


def _logsumexp_of_negatives(block: Block) -> tuple[jax.Array, jax.Array]:
    """Return [b] log(sum_n exp(-d_n)), and where it exists."""
    return _numerics.masked_logsumexp(-block.distances, block.negative)


def _pairs_of_the_batch(
    comparison: Comparison, positive: jax.Array, has_positive: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return [m] which rows are the anchors of a class, [n] which are its positives.

    They are each other's first positive, and the anchor comes first: among the rows of
    one class this is true of one pair, whatever the ids.
    """
    index = comparison.anchors.index
    assert index is not None  # Without a reference set each row has its place.
    # A row without a positive is its own, and so neither before nor after it.
    first = jnp.where(has_positive, positive, index)
    first = _rows.gather_rows(first, comparison.axis_name)
    rows = jnp.arange(first.shape[0], dtype=jnp.int32)
    is_paired = first[first] == rows
    return (is_paired & (rows < first))[index], is_paired & (first < rows)


def _pairs_with_references(
    comparison: Comparison, positive: jax.Array, has_positive: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return [m] which rows are the first of a class, [n] likewise of references."""
    gather = partial(_rows.gather_rows, axis_name=comparison.axis_name)
    references = comparison.references
    n = references.where.shape[0]
    # The first of the anchors that share a positive, on any device.
    everyone, found = gather(positive), gather(has_positive)
    rows = jnp.arange(everyone.shape[0], dtype=jnp.int32)
    last = jnp.full(n, rows.shape[0], jnp.int32)
    last = _numerics.varying_like(last, everyone)
    first = last.at[everyone].min(jnp.where(found, rows, rows.shape[0]))
    place = 0
    if comparison.axis_name is not None:
        place = lax.axis_index(comparison.axis_name) * comparison.num_rows
    own = place + jnp.arange(comparison.num_rows, dtype=jnp.int32)
    is_anchor = has_positive & (first[positive] == own)
    if references.labels is None:  # a relation does not tell the classes of the rest
        return is_anchor, first < rows.shape[0]
    segments = pairs.class_segments(references._replace(index=None), references)
    is_first = segments.order[segments.start] == jnp.arange(n, dtype=jnp.int32)
    return is_anchor, is_first & references.where


def _squared_norms(x: jax.Array, where: jax.Array) -> jax.Array:
    """Return [n] squared norms of the existing rows."""
    x = jnp.where(where[:, None], x, 0)
    return jnp.sum(x * x, -1)


def _tuplet_margin_rows(block: Block, margin: jax.Array, scale: jax.Array) -> LossStats:
    """Sum over p of softplus(logsumexp_n z - scale cos(t_p - margin))."""
    d = block.distances
    # cos(t - m) = cos t cos m + sin t sin m, with sin^2 t = 1 - (1 - d)^2 = d (2 - d):
    # no digit is lost near the anchor, and the root has gradient 0 at 0.
    sine = _numerics.safe_sqrt(d * (2 - d))
    eased = scale * ((1 - d) * jnp.cos(margin) + sine * jnp.sin(margin))
    opposed, has_negative = _numerics.masked_logsumexp(
        scale * block.similarities, block.negative
    )
    is_term = block.positive & has_negative[:, None]
    terms = jax.nn.softplus(jnp.where(is_term, opposed[:, None] - eased, 0))
    return _rows.pair_terms(terms, is_term)
