"""Proxies whose own angle is multiplied: large-margin softmax and SphereFace.

The own class must win at a multiple of its angle. Lengths of the embeddings are part
of both losses: neither is free of their scale.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _geometry, _numerics, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.losses.proxies_margins import softmax_terms
from jaxmetric.reductions import LossStats, Reduction

__all__ = ["large_margin_softmax_loss", "sphereface_loss"]


def sphereface_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    margin: int = 4,
    scale: ArrayLike = 1.0,
    annealing: ArrayLike = 0.0,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Classify embeddings by the angle to one proxy a class, the own one multiplied.

    L = mean over rows of logsumexp_c z_c - z_y,   z_c = scale |x| cos(x, w_c), but
    z_y = scale |x| psi(angle(x, w_y)),   psi(t) = (-1)^k cos(margin t) - 2 k
    for t between k pi / margin and (k + 1) pi / margin

    Proxies are normalised, embeddings are not. Every existing row is a term; no
    existing row, or a single class, gives 0. A row of norm at most 1e-6 counts as
    zero: its logits are all 0, without gradient. cos(margin t) is a polynomial in
    cos(t), so that no derivative is infinite at an angle of 0.

    Args:
      embeddings: [batch, dim] floating. Their lengths matter.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, one a class; learned with the encoder.
      margin: a positive int, by which the own angle is multiplied.
      scale: > 0, factor of the logits; a number or a scalar array.
      annealing: >= 0; psi becomes (annealing * cos + psi) / (1 + annealing). Training
        starts with a large number that goes down.
      precision, where, weights, reduction, block_size, axis_name: as in
        `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x C), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, proxies = jnp.array([[2.0, 2.0]]), jnp.eye(2)
      >>> loss = sphereface_loss(x, jnp.array([0]), proxies, margin=2)
      >>> print(f"{loss:.4f}")  # psi(45 degrees) = 0: log(1 + exp(2))
      2.1269

    Source: Liu, Wen, Yu, Li, Raj, Song. SphereFace: Deep Hypersphere Embedding for
    Face Recognition. CVPR 2017. arXiv:1704.08063, equation 7.
    """
    function = "sphereface_loss"
    comparison = _comparison.compare_proxies(
        function,
        embeddings,
        labels,
        proxies,
        distance="dot",
        precision=precision,
        where=where,
        weights=weights,
        axis_name=axis_name,
    )
    hyper = _scale_and_annealing(function, comparison, scale, annealing)
    _check_margin(function, margin)
    return _rows.row_loss(
        _directed(comparison, is_normalized=True),
        _angular_rows,
        hyper,
        (margin, False),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def large_margin_softmax_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    margin: int = 4,
    scale: ArrayLike = 1.0,
    annealing: ArrayLike = 0.0,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Classify embeddings by inner products, the angle to the own proxy multiplied.

    L = mean over rows of logsumexp_c z_c - z_y,   z_c = scale <x, w_c>, but
    z_y = scale |x| |w_y| psi(angle(x, w_y)),   psi(t) = (-1)^k cos(margin t) - 2 k
    for t between k pi / margin and (k + 1) pi / margin

    Neither side is normalised. Every existing row is a term; no existing row, or a
    single class, gives 0. A row or proxy of norm at most 1e-6 counts as zero: its
    logits are 0, without gradient. cos(margin t) is a polynomial in cos(t), so that no
    derivative is infinite at an angle of 0.

    Args:
      embeddings: [batch, dim] floating. Their lengths matter.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, one a class; learned with the encoder. Their lengths
        matter.
      margin: a positive int, by which the own angle is multiplied.
      scale: > 0, factor of the logits; a number or a scalar array.
      annealing: >= 0; psi becomes (annealing * cos + psi) / (1 + annealing). Training
        starts with a large number that goes down.
      precision, where, weights, reduction, block_size, axis_name: as in
        `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x C), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, proxies = jnp.array([[2.0, 2.0]]), jnp.eye(2)
      >>> loss = large_margin_softmax_loss(x, jnp.array([0]), 2 * proxies, margin=2)
      >>> print(f"{loss:.4f}")  # psi(45 degrees) = 0: log(1 + exp(4))
      4.0181

    Source: Liu, Wen, Yu, Yang. Large-Margin Softmax Loss for Convolutional Neural
    Networks. ICML 2016. arXiv:1612.02295, equations 4 to 6.
    """
    function = "large_margin_softmax_loss"
    comparison = _comparison.compare_proxies(
        function,
        embeddings,
        labels,
        proxies,
        distance="dot",
        precision=precision,
        where=where,
        weights=weights,
        axis_name=axis_name,
    )
    hyper = _scale_and_annealing(function, comparison, scale, annealing)
    _check_margin(function, margin)
    return _rows.row_loss(
        _directed(comparison, is_normalized=False),
        _angular_rows,
        hyper,
        (margin, True),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _check_margin(function: str, margin: object) -> None:
    """Require a factor of angles for which the cosine is a polynomial."""
    remedy = "Use 1 to 4; it is the degree of a polynomial."
    _checks.positive_int(function, "margin", margin, remedy=remedy)


def _scale_and_annealing(
    function: str, comparison: Comparison, scale: ArrayLike, annealing: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Return both as scalars of the dtype of the logits."""
    remedy = "Use 1 for the logits of the paper."
    dtype = comparison.dtype
    scale = _checks.number(function, "scale", scale, dtype, above=0, remedy=remedy)
    remedy = "Use 0 for the loss itself, 5 to 1000 to begin with."
    return scale, _checks.number(
        function, "annealing", annealing, dtype, at_least=0, remedy=remedy
    )


@partial(jax.jit, static_argnames="is_normalized")
def _directed(comparison: Comparison, *, is_normalized: bool) -> Comparison:
    """Return a comparison in which rows without direction are zero.

    With `is_normalized` the proxies are of unit norm.
    """
    x, y, dtype = comparison.x, comparison.y, comparison.dtype
    assert y is not None
    where = comparison.anchors.where
    x, y = jnp.where(where[:, None], x, 0).astype(dtype), y.astype(dtype)
    # Selected away below, a number that is not finite would no longer show.
    is_valid = comparison.is_valid & _numerics.is_finite(x, where)
    is_valid &= _numerics.is_finite(y, comparison.references.where)
    _, has_direction = _numerics.unit_rows(x)
    unit_y, y_has_direction = _numerics.unit_rows(y)
    x = jnp.where(has_direction[:, None], x, 0)
    y = jnp.where(y_has_direction[:, None], unit_y if is_normalized else y, 0)
    return dataclasses.replace(comparison, x=x, y=y, is_valid=is_valid)


def _angular_rows(
    block: Block,
    scale: jax.Array,
    annealing: jax.Array,
    margin: int,
    has_proxy_lengths: bool,
) -> LossStats:
    """logsumexp_c z_c - z_y, the own angle multiplied, for [b, C] inner products."""
    # Labels of rows that do not exist may be anything; indexing stays in range.
    x, w = block.geometry.x, block.geometry.y[block.labels]
    unit_x, x_exists = _numerics.unit_rows(x)
    unit_w, w_exists = _numerics.unit_rows(w)
    one, exist = jnp.ones((), x.dtype), (x_exists, w_exists)
    s = 1 - _geometry.row_distances(unit_x, unit_w, one, exist, "cosine")
    psi = (annealing * s + _multiplied_cosine(s, margin)) / (1 + annealing)
    # |x| as <x, x/|x|>: 0 without gradient for a row without direction.
    length = jnp.sum(x * unit_x, -1)
    if has_proxy_lengths:
        length *= jnp.sum(w * unit_w, -1)
    logits = scale * block.similarities
    return softmax_terms(scale * length * psi, logits, block.negative, block.where)


def _multiplied_cosine(s: jax.Array, margin: int) -> jax.Array:
    """Return psi of angles given by their cosines [b]; it falls from 1 to 1 - 2 m."""
    # cos(m t) = T_m(cos t), by T_{m+1}(s) = 2 s T_m(s) - T_{m-1}(s).
    previous, chebyshev = jnp.ones_like(s), s
    for _ in range(margin - 1):
        previous, chebyshev = chebyshev, 2 * s * chebyshev - previous
    # k pi / m <= t < (k + 1) pi / m. At the seams psi is continuous, and so is its
    # derivative, which is 0 there: k needs no gradient.
    k = jnp.zeros(s.shape, jnp.int32)
    for q in range(1, margin):
        k += (s < math.cos(q * math.pi / margin)).astype(jnp.int32)
    return jnp.where(k % 2 == 0, chebyshev, -chebyshev) - 2 * k.astype(s.dtype)
