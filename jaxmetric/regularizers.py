"""Regularizers: what is asked of embeddings or proxies, whatever their labels.

Added to a loss with a small factor. Each is a mean of terms that are never negative
(the cosine of `regular_face` apart), one a row or class. They share the arguments of
the losses:

  where: which rows (classes) exist; a masked one contributes exactly nothing, even if
    it holds NaN, and an existing one that is not finite makes the value NaN.
  weights: how much a row (class) counts.
  reduction: "mean" over terms, "mean_active" over terms above 0, "mean_per_anchor",
    "sum", or "none" for a `LossStats`; see `jaxmetric.reduce`.
  axis_name: inside a mapped region, the axis over which embeddings are shards of the
    global batch. Proxies are the same on every device and need none.

Without any term the value is exactly 0 with a gradient of exactly 0.
"""

import math
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
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction

__all__ = ["center_invariant", "lp", "regular_face", "sparse_centers", "zero_mean"]


def lp(
    embeddings: jax.Array,
    *,
    p: float = 2,
    power: float = 1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Keep rows short.

    R = mean over rows of |x|_p^power

    A zero row has value 0 and gradient 0.

    Args:
      embeddings: [batch, dim] floating; may be proxies just as well.
      p: a Python number >= 1, `math.inf` for the largest coordinate.
      power: a Python number > 0; 2 with p=2 gives squared norms.
      where, weights, reduction, axis_name: as in `jaxmetric.regularizers`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x dim), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[3.0, 4.0]])
      >>> print(f"{lp(x):.2f} {lp(x, p=1):.2f} {lp(x, power=2):.2f}")
      5.00 7.00 25.00

    Source: weight decay on embeddings; Sohn. Improved Deep Metric Learning with
    Multi-class N-pair Loss Objective. NIPS 2016, section 3.2.3.
    """
    remedy = "It is a Python number, part of the formula."
    for name, value, is_good, must in (
        ("p", p, lambda v: v >= 1, "be >= 1"),
        ("power", power, lambda v: 0 < v < math.inf, "be > 0"),
    ):
        if not (isinstance(value, int | float) and is_good(value)):
            raise ValueError(_checks.text("lp", name, must, repr(value), remedy))
    embeddings = _checks.embeddings("lp", "embeddings", embeddings)
    formula = (_norms, float(p), float(power))
    shared = (where, weights, reduction, axis_name)
    return _over_rows("lp", "embeddings", embeddings, formula, *shared)


def zero_mean(
    embeddings: jax.Array,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Let the coordinates of each row add up to zero.

    R = mean over rows of |sum_d x_d|

    Args:
      embeddings: [batch, dim] floating.
      where, weights, reduction, axis_name: as in `jaxmetric.regularizers`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes or names do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x dim), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> print(f"{zero_mean(jnp.array([[1.0, 2.0], [1.0, -1.0]])):.2f}")
      1.50

    Source: PyTorch Metric Learning, `ZeroMeanRegularizer`.
    """
    embeddings = _checks.embeddings("zero_mean", "embeddings", embeddings)
    shared = (where, weights, reduction, axis_name)
    return _over_rows("zero_mean", "embeddings", embeddings, (_absolute_sums,), *shared)


def center_invariant(
    proxies: jax.Array,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array | LossStats:
    """Give all proxies the same norm, so that rare classes are not left short.

    R = mean over classes of (|w_c|^2 - mean_k |w_k|^2)^2 / 4

    The inner mean is over all existing proxies and has a gradient; `weights` do not
    act on it.

    Args:
      proxies: [C, dim] floating, one a class.
      where, weights, reduction: as in `jaxmetric.regularizers`, for classes.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [C] arrays.

    Raises:
      ValueError: shapes or names do not fit. TypeError: dtypes do not fit.

    Memory: O(C x dim), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> print(f"{center_invariant(jnp.array([[2.0, 0.0], [0.0, 0.0]])):.2f}")
      1.00

    Source: Wu, Liu, Yang, Liu, Tan, Yang. Deep Face Recognition with Center Invariant
    Loss. ACM MM Thematic Workshops 2017, equation 5.
    """
    function = "center_invariant"
    proxies = _checks.embeddings(function, "proxies", proxies)
    shared = (where, weights, reduction)
    return _over_rows(function, "proxies", proxies, (_norm_deviations,), *shared)


def regular_face(
    proxies: jax.Array,
    *,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
) -> jax.Array | LossStats:
    """Push each proxy away from the one whose direction is nearest.

    R = mean over classes of max_{k /= c} cos(w_c, w_k)

    Equally near: the lowest class. The maximum is found without gradient and computed
    again for that pair. A single existing proxy gives 0.

    Args:
      proxies: [C, dim] floating, one a class. Need not be normalised.
      precision, block_size: as in `jaxmetric.losses`.
      where, weights, reduction: as in `jaxmetric.regularizers`, for classes.

    Returns:
      Scalar float32 or wider, from -1 to 1; with reduction="none" a `LossStats` of [C]
      arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x C), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> print(f"{regular_face(jnp.array([[1.0, 0.0], [0.6, 0.8]])):.2f}")
      0.60

    Source: Zhao, Xu, Cheng. RegularFace: Deep Face Recognition via Exclusive
    Regularization. CVPR 2019, equation 6.
    """
    function = "regular_face"
    proxies = _checks.embeddings(function, "proxies", proxies)
    where = _checks.mask(function, "where", where, proxies, "proxies")
    # Every proxy is a class of its own: all others are its negatives.
    comparison = _comparison.compare(
        function,
        proxies,
        jnp.arange(proxies.shape[0], dtype=jnp.int32),
        distance="cosine",
        precision=precision,
        where=where,
        weights=weights,
    )
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    return _regular_face(comparison, (reduction, block_size))


def sparse_centers(
    proxies: jax.Array,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array | LossStats:
    """Pull the centers of a class together until superfluous ones merge.

    R = mean over classes and ordered pairs of their centers of |u_k - u_l| / 2,
    with u the centers on the unit sphere: |u_k - u_l| = sqrt(2 - 2 cos)

    So the mean is sum over classes and k < l of |u_k - u_l|, divided by C K (K - 1), as
    in the paper. Merged centers have distance 0 and gradient 0, where a root of
    2 - 2 cos has an infinite one. One center a class: 0.

    Args:
      proxies: [C, K, dim] floating, K centers a class. Need not be normalised.
      where, weights, reduction: as in `jaxmetric.regularizers`, for classes.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [C] arrays.

    Raises:
      ValueError: shapes or names do not fit. TypeError: dtypes do not fit.

    Memory: O(C x K^2 x dim), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> print(f"{sparse_centers(jnp.array([[[1.0, 0.0], [0.0, 1.0]]])):.4f}")
      0.7071

    Source: Qian, Shang, Sun, Hu, Li, Jin. SoftTriple Loss: Deep Metric Learning Without
    Triplet Sampling. ICCV 2019. arXiv:1909.05235, equation 8.
    """
    function = "sparse_centers"
    proxies = _checks.centers(function, "proxies", proxies)
    shared = (where, weights, reduction)
    return _over_rows(function, "proxies", proxies, (_center_distances,), *shared)


def _over_rows(
    function: str,
    argument: str,
    rows: jax.Array,
    formula: tuple,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    reduction: Reduction,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Check the shared arguments and reduce `f(rows, where, *static) -> LossStats`.

    `formula` is `(f, *static)`; the rows that `f` gets are zeros where masked.
    """
    where = _checks.mask(function, "where", where, rows, argument)
    if weights is not None:
        dtype = _numerics.accumulation_dtype(rows)
        weights = _checks.weights(function, weights, rows.shape[0], dtype)
    reductions.check_reduction(function, reduction)
    return _reduced(rows, where, weights, (formula, reduction, axis_name))


@partial(jax.jit, static_argnames="options")
def _reduced(
    rows: jax.Array, where: jax.Array, weights: jax.Array | None, options: tuple
) -> jax.Array | LossStats:
    """Select, convert, compute and reduce; NaN if an existing row is not finite."""
    (formula, *static), reduction, axis_name = options
    is_bad = (~_numerics.is_finite(rows, where)).astype(jnp.int32)
    is_bad = is_bad if axis_name is None else lax.psum(is_bad, axis_name)
    exists = where.reshape(where.shape + (1,) * (rows.ndim - 1))
    x = jnp.where(exists, rows, 0).astype(_numerics.accumulation_dtype(rows))
    stats = formula(x, where, *static)
    loss = reductions.reduce(stats, reduction, weights=weights, axis_name=axis_name)
    return _rows.poisoned(loss, is_bad == 0)


def _norms(x: jax.Array, where: jax.Array, p: float, power: float) -> LossStats:
    """|x|_p^power of [n, dim] rows."""
    size = _numerics.absolute(x)
    if p == math.inf:
        largest = _numerics.masked_argmax(lax.stop_gradient(size), size >= 0)
        norm = jnp.take_along_axis(size, largest[:, None], -1)[:, 0]
        return _rows.anchor_terms(_power(norm, power), where)
    # Divided by a power of two near the largest entry, nothing over- or underflows.
    scale = _numerics.power_of_two_above(
        jnp.max(lax.stop_gradient(size), -1, keepdims=True)
    )
    # Squares of the rows themselves: |x|^2 has no second derivative at 0 by `absolute`.
    total = jnp.sum(_power((x if p == 2 else size) / scale, p), -1)
    return _rows.anchor_terms(
        _power(total, power / p) * _power(scale[:, 0], power), where
    )


def _power(x: jax.Array, exponent: float) -> jax.Array:
    """Return x^exponent of numbers that are not negative; 0 with gradient 0 at 0."""
    if exponent == 1:
        return x
    if exponent == 2:
        return x * x
    if exponent == 0.5:
        return _numerics.safe_sqrt(x)
    is_positive = x > 0
    return jnp.where(is_positive, jnp.where(is_positive, x, 1) ** exponent, 0)


def _absolute_sums(x: jax.Array, where: jax.Array) -> LossStats:
    """|sum_d x_d| of [n, dim] rows."""
    return _rows.anchor_terms(_numerics.absolute(jnp.sum(x, -1)), where)


def _norm_deviations(x: jax.Array, where: jax.Array) -> LossStats:
    """(|w_c|^2 - mean)^2 / 4 of [C, dim] proxies."""
    squares = jnp.sum(x * x, -1)
    mean = _numerics.quotient(jnp.sum(squares), jnp.sum(where, dtype=x.dtype))
    return _rows.anchor_terms((squares - mean) ** 2 / 4, where)


def _center_distances(x: jax.Array, where: jax.Array) -> LossStats:
    """|u_k - u_l| / 2 over ordered pairs of the centers of each class, [C, K, dim]."""
    u, has_direction = _numerics.unit_rows(x)
    k, l = jnp.triu_indices(x.shape[1], 1)  # noqa: E741
    exists = has_direction[:, k], has_direction[:, l]
    one = jnp.ones((), x.dtype)
    cosine = _geometry.row_distances(u[:, k], u[:, l], one, exists, "cosine")
    halves = _numerics.safe_sqrt(2 * cosine) / 2
    terms = jnp.concatenate([halves, halves], -1)
    return _rows.pair_terms(terms, jnp.broadcast_to(where[:, None], terms.shape))


@partial(jax.jit, static_argnames="options")
def _regular_face(comparison: Comparison, options: tuple) -> jax.Array | LossStats:
    """Find the nearest other proxy by index, then compute its cosine."""
    reduction, block_size = options
    comparison = _rows.gather(comparison)
    geometry = _rows.prepare(comparison)
    search = _rows.to_search(comparison, geometry)
    nearest, has_other = _rows.map_rows(*search, _nearest_other, (), block_size)
    rows = jnp.arange(comparison.num_rows)
    distances = _geometry.pair_distances(geometry, "cosine", rows, nearest)
    stats = _rows.anchor_terms(1 - distances, has_other)
    return _rows.finish(comparison, stats, reduction)


def _nearest_other(block: Block) -> tuple[jax.Array, jax.Array]:
    """Return the nearest negative of [b] rows, and whether there is one."""
    nearest = _numerics.masked_argmin(block.distances, block.negative)
    return nearest, jnp.any(block.negative, -1)
