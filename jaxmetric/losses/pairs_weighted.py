"""Pairs weighted softly by how far their similarity is from where it should be."""

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

__all__ = ["circle_loss", "multi_similarity_loss"]


def multi_similarity_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    alpha: ArrayLike = 2.0,
    beta: ArrayLike = 50.0,
    base: ArrayLike = 0.5,
    distance: Distance = "cosine",
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
    """Pull positives above a base similarity, push negatives below it, softly.

    L = mean over anchors of  1/alpha log(1 + sum_p exp(alpha (base - s_p)))
                            + 1/beta  log(1 + sum_n exp(beta (s_n - base)))

    An anchor counts if it has a positive or a negative, and keeps the side that it
    has; no pair at all: 0. The default base is that of the authors' code and of PML
    (the paper prints 1). The paper's selection of pairs is a miner,
    `jaxmetric.miners.multi_similarity`.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      alpha: > 0, sharpness of the positive side; a number or a scalar array.
      beta: > 0, sharpness of the negative side; a number or a scalar array.
      base: a similarity; a number, a scalar array or one an anchor [batch].
      distance: similarities are s = 1 - d for "cosine", -d for any other (a base of
        -0.8 then stands for a distance of 0.8).
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
      >>> print(f"{multi_similarity_loss(x, jnp.array([0, 0, 1, 1])):.4f}")
      0.1566

    Source: Wang, Han, Huang, Dong, Scott. Multi-Similarity Loss with General Pair
    Weighting for Deep Metric Learning. CVPR 2019. arXiv:1904.06627, equation 15.
    """
    function = "multi_similarity_loss"
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
    hyper = (
        number("alpha", alpha, above=0, remedy="Typical is 2."),
        number("beta", beta, above=0, remedy="Typical is 40 to 50."),
        number("base", base, rows=comparison.num_rows),
    )
    return _rows.row_loss(
        comparison,
        _multi_similarity_rows,
        hyper,
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def circle_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    m: ArrayLike = 0.4,
    gamma: ArrayLike = 80.0,
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
    """Pull positives to 1 and push negatives to 0, the farther off the harder.

    L = mean over anchors of softplus( logsumexp_p -gamma w_p (s_p - (1 - m))
                                     + logsumexp_n  gamma w_n (s_n - m) )
    w_p = max(0, 1 + m - s_p),   w_n = max(0, s_n + m),   s the cosine

    The weights w are constants to the gradient, as in the paper. An anchor counts if
    it has a positive and a negative; without any such anchor the loss is 0. PML leaves
    out rows whose loss underflows to 0: that is reduction="mean_active".

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      m: relaxation: positives are asked for a cosine of 1 - m, negatives for one of m,
        so a smaller m asks for more; a number, a scalar array or one an anchor [batch].
        The paper has 0.4 (retrieval) and 0.25.
      gamma: > 0, scale of the similarities; a number or a scalar array. The paper has
        80 (retrieval), 128 (re-identification) and 256 (faces).
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
      >>> print(f"{circle_loss(x, jnp.array([0, 0, 1, 1]), m=0.25, gamma=1.0):.4f}")
      1.0170

    Source: Sun et al. Circle Loss: A Unified Perspective of Pair Similarity
    Optimization. CVPR 2020. arXiv:2002.10857, equation 6.
    """
    function = "circle_loss"
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
    number = partial(_checks.number, function, dtype=comparison.dtype)
    hyper = (
        number("m", m, rows=comparison.num_rows),
        number("gamma", gamma, above=0, remedy="Typical is 80 to 256."),
    )
    return _rows.row_loss(
        comparison,
        _circle_rows,
        hyper,
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _multi_similarity_rows(
    block: Block, alpha: jax.Array, beta: jax.Array, base: jax.Array
) -> LossStats:
    """Both soft hinges of [b, n] similarities around the base."""
    s = block.similarities
    pull = _log_one_plus_sum(alpha * (base - s), block.positive) / alpha
    push = _log_one_plus_sum(beta * (s - base), block.negative) / beta
    return _rows.anchor_terms(pull + push, jnp.any(block.positive | block.negative, -1))


def _log_one_plus_sum(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Return log(1 + sum(exp(x))) of the last axis over the mask; 0 where it is empty.

    Unlike a logsumexp it exists without any term, so a masked one may be exp(-inf): one
    selection and two passes over x.
    """
    x = jnp.where(mask, x, -jnp.inf)
    shift = jnp.max(lax.stop_gradient(x), -1)
    shift = jnp.where(shift > 0, shift, 0)
    total = jnp.sum(jnp.exp(x - shift[..., None]), -1)
    # exp(-shift) + total, less 1: exact where both are tiny (the shift is 0 then).
    return shift + jnp.log1p(jnp.expm1(-shift) + total)


def _circle_rows(block: Block, m: jax.Array, gamma: jax.Array) -> LossStats:
    """Softplus of both logsumexps of [b, n] cosines, weighted by their own distance."""
    s = block.similarities
    # The weights are constants to every derivative: each pair moves as in a softmax
    # loss of its own scale gamma w, and no term in dw/ds bends it.
    weight_p, weight_n = lax.stop_gradient(
        (_numerics.relu(1 + m - s), _numerics.relu(s + m))
    )
    pull, _ = _numerics.masked_logsumexp(
        -gamma * weight_p * (s - (1 - m)), block.positive
    )
    push, _ = _numerics.masked_logsumexp(gamma * weight_n * (s - m), block.negative)
    is_counted = block.has_both
    terms = jax.nn.softplus(jnp.where(is_counted, pull + push, 0))
    return _rows.anchor_terms(terms, is_counted)
