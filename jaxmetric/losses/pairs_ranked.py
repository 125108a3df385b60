"""Ranked lists: positives inside a ball, negatives outside a larger one."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["ranked_list_loss"]


def ranked_list_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 0.4,
    alpha: ArrayLike | None = None,
    imbalance: ArrayLike = 0.5,
    positive_temperature: ArrayLike = 0.0,
    negative_temperature: ArrayLike = 10.0,
    distance: Distance = "euclidean",
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
    """Pull positives within alpha - margin, push negatives beyond alpha.

    L = mean over anchors of (1 - imbalance) L_p + imbalance L_n
    L_p = sum_p w_p (d_p - (alpha - margin)) / sum_p w_p   over d_p > alpha - margin
    L_n = sum_n w_n (alpha - d_n) / sum_n w_n              over d_n < alpha
    w = exp(temperature * violation), each side with its own temperature

    The worse a violation, the more it weighs (all alike at temperature 0, the default
    of the positives); gradients flow through the weights. A side without a violation
    is 0. An anchor counts if it has a positive or a negative; no pair at all: 0. Meant
    for rows of unit norm. A pair that crosses its boundary enters its side's mean with
    the weight of its class, so that the loss jumps there. Unlike PML 2.9, nothing is
    added to the denominators, and a negative at distance 0, the worst of all, counts.

    Args:
      embeddings: [batch, dim] floating. Normalise them first.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      margin: between the two boundaries, in units of `distance`; a number, a scalar
        array or one an anchor [batch].
      alpha: boundary of the negatives, likewise; None for 1 + margin / 2.
      imbalance: share of the negative side, 0 to 1; a number or a scalar array.
      positive_temperature: >= 0; a number or a scalar array.
      negative_temperature: likewise.
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
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
      >>> print(f"{ranked_list_loss(x, jnp.array([0, 0, 1])):.4f}")
      0.4419

    Source: Wang, Hua, Kodirov, Hu, Garnier, Robertson. Ranked List Loss for Deep Metric
    Learning. CVPR 2019. arXiv:1903.03238.
    """
    function = "ranked_list_loss"
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
    number = partial(_checks.number, function, dtype=comparison.dtype)
    rows = comparison.num_rows
    margin = number("margin", margin, rows=rows)
    if alpha is None:
        alpha = 1 + margin / 2
    hyper = (
        margin,
        number("alpha", alpha, rows=rows),
        number("imbalance", imbalance, at_least=0, remedy="Use a share, 0 to 1."),
        number("positive_temperature", positive_temperature, at_least=0),
        number("negative_temperature", negative_temperature, at_least=0),
    )
    return _rows.row_loss(
        comparison,
        _ranked_list_rows,
        hyper,
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _ranked_list_rows(
    block: Block,
    margin: jax.Array,
    alpha: jax.Array,
    imbalance: jax.Array,
    positive_temperature: jax.Array,
    negative_temperature: jax.Array,
) -> LossStats:
    """Weighted means of the violations of both sides, for [b, n] distances."""
    d = block.distances
    pull = _violation(d - (alpha - margin), block.positive, positive_temperature)
    push = _violation(alpha - d, block.negative, negative_temperature)
    return _rows.anchor_terms(
        (1 - imbalance) * pull + imbalance * push,
        jnp.any(block.positive | block.negative, -1),
    )


def _violation(v: jax.Array, mask: jax.Array, temperature: jax.Array) -> jax.Array:
    """Return sum(e^(t v) v) / sum(e^(t v)) of each row over v > 0 in the mask, or 0."""
    mask &= v > 0
    v = jnp.where(mask, v, 0)
    logits = temperature * v
    # A softmax: its largest weight is 1 at any temperature.
    largest = lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
    weights = jnp.where(mask, jnp.exp(logits - largest), 0)
    return _numerics.quotient(jnp.sum(weights * v, -1), jnp.sum(weights, -1))
