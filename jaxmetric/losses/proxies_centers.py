"""Several proxies a class: the nearest one, or a soft choice among them.

`proxies` are [C, K, dim]: a class that is several clusters, or that has noisy labels,
is not forced around one point.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _geometry, _numerics, _rows
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.losses.proxies_margins import (
    arcface_similarities,
    margin_and_scale,
    softmax_terms,
)
from jaxmetric.reductions import LossStats, Reduction

__all__ = ["soft_triple_loss", "subcenter_arcface_loss"]


def subcenter_arcface_loss(
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
    """Classify by the angle to the nearest of a class's proxies, with a margin.

    `arcface_loss` on the cosines s_c = max over k of cos(x, w_ck). Equally near
    proxies of a class: the lowest k gets the gradient. Every existing row is a term;
    no existing row, or a single class, gives 0.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer in 0..C-1.
      proxies: [C, K, dim] floating, K a class (the paper's K is 3); learned with the
        encoder. Columns of PML's weights are class-major: `W.T.reshape(C, K, dim)`.
      margin: in radians; a number, a scalar array or one an anchor [batch].
      scale: > 0, factor of the cosines; a number or a scalar array.
      precision, where, weights, reduction, block_size, axis_name: as in
        `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x C K), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, proxies = jnp.array([[1.0, 0.0]]), jnp.eye(4, 2).reshape(2, 2, 2)
      >>> loss = subcenter_arcface_loss(x, jnp.array([0]), proxies, scale=1.0)
      >>> print(f"{loss:.4f}")  # log(1 + exp(-cos(0.5)))
      0.3477

    Source: Deng, Guo, Liu, Gong, Zafeiriou. Sub-center ArcFace: Boosting Face
    Recognition by Large-Scale Noisy Web Faces. ECCV 2020, equation 3.
    """
    function = "subcenter_arcface_loss"
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
        has_centers=True,
    )
    return _rows.row_loss(
        comparison,
        _subcenter_arcface_rows,
        margin_and_scale(function, comparison, margin, scale),
        (proxies.shape[1],),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def soft_triple_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    la: ArrayLike = 20.0,
    gamma: ArrayLike = 0.1,
    margin: ArrayLike = 0.01,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Classify by cosines to several proxies a class, the nearer ones counting more.

    L = mean over rows of logsumexp_c z_c - z_y,   z_c = la * S_c, but
    z_y = la * (S_y - margin)
    S_c = sum_k softmax_k(s_ck / gamma) s_ck,   s_ck = cos(x, w_ck)

    Every existing row is a term; no existing row, or a single class, gives 0. The
    regulariser that lets proxies of a class merge is a term of its own.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer in 0..C-1.
      proxies: [C, K, dim] floating, K a class (the paper's K is 10); learned with the
        encoder. Columns of PML's weights are class-major: `W.T.reshape(C, K, dim)`.
      la: > 0, factor of the similarities (lambda in the paper); a number or a scalar
        array.
      gamma: > 0, temperature of the choice among the proxies of a class; a number or a
        scalar array.
      margin: in units of the cosine; a number, a scalar array or one an anchor
        [batch].
      precision, where, weights, reduction, block_size, axis_name: as in
        `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x C K), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, proxies = jnp.array([[1.0, 0.0]]), jnp.eye(2)[:, None, :]
      >>> loss = soft_triple_loss(x, jnp.array([0]), proxies, la=1.0, margin=0.0)
      >>> print(f"{loss:.4f}")  # with K = 1 a softmax of cosines
      0.3133

    Source: Qian, Shang, Sun, Hu, Li, Jin. SoftTriple Loss: Deep Metric Learning Without
    Triplet Sampling. ICCV 2019. arXiv:1909.05235, equations 8 and 9.
    """
    function = "soft_triple_loss"
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
        has_centers=True,
    )
    rows, dtype = comparison.num_rows, comparison.dtype
    remedy = "Typical values are 10 to 30."
    la = _checks.number(function, "la", la, dtype, above=0, remedy=remedy)
    remedy = "Typical values are 0.05 to 0.2."
    gamma = _checks.number(function, "gamma", gamma, dtype, above=0, remedy=remedy)
    margin = _checks.number(function, "margin", margin, dtype, rows=rows)
    return _rows.row_loss(
        comparison,
        _soft_triple_rows,
        (la, gamma, jnp.broadcast_to(margin, (rows,))),
        (proxies.shape[1],),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _by_class(columns: jax.Array, num_centers: int) -> jax.Array:
    """Return columns [b, C K] as [b, C, K]."""
    return columns.reshape(columns.shape[0], -1, num_centers)


def _subcenter_arcface_rows(
    block: Block, margin: jax.Array, scale: jax.Array, num_centers: int
) -> LossStats:
    """ArcFace on the nearest proxy of each class, for [b, C K] cosines."""
    s = _by_class(block.similarities, num_centers)
    # Searched by index without gradient; only what was selected has one.
    nearest = _numerics.masked_argmax(lax.stop_gradient(s), jnp.ones(s.shape, bool))
    centers = lax.broadcasted_iota(jnp.int32, s.shape, 2)
    logits = scale * jnp.sum(jnp.where(centers == nearest[..., None], s, 0), -1)
    is_own = _by_class(block.positive, num_centers)[..., 0]
    first = num_centers * lax.broadcasted_iota(jnp.int32, nearest.shape, 1)
    own_proxy = jnp.max(jnp.where(is_own, first + nearest, 0), -1)
    rows = jnp.arange(s.shape[0])
    d = _geometry.pair_distances(block.geometry, block.distance, rows, own_proxy)
    own = scale * arcface_similarities(d, margin[:, 0])
    is_other = _by_class(block.negative, num_centers)[..., 0]
    return softmax_terms(own, logits, is_other, block.where)


def _soft_triple_rows(
    block: Block,
    la: jax.Array,
    gamma: jax.Array,
    margin: jax.Array,
    num_centers: int,
) -> LossStats:
    """Softmax over relaxed similarities to the classes, for [b, C K] cosines."""
    s = _by_class(block.similarities, num_centers)
    relaxed = jnp.sum(jax.nn.softmax(s / gamma, axis=-1) * s, -1)
    is_own = _by_class(block.positive, num_centers)[..., 0]
    is_other = _by_class(block.negative, num_centers)[..., 0]
    own = jnp.sum(jnp.where(is_own, relaxed, 0), -1) - margin[:, 0]
    return softmax_terms(la * own, la * relaxed, is_other, block.where)
