"""Classification with a say of its own: squared cosines, and classes of unlike size.

Both compare each embedding with all proxies and count one term a proxy, or one an
embedding; labels name rows of `proxies`, as in the other losses over proxies.
"""

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

__all__ = ["p2s_grad_loss", "seesaw_loss"]


def p2s_grad_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Let the cosines to all proxies be 1 for the own class and 0 for the others.

    L = mean over rows and classes of (cos(x_i, w_c) - [c = y_i])^2

    No margin, no scale, no softmax: the size of a gradient is the cosine itself. Every
    existing row has C terms; no existing row gives 0. A row without direction has
    cosine 0 to everything, where PML 2.9 is NaN; proxies are normalised here and stay
    as they are outside, where PML writes the normalised ones back.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, one a class; learned with the encoder.
      precision, where, weights, reduction, block_size, axis_name: as in
        `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes or names do not fit. TypeError: dtypes do not fit.

    Memory: O(block x C), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, proxies = jnp.array([[0.6, 0.8]]), jnp.eye(2)
      >>> print(f"{p2s_grad_loss(x, jnp.array([0]), proxies):.4f}")
      0.4000

    Source: Zhang, Zhao, Yan, Wang, Wang, Li. P2SGrad: Refined Gradients for Optimizing
    Deep Face Models. CVPR 2019. arXiv:1905.02479, equation 11, of which this is the
    primitive.
    """
    function = "p2s_grad_loss"
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
        _squared_errors,
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _squared_errors(block: Block) -> LossStats:
    """(cos - 1)^2 in the own column, cos^2 in the others, of [b, C] cosines."""
    error = jnp.where(block.positive, block.distances, block.similarities)
    return _rows.pair_terms(error * error, block.positive | block.negative)


def seesaw_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    p: ArrayLike = 0.8,
    q: ArrayLike = 2.0,
    epsilon: ArrayLike = 0.01,
    scale: ArrayLike = 20.0,
    class_counts: ArrayLike | None = None,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Classify, and let frequent classes not push the rare ones away.

    L = mean over rows of log(1 + sum_{c /= y} M_yc K_ic exp(z_c - z_y))
    z_c = scale * cos(x, w_c)
    M_yc = min(1, N_c / N_y)^p           spares classes rarer than the own one
    K_ic = max(1, q_ic / q_iy)^q         punishes those that score above it

    with N_c = max(count of c, 1) and q_i = softmax(z_i), q_iy at least `epsilon`. K is
    a factor without gradient, as in the authors' code: the gradient is that of the
    formula with K held constant. p = q = 0 is `normalized_softmax_loss`. Every existing
    row is a term; no existing row, or a single class, gives 0. The objectness branch of
    the paper's detector is not part of it.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer in 0..C-1.
      proxies: [C, dim] floating, one a class; learned with the encoder.
      p: >= 0, strength of the mitigation. q: >= 0, strength of the compensation.
      epsilon: > 0, bounds the ratio of scores.
      scale: factor of the cosines; a number or a scalar array.
      class_counts: [C], how often each class has been seen in training so far, kept by
        the caller (counts of all devices, the same on each); None counts this batch.
      precision, where, weights, reduction, block_size, axis_name: as in
        `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x C), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, proxies = jnp.array([[1.0, 1.0]]), jnp.eye(2)
      >>> counts = jnp.array([2, 1])
      >>> loss = seesaw_loss(x, jnp.array([0]), proxies, class_counts=counts)
      >>> print(f"{loss:.4f}")
      0.4538

    Source: Wang, Zhang, Zang, Cao, Pang, Gong, Chen, Liu, Loy, Lin. Seesaw Loss for
    Long-Tailed Instance Segmentation. CVPR 2021. arXiv:2008.10032, equations 4 to 7.
    """
    function = "seesaw_loss"
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
    dtype = comparison.dtype
    number = partial(_checks.number, function, dtype=dtype)
    hyper = (
        number("p", p, at_least=0),
        number("q", q, at_least=0),
        number("epsilon", epsilon, above=0, remedy="The paper has 0.01."),
        number("scale", scale),
    )
    if class_counts is not None:
        num_classes = comparison.references.labels.shape[0]
        name = "class_counts"
        class_counts = _checks.weights(function, class_counts, num_classes, dtype, name)
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    return _seesaw(comparison, class_counts, hyper, (reduction, block_size))


@partial(jax.jit, static_argnames="options")
def _seesaw(
    comparison: Comparison,
    class_counts: jax.Array | None,
    hyper: tuple,
    options: tuple,
) -> jax.Array | LossStats:
    """Count the classes unless they are counted, then one term a row."""
    reduction, block_size = options
    counts = _count_classes(comparison) if class_counts is None else class_counts
    # Labels outside 0..C-1 make the loss NaN, or are those of rows that are masked.
    log_counts = jnp.log(jnp.where(counts > 1, counts, 1))
    own = log_counts[comparison.anchors.labels]
    geometry = _rows.prepare(comparison)

    def body(block: Block, own: jax.Array, *hyper: jax.Array) -> LossStats:
        return _seesaw_rows(block, log_counts, own, *hyper)

    stats = _rows.map_rows(comparison, geometry, body, (own, *hyper), block_size)
    return _rows.finish(comparison, stats, reduction)


def _count_classes(comparison: Comparison) -> jax.Array:
    """Return [C] how many existing rows of all devices have each label."""
    num_classes = comparison.references.labels.shape[0]
    labels, where = comparison.anchors.labels, comparison.anchors.where
    counts = jnp.zeros(num_classes, jnp.int32)
    if comparison.axis_name is not None:
        counts = _numerics.varying_like(counts, labels, where)
    # Scattered over [C] numbers: no [batch, C] matrix, which the engine is there for.
    counts = counts.at[labels].add(where.astype(jnp.int32), mode="drop")
    if comparison.axis_name is not None:
        counts = lax.psum(counts, comparison.axis_name)
    return counts.astype(comparison.dtype)


def _seesaw_rows(
    block: Block,
    log_counts: jax.Array,
    own: jax.Array,
    p: jax.Array,
    q: jax.Array,
    epsilon: jax.Array,
    scale: jax.Array,
) -> LossStats:
    """log(1 + sum_{c /= y} M K exp(z_c - z_y)), all factors as logarithms."""
    z = scale * block.similarities
    z_own = jnp.sum(jnp.where(block.positive, z, 0), -1, keepdims=True)
    log_mitigation = -p * _numerics.relu(own - log_counts[None, :])
    total, _ = _numerics.masked_logsumexp(z, block.positive | block.negative)
    # K is without gradient in z: log K = q [log q_c - log max(q_y, epsilon)]+.
    log_scores, epsilon = lax.stop_gradient((z - total[:, None], epsilon))
    log_own = lax.stop_gradient(z_own - total[:, None])
    log_own = jnp.where(log_own > jnp.log(epsilon), log_own, jnp.log(epsilon))
    log_compensation = q * _numerics.relu(log_scores - log_own)
    margin = z - z_own + log_mitigation + log_compensation
    rest, has_others = _numerics.masked_logsumexp(margin, block.negative)
    return _rows.anchor_terms(jax.nn.softplus(rest), has_others)
