"""Neighbours chosen by chance: rows of the own class are to be drawn more often.

A row draws a neighbour with a probability that falls with the distance, and the loss is
minus the log of the probability that the two are of one class.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["instance_loss", "nca_loss"]


def nca_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    scale: ArrayLike = 1.0,
    distance: Distance = "sqeuclidean",
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
    """Make it likely that a neighbour, drawn by distance, is of the own class.

    L = mean over anchors of -log(sum_p exp(-scale d_p) / sum_j exp(-scale d_j))

    The sum over j is over all other rows. An anchor counts if it has a positive and a
    negative; without any such anchor the loss is 0. Computed as a softplus of the
    difference of two log-sums, so that no probability underflows (PML 2.9 drops such
    rows). On unit rows it equals `distance="cosine"` with twice the scale.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      scale: > 0, factor of the distances; a number or a scalar array.
      distance: a name or a callable; see `pairwise_distance`.
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
      >>> print(f"{nca_loss(x, jnp.array([0, 0, 1, 1])):.4f}")
      0.2395

    Source: Goldberger, Roweis, Hinton, Salakhutdinov. Neighbourhood Components
    Analysis. NIPS 2004, the form that maximises the log-probability.
    """
    function = "nca_loss"
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
    return _rows.row_loss(
        comparison,
        _nca_rows,
        (_checks.number(function, "scale", scale, comparison.dtype, above=0),),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def instance_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    gamma: ArrayLike = 64.0,
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
    """Tell every row from the rows of other classes, its own being one of its kind.

    L = mean over anchors of -log(sum_{j in S} exp(gamma s_j) / sum_j exp(gamma s_j))

    S are the positives and, unless there are references, the anchor itself, whose
    similarity is exactly 1. So with all labels different it tells every row from all
    others. An anchor counts if it has a negative, and with references a positive;
    without any such anchor the loss is 0. PML 2.9 agrees for the labels 0..B-1 in
    order: otherwise it takes the rank of the label for a column of the batch.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      gamma: > 0, factor of the cosines; a number or a scalar array.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> print(f"{instance_loss(x, jnp.array([0, 1]), gamma=1.0):.4f}")
      0.3133

    Source: Zheng, Zheng, Garrett, Yang, Xu, Shen. Dual-Path Convolutional Image-Text
    Embeddings with Instance Loss. ACM TOMM 2020. arXiv:1711.05535.
    """
    function = "instance_loss"
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
    return _rows.row_loss(
        comparison,
        _instance_rows,
        (_checks.number(function, "gamma", gamma, comparison.dtype, above=0),),
        (comparison.y is None,),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _nca_rows(block: Block, scale: jax.Array) -> LossStats:
    """-log(P / (P + N)) = softplus(log N - log P), of the summed exponentials."""
    z = -scale * block.distances
    pull, _ = _numerics.masked_logsumexp(z, block.positive)
    push, _ = _numerics.masked_logsumexp(z, block.negative)
    return _rows.anchor_terms(jax.nn.softplus(push - pull), block.has_both)


def _instance_rows(block: Block, gamma: jax.Array, is_self: bool) -> LossStats:
    """Softplus(logsumexp_n z - logsumexp_S z), S with the own row in self mode."""
    z = gamma * block.similarities
    pull, has_positive = _numerics.masked_logsumexp(z, block.positive)
    push, has_negative = _numerics.masked_logsumexp(z, block.negative)
    is_counted = has_positive & has_negative
    if is_self:
        # log(exp(pull) + exp(gamma)), the similarity to itself being 1.
        pull = gamma + jnp.where(has_positive, jax.nn.softplus(pull - gamma), 0)
        is_counted = has_negative
    return _rows.anchor_terms(jax.nn.softplus(push - pull), is_counted)
