"""Pairs by their noise-to-signal ratio: how much of an anchor's variance differs."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows, reductions
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["snr_contrastive_loss"]


def snr_contrastive_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 1.0,
    positive_margin: ArrayLike = 0.0,
    zero_mean_weight: ArrayLike = 0.0,
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
    """Pull and push pairs by the variance of their difference over the anchor's.

    L = mean over ordered pairs of  max(0, d - positive_margin)   (positive)
                                    max(0, margin - d)            (negative)
    d(a, b) = var(a - b) / var(a),   variances over the coordinates

    The anchor is the signal, so d(a, b) and d(b, a) differ; a constant added to a row
    changes nothing. An anchor whose coordinates are all alike has no signal and is not
    counted (as of the cosine's rows, so of what is left when the mean is taken out: a
    norm of at most 1e-6 counts as 0). No pair: 0. With `zero_mean_weight` w, the
    paper's regulariser w |sum of an anchor's coordinates| is added once a pair, whose
    hinge alone tells whether it is active: to every mean it adds the mean over
    anchors, each as often as it has pairs.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      margin: of negatives, a ratio of variances; a number, a scalar array or one an
        anchor [batch].
      positive_margin: likewise of positives.
      zero_mean_weight: of the regulariser; a number or a scalar array.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, -1.0], [2.0, -2.0], [-1.0, 1.0]])
      >>> print(f"{snr_contrastive_loss(x, jnp.array([0, 0, 1])):.4f}")
      0.2083

    Source: Yuan, Deng, Tang, Tang, Chen. Signal-to-Noise Ratio: A Robust Distance
    Metric for Deep Metric Learning. CVPR 2019. arXiv:1904.02616.
    """
    function = "snr_contrastive_loss"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance="sqeuclidean",
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
    hyper = (
        number("margin", margin, rows=rows),
        number("positive_margin", positive_margin, rows=rows),
        number("zero_mean_weight", zero_mean_weight, at_least=0),
    )
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    return _snr_contrastive(comparison, hyper, (reduction, block_size))


@partial(jax.jit, static_argnames="options")
def _snr_contrastive(
    comparison: Comparison, hyper: tuple[jax.Array, ...], options: tuple
) -> jax.Array | LossStats:
    """Take every row's mean out, then divide squared distances by the anchor's own."""
    reduction, block_size = options
    margin, positive_margin, zero_mean_weight = hyper
    comparison = _rows.gather(_widened(comparison))
    offset = _numerics.absolute(jnp.sum(comparison.x, -1))
    centred = _centred(comparison)
    geometry = _rows.prepare(centred)
    signal = jnp.sum(geometry.x**2, -1)
    norm = lax.stop_gradient(jnp.sqrt(signal)) * geometry.scale
    has_signal = norm > _numerics.MIN_NORM
    # So far below the largest row, not even the reciprocal is a number of the format.
    has_signal &= signal >= jnp.finfo(signal.dtype).tiny
    # A ratio needs no unit: with both squares left in the scaled rows' own, neither
    # overflows. 0 stands for no signal, as in the padding of the last block.
    geometry = geometry._replace(scale=jnp.ones_like(geometry.scale))
    reciprocal = jnp.where(has_signal, 1 / jnp.where(has_signal, signal, 1), 0)
    per_row = (reciprocal, margin, positive_margin)
    stats = _rows.map_rows(centred, geometry, _snr_rows, per_row, block_size)
    count = stats.num_terms
    costs = zero_mean_weight * offset * count.astype(offset.dtype)
    if reduction == "mean_active":
        # The costs have a mean of their own: hinges at 0 have theirs too.
        mean = _rows.finish(comparison, LossStats(costs, count, count), "mean")
        loss = _rows.finish(comparison, stats, reduction)
        return loss + mean  # pyright: ignore (scalars under a mean)
    stats = stats._replace(total=stats.total + costs)
    return _rows.finish(comparison, stats, reduction)


def _snr_rows(
    block: Block,
    reciprocal: jax.Array,
    margin: jax.Array,
    positive_margin: jax.Array,
) -> LossStats:
    """Sum of hinges of d = |x - r|^2 / |x|^2, for [b, n] squares of centred rows."""
    d = block.distances * reciprocal
    pull, push = _numerics.relu(d - positive_margin), _numerics.relu(margin - d)
    is_term = (block.positive | block.negative) & (reciprocal > 0)
    return _rows.pair_terms(jnp.where(block.positive, pull, push), is_term)


def _widened(comparison: Comparison) -> Comparison:
    """Return the comparison in the dtype of its distances, masked rows 0.

    Once, since several numbers are taken from a row: its gradients in a narrower dtype
    would be rounded before they are added.
    """
    dtype, where = comparison.dtype, comparison.anchors.where
    x = jnp.where(where[:, None], comparison.x, 0).astype(dtype)
    y, where = comparison.y, comparison.references.where
    if y is not None:
        y = jnp.where(where[:, None], y, 0).astype(dtype)
    return dataclasses.replace(comparison, x=x, y=y)


def _centred(comparison: Comparison) -> Comparison:
    """Return the comparison of rows that have lost the mean of their coordinates."""

    def centre(x: jax.Array) -> jax.Array:
        # (x - c) - mean(x - c) is the same for any c, so that c needs no gradient.
        # With the first coordinate for c, a constant row becomes exactly 0.
        x = x - lax.stop_gradient(x[:, :1])
        return x - jnp.mean(x, -1, keepdims=True)

    y = None if comparison.y is None else centre(comparison.y)
    return dataclasses.replace(comparison, x=centre(comparison.x), y=y)
