"""Proxies and classes: a row of learned numbers stands for each class.

Embeddings are compared with the proxies instead of with each other. Labels name rows
of `proxies`: a label outside 0..C-1 is an error when it is on the host, and makes the
loss NaN when it is a JAX array.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction

__all__ = ["normalized_softmax_loss", "weighted_softmax_loss"]


def normalized_softmax_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    temperature: ArrayLike = 0.05,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Classify embeddings by their cosine to one proxy a class.

    L = mean over rows of logsumexp_c z_c - z_y,   z_c = cos(x, w_c) / temperature

    Both sides are normalised, there is no bias. Every existing row is a term; no
    existing row, or a single class, gives 0.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, one a class; learned with the encoder.
      temperature: > 0; a number or a scalar array.
      precision, where, weights, reduction, block_size, axis_name: as in
        `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x C), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, proxies = jnp.array([[1.0, 0.0]]), jnp.eye(2)
      >>> loss = normalized_softmax_loss(x, jnp.array([0]), proxies, temperature=1.0)
      >>> print(f"{loss:.4f}")
      0.3133

    Source: Zhai, Wu. Classification is a Strong Baseline for Deep Metric Learning.
    BMVC 2019. arXiv:1811.12649, equation 2.
    """
    function = "normalized_softmax_loss"
    comparison = _comparison.compare_proxies(
        function,
        embeddings,
        labels,
        proxies,
        distance="cosine",
        precision=precision,
        where=where,
        weights=weights,
        axis_name=axis_name,
    )
    remedy = "Typical values are 0.05 to 0.5."
    temperature = _checks.number(
        function, "temperature", temperature, comparison.dtype, above=0, remedy=remedy
    )
    return _rows.row_loss(
        comparison,
        _cross_entropy_rows,
        (1 / temperature,),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def weighted_softmax_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    scale: ArrayLike = 1.0,
    class_weights: jax.Array | None = None,
    distance: Distance = "dot",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Classify embeddings by a softmax over proxies, classes weighted.

    L = sum over rows of v_y (logsumexp_c z_c - z_y) / sum over rows of v_y,
    z_c = scale * s(x, w_c)

    The weighted mean of `torch.nn.CrossEntropyLoss(weight=v)`. No existing row, only
    rows of weight 0, or a single class: 0.

    Args:
      embeddings: [batch, dim] floating. Rows are taken as they are.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, one a class; learned with the encoder.
      scale: factor of the similarities; a number or a scalar array.
      class_weights: [C] non-negative v; None weighs all classes alike.
      distance: similarities are s = 1 - d for "cosine", -d for any other ("dot": the
        inner product).
      precision, where, weights, reduction, block_size, axis_name: as in
        `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays,
      counts floating if `class_weights` are given.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x C), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, proxies = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.eye(2)
      >>> loss = weighted_softmax_loss(
      ...     x, jnp.array([0, 1]), proxies, class_weights=jnp.array([1.0, 0.0])
      ... )
      >>> print(f"{loss:.4f}")
      0.3133

    Source: King, Zeng. Logistic Regression in Rare Events Data. Political Analysis
    2001, equation 13, for class weights; no single paper for the metric loss.
    """
    function = "weighted_softmax_loss"
    comparison = _comparison.compare_proxies(
        function,
        embeddings,
        labels,
        proxies,
        distance=distance,
        precision=precision,
        where=where,
        weights=weights,
        axis_name=axis_name,
    )
    dtype = comparison.dtype
    hyper = (_checks.number(function, "scale", scale, dtype),)
    if class_weights is not None:
        num_classes = comparison.references.labels.shape[0]
        v = _checks.weights(
            function, class_weights, num_classes, dtype, argument="class_weights"
        )
        hyper += (v[comparison.anchors.labels],)
    return _rows.row_loss(
        comparison,
        _cross_entropy_rows,
        hyper,
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _cross_entropy_rows(
    block: Block, scale: jax.Array, weight: jax.Array | None = None
) -> LossStats:
    """logsumexp_c z_c - z_y, for [b, C] similarities; the positive is column y."""
    z = scale * block.similarities
    total, exists = _numerics.masked_logsumexp(z, block.positive | block.negative)
    own = jnp.sum(jnp.where(block.positive, z, 0), -1)
    stats = _rows.anchor_terms(total - own, exists)
    if weight is None:
        return stats
    return LossStats(*(weight[:, 0] * a.astype(z.dtype) for a in stats))
