"""Softmax over references: a positive is to win against the other rows."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows, _strips
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric._strips import Terms
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["nt_xent_loss", "supervised_contrastive_loss"]


def nt_xent_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    temperature: ArrayLike = 0.07,
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
    """Let each positive win a softmax against the anchor's negatives.

    L = mean over positive pairs of -log(exp(z_p) / (exp(z_p) + sum_n exp(z_n)))
    z = s / temperature

    Other positives are not in the denominator (`supervised_contrastive_loss` has
    them). A pair counts if its anchor has a negative; without any such pair the loss
    is 0. Computed as softplus(logsumexp_n z - z_p), which is exact at any temperature:
    a gap g ranked wrongly costs g / temperature, where PML 2.9 stops at 87. Soft
    weights of a `jaxmetric.Relation`: those of positives multiply the terms, not their
    count, and a negative of weight w is w times in the sum.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      temperature: > 0; a number or a scalar array.
      distance: similarities are s = 1 - d for "cosine", -d for any other.
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
      >>> print(f"{nt_xent_loss(x, jnp.array([0, 0, 1, 1]), temperature=1.0):.4f}")
      0.5514

    Source: Chen, Kornblith, Norouzi, Hinton. A Simple Framework for Contrastive
    Learning of Visual Representations (SimCLR). ICML 2020. arXiv:2002.05709,
    equation 1; Sohn. Improved Deep Metric Learning with Multi-class N-pair Loss
    Objective. NIPS 2016; van den Oord, Li, Vinyals. Representation Learning with
    Contrastive Predictive Coding. 2018. arXiv:1807.03748.
    """
    function = "nt_xent_loss"
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
        _nt_xent_rows,
        (_temperature(function, temperature, comparison.dtype),),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def supervised_contrastive_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    temperature: ArrayLike = 0.1,
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
    """Let each positive win a softmax against all other rows.

    L = mean over anchors of logsumexp_{j != a} z_j - mean_p z_p,   z = s / temperature

    The "out" form of the paper, positives in the denominator. An anchor counts if it
    has a positive and a negative (the formula exists without a negative, but a batch
    of one class teaches nothing and gives 0). With one positive an anchor it equals
    `nt_xent_loss`. Soft weights of a `jaxmetric.Relation`: the mean over p is weighted,
    and a negative of weight w is w times in the logsumexp.

    A large batch against itself under the cosine is fastest at a temperature that is a
    number, not traced, and at least 0.05: each pair of rows is then met once.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      temperature: > 0; a number or a scalar array.
      distance: similarities are s = 1 - d for "cosine", -d for any other.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]] * 2), jnp.array([0, 1, 0, 1])
      >>> print(f"{supervised_contrastive_loss(x, y, temperature=1.0):.4f}")
      0.5514

    Source: Khosla et al. Supervised Contrastive Learning. NeurIPS 2020.
    arXiv:2004.11362, equation 2.
    """
    function = "supervised_contrastive_loss"
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
    hyper = (_temperature(function, temperature, comparison.dtype),)
    has_mild_logits = distance == "cosine" and _is_at_least(temperature, 0.05)
    if has_mild_logits and _strips.are_fewer(comparison, hyper, reduction, block_size):
        formula = (_supervised_contrastive_pairs, _supervised_contrastive_sums)
        return _strips.pair_sum_loss(comparison, *formula, hyper, reduction=reduction)
    return _rows.row_loss(
        comparison,
        _supervised_contrastive_rows,
        hyper,
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _temperature(function: str, temperature: ArrayLike, dtype: jnp.dtype) -> jax.Array:
    """Return a temperature in the dtype of the distances."""
    remedy = "Typical values are 0.05 to 0.5."
    return _checks.number(
        function, "temperature", temperature, dtype, above=0, remedy=remedy
    )


def _nt_xent_rows(block: Block, temperature: jax.Array) -> LossStats:
    """Sum over p of softplus(logsumexp_n z - z_p), for [b, n] similarities."""
    z = block.similarities / temperature
    opposed, has_negative = _numerics.masked_logsumexp(
        _repeated(block, z), block.negative
    )
    is_term = block.positive & has_negative[:, None]
    terms = jax.nn.softplus(jnp.where(is_term, opposed[:, None] - z, 0))
    soft = block.pair_weights
    terms = terms if soft is None else soft * terms
    return _rows.pair_terms(terms, is_term)


def _supervised_contrastive_rows(block: Block, temperature: jax.Array) -> LossStats:
    """Logsumexp over all others of z, minus the mean of z over p."""
    z = block.similarities / temperature
    is_counted = block.has_both
    total, _ = _numerics.masked_logsumexp(
        _repeated(block, z), block.positive | block.negative
    )
    soft = block.pair_weights
    soft = block.positive.astype(z.dtype) if soft is None else soft
    positives = jnp.sum(jnp.where(block.positive, soft * z, 0), -1)
    count = jnp.sum(jnp.where(block.positive, soft, 0), -1)
    return _rows.anchor_terms(total - _numerics.quotient(positives, count), is_counted)


def _supervised_contrastive_pairs(block: Block, temperature: jax.Array) -> Terms:
    """The terms of the sums below, where exp(z) is neither too large nor too small.

    From -20 to 20, as the cosine at temperatures of at least 0.05, all digits of the
    sum are right without a shift by the largest z, which would differ between the rows.
    """
    z = block.similarities / temperature
    others = block.positive | block.negative
    exponentials = jnp.where(others, jnp.exp(jnp.where(others, z, 0)), 0)
    positives = jnp.where(block.positive, z, 0)
    return exponentials, positives, block.positive, block.negative


def _supervised_contrastive_sums(sums: Terms, temperature: jax.Array) -> LossStats:
    """Logarithm of the sum of exp(z) over all others, minus the mean of z over p."""
    exponentials, positives, num_positives, num_negatives = sums
    is_counted = (num_positives > 0) & (num_negatives > 0)
    total = jnp.log(jnp.where(is_counted, exponentials, 1))
    mean = _numerics.quotient(positives, num_positives)
    return _rows.anchor_terms(total - mean, is_counted)


def _is_at_least(temperature: ArrayLike, smallest: float) -> bool:
    """Return whether a temperature is known now, and not less."""
    is_known = not isinstance(temperature, Tracer)
    return is_known and bool(np.all(np.asarray(temperature) >= smallest))


def _repeated(block: Block, z: jax.Array) -> jax.Array:
    """Return [b, n] logits in which a negative of soft weight w is there w times."""
    soft = block.pair_weights
    if soft is None:
        return z
    # w exp(z) = exp(z + log w)
    return z + jnp.log(jnp.where(block.negative, soft, 1))
