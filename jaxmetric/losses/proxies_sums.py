"""Proxies against the whole batch: losses that are no sum of terms per embedding.

A class is compared with all embeddings at once, or all scores of the batch with each
other. Both are made of sums over rows, so they work by blocks and across devices; but
there is nothing to average, and no `reduction`.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block

__all__ = ["distributional_ranking_loss", "proxy_anchor_loss"]

# The authors' code has it: about 0.08.
_NEGATIVE_TEMPERATURE = 0.1 / math.log(3.5)


def proxy_anchor_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    margin: ArrayLike = 0.1,
    alpha: ArrayLike = 32.0,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Make every proxy an anchor: its class is to be near, all others far.

    L = 1/C+ sum_c log(1 + sum_{i: y_i = c} exp(alpha (margin - s_ic)))
      + 1/C  sum_c log(1 + sum_{i: y_i /= c} exp(alpha (s_ic + margin)))
    s_ic = cos(x_i, w_c),   C+ = number of classes in the batch

    The log-sum-exp weighs the embeddings of a proxy by how hard they are. A class that
    is not in the batch keeps its second part, as in the paper. No existing row: 0. The
    two sides have divisors of their own, so there is no `reduction`; embeddings are
    references of the proxies here, so there are no `weights`.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, one a class; learned with the encoder.
      margin: of the cosine; a number, a scalar array, or one a class [C].
      alpha: > 0, how sharply the hardest embeddings are picked.
      precision, where, block_size, axis_name: as in `jaxmetric.losses`; a block is of
        proxies.

    Returns:
      Scalar float32 or wider.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, labels = jnp.eye(2), jnp.array([0, 1])
      >>> loss = proxy_anchor_loss(x, labels, jnp.eye(2), margin=0.0, alpha=1.0)
      >>> print(f"{loss:.4f}")
      1.0064

    Source: Kim, Kim, Cho, Kwak. Proxy Anchor Loss for Deep Metric Learning. CVPR 2020.
    arXiv:2003.13911, equation 4.
    """
    function = "proxy_anchor_loss"
    comparison = _comparison.compare_proxies(
        function,
        embeddings,
        labels,
        proxies,
        distance="cosine",
        precision=precision,
        where=where,
        axis_name=axis_name,
    )
    assert comparison.y is not None
    # Roles swapped: the proxies are the rows, the embeddings their references.
    swapped = dataclasses.replace(
        comparison,
        x=comparison.y,
        y=comparison.x,
        anchors=comparison.references,
        references=comparison.anchors,
    )
    dtype, num_classes = comparison.dtype, swapped.num_rows
    margin = _checks.number(function, "margin", margin, dtype, rows=num_classes)
    remedy = "The paper has 32."
    alpha = _checks.number(function, "alpha", alpha, dtype, above=0, remedy=remedy)
    _checks.block_size(function, block_size)
    return _proxy_anchor(swapped, margin, alpha, block_size)


@partial(jax.jit, static_argnames="block_size")
def _proxy_anchor(
    comparison: Comparison, margin: jax.Array, alpha: jax.Array, block_size: int | None
) -> jax.Array:
    """Sum both sides of all proxies; each device has a part of the embeddings."""
    geometry = _rows.prepare(comparison)
    hyper = (margin, alpha)
    own, others = _rows.map_rows(comparison, geometry, _both_sides, hyper, block_size)
    # Nothing is gathered: sums over embeddings are added up, [C] numbers a device.
    positive, is_present = _over_devices(own, comparison.axis_name)
    negative, is_opposed = _over_devices(others, comparison.axis_name)
    attraction = jnp.where(is_present, jax.nn.softplus(positive), 0)
    repulsion = jnp.where(is_opposed, jax.nn.softplus(negative), 0)
    num_present = jnp.sum(is_present, dtype=jnp.int32)
    loss = _numerics.quotient(jnp.sum(attraction), num_present)
    loss += jnp.sum(repulsion) / comparison.num_rows
    return _rows.poisoned(loss, _rows.is_finite(comparison))  # pyright: ignore


def _both_sides(block: Block, margin: jax.Array, alpha: jax.Array) -> tuple:
    """Return log-sum-exp over positives and over negatives of [b] proxies."""
    s = block.similarities
    return (
        _numerics.masked_logsumexp(alpha * (margin - s), block.positive),
        _numerics.masked_logsumexp(alpha * (s + margin), block.negative),
    )


def _over_devices(
    mine: tuple[jax.Array, jax.Array], axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Return the log-sum-exp [C] over all devices from that of this one, if any."""
    if axis_name is None:
        return mine
    value, exists = _numerics.varying_like(mine, lax.axis_index(axis_name))
    lowest = jnp.where(exists, lax.stop_gradient(value), -jnp.inf)
    shift = lax.pmax(lowest, axis_name)
    exists_somewhere = shift > -jnp.inf
    shift = jnp.where(exists_somewhere, shift, 0)
    part = jnp.where(exists, jnp.exp(jnp.where(exists, value - shift, 0)), 0)
    total = jnp.where(exists_somewhere, lax.psum(part, axis_name), 1)
    return jnp.log(total) + shift, exists_somewhere


def distributional_ranking_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    margin: ArrayLike = 0.5,
    positive_temperature: ArrayLike = 1.0,
    negative_temperature: ArrayLike = _NEGATIVE_TEMPERATURE,
    L: ArrayLike = 6.0,
    tau: ArrayLike = 4.0,
    scale: ArrayLike = 1.0,
    distance: Distance = "dot",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Rank the expected score of own classes above that of all other classes.

    loss = tau/L softplus(L (E- - E+ + margin)),   p_ic = sigmoid(scale s(x_i, w_c))
    E- = mean of p over c /= y_i, weighted by exp(p / negative_temperature)
    E+ = mean of p over c = y_i, weighted by exp(-p / positive_temperature)

    Both means are over all rows of the batch at once: hard negatives dominate the
    first, hard positives the second, and the classes stay balanced however many there
    are. The paper takes the means image by image, here a batch stands for one. Without
    an existing row, or with a single class, the loss is 0.

    Args:
      embeddings: [batch, dim] floating. Rows are taken as they are.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, one a class; learned with the encoder.
      margin: of the scores, which lie in 0..1; a number or a scalar array.
      positive_temperature, negative_temperature: > 0; the smaller, the more the
        hardest scores dominate their mean.
      L: > 0, sharpness of the softplus. tau: > 0, factor of the loss.
      scale: factor of the similarities; a number or a scalar array.
      distance: similarities are s = 1 - d for "cosine", -d for any other ("dot": the
        inner product).
      weights: [batch], how much the scores of a row count in both means.
      precision, where, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x C), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, labels = jnp.zeros((1, 2)), jnp.array([0])
      >>> print(f"{distributional_ranking_loss(x, labels, jnp.eye(2)):.4f}")
      2.0324

    Source: Qian, Chen, Li, Jin. DR Loss: Improving Object Detection by Distributional
    Ranking. CVPR 2020. arXiv:1907.10156, equations 6 to 11.
    """
    function = "distributional_ranking_loss"
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
    number = partial(_checks.number, function, dtype=comparison.dtype)
    hyper = (
        number("scale", scale),
        number("positive_temperature", positive_temperature, above=0),
        number("negative_temperature", negative_temperature, above=0),
    )
    shape = (number("margin", margin), number("L", L, above=0))
    _checks.block_size(function, block_size)
    tau = number("tau", tau, above=0)
    return _distributional_ranking(comparison, hyper, (*shape, tau), block_size)


@partial(jax.jit, static_argnames="block_size")
def _distributional_ranking(
    comparison: Comparison, hyper: tuple, shape: tuple, block_size: int | None
) -> jax.Array:
    """Join the means of the rows to means over all scores, and compare them."""
    margin, sharpness, tau = shape
    geometry = _rows.prepare(comparison)
    rows = _rows.map_rows(comparison, geometry, _expected_scores, hyper, block_size)
    (own, has_own), (other, has_other) = (_joined(comparison, *side) for side in rows)
    violation = jnp.where(has_own & has_other, other - own + margin, 0)
    loss = tau / sharpness * jax.nn.softplus(sharpness * violation)
    loss = jnp.where(has_own & has_other, loss, 0)
    return _rows.poisoned(loss, _rows.is_finite(comparison))  # pyright: ignore


def _expected_scores(
    block: Block, scale: jax.Array, positive: jax.Array, negative: jax.Array
) -> tuple:
    """Return, for own and for other classes of [b] rows: mean score and log weight."""
    scores = jax.nn.sigmoid(scale * block.similarities)

    def mean(z: jax.Array, mask: jax.Array) -> tuple:
        total, exists = _numerics.masked_logsumexp(z, mask)
        share = jnp.where(mask, z - total[:, None], -jnp.inf)
        return jnp.sum(jnp.exp(share) * scores, -1), total, exists

    return (
        mean(-scores / positive, block.positive),
        mean(scores / negative, block.negative),
    )


def _joined(
    comparison: Comparison, mean: jax.Array, log_weight: jax.Array, exists: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the mean of [m] means under weights given as logarithms, if there is one.

    E = sum_i w_i e^{l_i} mean_i / sum_i w_i e^{l_i}, for any common shift of the l_i.
    """
    weights = comparison.weights
    if weights is not None:
        exists &= weights > 0
    shift = jnp.max(jnp.where(exists, lax.stop_gradient(log_weight), -jnp.inf))
    if comparison.axis_name is not None:
        axis_name = comparison.axis_name
        shift = _numerics.varying_like(shift, lax.axis_index(axis_name))
        shift = lax.pmax(shift, axis_name)
    weight = jnp.exp(jnp.where(exists, log_weight - shift, -jnp.inf))
    if weights is not None:
        weight *= jnp.where(exists, weights, 0)
    total, weight = _rows.sum_rows(comparison, (weight * mean, weight))
    return _numerics.quotient(total, weight), shift > -jnp.inf
