"""Proxies and distances: near the own proxy, against the others or by itself."""

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
    reductions,
)
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.losses.proxies_margins import softmax_terms
from jaxmetric.reductions import LossStats, Reduction

__all__ = ["center_loss", "proxy_nca_loss"]


def proxy_nca_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    scale: ArrayLike = 1.0,
    exclude_positive: bool = False,
    distance: Distance = "sqeuclidean",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Classify embeddings by their distance to one proxy a class.

    L = mean over rows of logsumexp_c z_c - z_y,   z_c = -scale * d(x, w_c)

    The own proxy is in the denominator, as in ProxyNCA++ and PML: a cross-entropy.
    With `exclude_positive` the sum is over the other classes, as in the paper: terms
    may be negative then, without a lower bound. Every existing row is a term; no
    existing row, or a single class, gives 0. Rows are taken as they are; the papers
    normalise both sides ("cosine" with twice the scale is the same).

    Args:
      embeddings: [batch, dim] floating. Rows are taken as they are.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, one a class; learned with the encoder.
      scale: > 0, factor of the distances; a number or a scalar array. ProxyNCA++ has 9.
      exclude_positive: leave the own proxy out of the denominator.
      distance: a name or a callable; see `pairwise_distance`.
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
      >>> print(f"{proxy_nca_loss(x, jnp.array([0]), proxies):.4f}")
      0.1269

    Source: Movshovitz-Attias, Toshev, Leung, Ioffe, Singh. No Fuss Distance Metric
    Learning using Proxies. ICCV 2017. arXiv:1703.07464, equation 4; Teh, DeVries,
    Taylor. ProxyNCA++. ECCV 2020. arXiv:2004.01113, equation 6.
    """
    function = "proxy_nca_loss"
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
    dtype, remedy = comparison.dtype, "Use 1, or 9 with unit rows."
    scale = _checks.number(function, "scale", scale, dtype, above=0, remedy=remedy)
    return _rows.row_loss(
        comparison,
        _proxy_nca_rows,
        (scale,),
        (bool(exclude_positive),),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def center_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    stop_centers: bool = False,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Pull every embedding to the centre of its class.

    L = mean over rows of |x - w_y|^2 / 2

    Every existing row is a term; without one the loss is 0. By itself it is smallest
    where everything is one point: it is added to a softmax loss, with a weight of
    0.003 in the paper. That paper sums over the batch, and moves the centres by a rule
    of its own, w_k - 0.5 sum_{y = k} (w_k - x) / (1 + n_k), outside the optimiser; here
    they get gradients.

    Args:
      embeddings: [batch, dim] floating. Rows are taken as they are.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, the centres, one a class.
      stop_centers: give the centres no gradient, for those who move them by a rule.
      where, weights, reduction, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O((batch + C) x dim): only the own centres are read, there is no matrix.

    Example:
      >>> import jax.numpy as jnp
      >>> x, centers = jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))
      >>> print(f"{center_loss(x, jnp.array([0]), centers):.2f}")
      12.50

    Source: Wen, Zhang, Li, Qiao. A Discriminative Feature Learning Approach for Deep
    Face Recognition. ECCV 2016, equations 2 to 4.
    """
    function = "center_loss"
    comparison = _comparison.compare_proxies(
        function,
        embeddings,
        labels,
        # The paper's gradient is that of the embeddings alone.
        lax.stop_gradient(jnp.asarray(proxies)) if stop_centers else proxies,
        distance="sqeuclidean",
        where=where,
        weights=weights,
        axis_name=axis_name,
    )
    reductions.check_reduction(function, reduction)
    return _center(comparison, reduction)


@partial(jax.jit, static_argnames="reduction")
def _center(comparison: Comparison, reduction: Reduction) -> jax.Array | LossStats:
    """Half the squared distances to the own centres, one term a row."""
    comparison = _rows.gather(comparison)
    geometry = _rows.prepare(comparison)
    anchors = comparison.anchors
    rows = jnp.arange(comparison.num_rows)
    # Labels of rows that do not exist may be anything; indexing stays in range.
    d = _geometry.pair_distances(geometry, "sqeuclidean", rows, anchors.labels)
    return _rows.finish(comparison, _rows.anchor_terms(d / 2, anchors.where), reduction)


def _proxy_nca_rows(
    block: Block, scale: jax.Array, exclude_positive: bool
) -> LossStats:
    """logsumexp_c z_c - z_y, for [b, C] distances; the own class in the sum or not."""
    z = -scale * block.distances
    own = jnp.sum(jnp.where(block.positive, z, 0), -1)
    if not exclude_positive:
        return softmax_terms(own, z, block.negative, block.where)
    others, exists = _numerics.masked_logsumexp(z, block.negative)
    return _rows.anchor_terms(jnp.where(exists, others - own, 0), block.where)
