"""Proxies with a margin: the own class must win by an angle, or by a cosine.

The margin acts on the logit of the own class alone, so that one is computed from the
own proxy in difference form, which keeps its digits where the angle is small. The
other classes are a plain softmax.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _geometry, _numerics, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction

__all__ = ["arcface_loss", "cosface_loss"]


def arcface_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    margin: ArrayLike = 0.5,
    scale: ArrayLike = 64.0,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Classify embeddings by their angle to one proxy a class, with an angular margin.

    L = mean over rows of logsumexp_c z_c - z_y,   z_c = scale * cos(x, w_c), but
    z_y = scale * cos(angle(x, w_y) + margin)            up to angle = pi - margin
    z_y = scale * (cos(x, w_y) - margin * sin(margin))   beyond

    Both sides are normalised, there is no bias. Every existing row is a term; no
    existing row, or a single class, gives 0. cos(angle + margin) is computed without
    arccos, whose derivative is infinite at an angle of 0 (there PML 2.9 gives NaN in
    half precision); the gradient of the sine is 0 there.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, one a class; learned with the encoder.
      margin: in radians; a number, a scalar array or one an anchor [batch].
      scale: > 0, factor of the cosines; a number or a scalar array.
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
      >>> loss = arcface_loss(x, jnp.array([0]), proxies, margin=0.5, scale=1.0)
      >>> print(f"{loss:.4f}")
      0.3477

    Source: Deng, Guo, Xue, Zafeiriou. ArcFace: Additive Angular Margin Loss for Deep
    Face Recognition. CVPR 2019. arXiv:1801.07698, equation 3.
    """
    function = "arcface_loss"
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
    return _rows.row_loss(
        comparison,
        _arcface_rows,
        margin_and_scale(function, comparison, margin, scale),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def cosface_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    margin: ArrayLike = 0.35,
    scale: ArrayLike = 64.0,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Classify embeddings by their cosine to one proxy a class, less a margin.

    L = mean over rows of logsumexp_c z_c - z_y,   z_c = scale * cos(x, w_c), but
    z_y = scale * (cos(x, w_y) - margin)

    Both sides are normalised, there is no bias. Every existing row is a term; no
    existing row, or a single class, gives 0.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, one a class; learned with the encoder.
      margin: in units of the cosine; a number, a scalar array or one an anchor
        [batch].
      scale: > 0, factor of the cosines; a number or a scalar array.
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
      >>> loss = cosface_loss(x, jnp.array([0]), proxies, margin=0.5, scale=1.0)
      >>> print(f"{loss:.4f}")
      0.4741

    Source: Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu. CosFace: Large Margin Cosine
    Loss for Deep Face Recognition. CVPR 2018. arXiv:1801.09414, equation 4.
    """
    function = "cosface_loss"
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
    return _rows.row_loss(
        comparison,
        _cosface_rows,
        margin_and_scale(function, comparison, margin, scale),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def margin_and_scale(
    function: str, comparison: Comparison, margin: ArrayLike, scale: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Return the margins [m], one an anchor, and the scale, of a softmax of cosines."""
    rows, dtype = comparison.num_rows, comparison.dtype
    margin = _checks.number(function, "margin", margin, dtype, rows=rows)
    remedy = "Typical values are 16 to 64."
    scale = _checks.number(function, "scale", scale, dtype, above=0, remedy=remedy)
    return jnp.broadcast_to(margin, (rows,)), scale


def softmax_terms(
    own: jax.Array, logits: jax.Array, is_other: jax.Array, where: jax.Array
) -> LossStats:
    """Return the cross-entropies of own logits [b] against other classes' [b, C]."""
    others, exists = _numerics.masked_logsumexp(logits, is_other)
    # logsumexp_c z_c - z_y = softplus(logsumexp_{c != y} z_c - z_y), which loses no
    # digits where the own class wins clearly.
    gap = jnp.where(exists, others - own, 0)
    terms = jnp.where(exists, jax.nn.softplus(gap), 0)
    return _rows.anchor_terms(terms, where)


def arcface_similarities(d: jax.Array, margin: jax.Array) -> jax.Array:
    """Return cos(angle + margin) of cosine distances [b], and its continuation."""
    # 1 - s^2 = d (2 - d), where d has the digits that 1 - s^2 would lose near s = 1.
    s, sine = 1 - d, _numerics.safe_sqrt(d * (2 - d))
    shifted = s * jnp.cos(margin) - sine * jnp.sin(margin)
    # Past pi - margin the cosine of the sum would rise again.
    return jnp.where(s >= -jnp.cos(margin), shifted, s - margin * jnp.sin(margin))


def own_distances(block: Block) -> jax.Array:
    """Return [b] distances to the proxies of the own classes, in difference form."""
    rows = jnp.arange(block.labels.shape[0])
    # Labels of rows that do not exist may be anything; indexing stays in range.
    return _geometry.pair_distances(block.geometry, block.distance, rows, block.labels)


def _arcface_rows(block: Block, margin: jax.Array, scale: jax.Array) -> LossStats:
    """logsumexp_c z_c - z_y, the margin added to the angle of the own class."""
    own = arcface_similarities(own_distances(block), margin[:, 0])
    logits = scale * block.similarities
    return softmax_terms(scale * own, logits, block.negative, block.where)


def _cosface_rows(block: Block, margin: jax.Array, scale: jax.Array) -> LossStats:
    """logsumexp_c z_c - z_y, the margin taken from the cosine of the own class."""
    own = 1 - own_distances(block) - margin[:, 0]
    logits = scale * block.similarities
    return softmax_terms(scale * own, logits, block.negative, block.where)
