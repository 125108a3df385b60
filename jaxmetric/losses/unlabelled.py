"""Losses without labels: two views of the same rows, or numbers against targets."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _numerics, _rows, reductions
from jaxmetric._geometry import Precision
from jaxmetric.reductions import LossStats, Reduction

__all__ = ["shrinkage_loss", "vicreg_loss"]


def vicreg_loss(
    x: jax.Array,
    y: jax.Array,
    *,
    invariance_weight: ArrayLike = 25.0,
    variance_weight: ArrayLike = 25.0,
    covariance_weight: ArrayLike = 1.0,
    epsilon: ArrayLike = 1e-4,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Bring two views together, and keep their coordinates spread and uncorrelated.

    L = l mean_{i,d} (x_id - y_id)^2
      + m/2 (mean_d max(0, 1 - sqrt(var_d(x) + epsilon)) + the same of y)
      + n/dim (sum_{a /= b} cov_ab(x)^2 + the same of y)

    with l, m, n the three weights, variances and covariances over the batch, divided by
    (batch - 1). Nothing is normalised, there are no negatives. The half before the
    second part is in the authors' code, not in the printed formula. A single existing
    row leaves only the first part, none gives 0. The parts are no sums of terms a row,
    so there is no `reduction`.

    Args:
      x, y: [batch, dim] floating, row by row two views of one sample.
      invariance_weight, variance_weight, covariance_weight: >= 0, l, m and n.
      epsilon: >= 0, under the root of the variances.
      precision: of the matrix products; see `pairwise_distance`.
      where: [batch] bool, which pairs of rows exist.
      axis_name: as in `jaxmetric.losses`; means and covariances are those of the global
        batch.

    Returns:
      Scalar float32 or wider.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x dim + dim^2), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
      >>> print(f"{vicreg_loss(x, x):.4f}")
      12.3750

    Source: Bardes, Ponce, LeCun. VICReg: Variance-Invariance-Covariance Regularization
    for Self-Supervised Learning. ICLR 2022. arXiv:2105.04906, equations 1 to 6.
    """
    function = "vicreg_loss"
    sides = [_checks.embeddings(function, name, a) for name, a in (("x", x), ("y", y))]
    if sides[0].shape != sides[1].shape:
        must = f"have shape {sides[0].shape} like `x`"
        got, remedy = str(sides[1].shape), "Row i of both is the same sample."
        raise ValueError(_checks.text(function, "y", must, got, remedy))
    where = _checks.mask(function, "where", where, sides[0], "x")
    dtype = _numerics.accumulation_dtype(*sides)
    number = partial(_checks.number, function, dtype=dtype, at_least=0)
    hyper = (
        number("invariance_weight", invariance_weight),
        number("variance_weight", variance_weight),
        number("covariance_weight", covariance_weight),
        number("epsilon", epsilon),
    )
    products = _checks.precision(function, precision)
    return _vicreg(*sides, where, hyper, (products, axis_name))


@partial(jax.jit, static_argnames="options")
def _vicreg(
    x: jax.Array, y: jax.Array, where: jax.Array, hyper: tuple, options: tuple
) -> jax.Array:
    """Sum over the rows of all devices, then compare coordinates."""
    invariance_weight, variance_weight, covariance_weight, epsilon = hyper
    precision, axis_name = options
    dtype, dim = _numerics.accumulation_dtype(x, y), x.shape[1]

    def over_devices(a: jax.Array) -> jax.Array:
        return a if axis_name is None else lax.psum(a, axis_name)

    is_bad = ~_numerics.is_finite(x, where) | ~_numerics.is_finite(y, where)
    is_good = over_devices(is_bad.astype(jnp.int32)) == 0
    x, y = (jnp.where(where[:, None], side, 0).astype(dtype) for side in (x, y))
    count = over_devices(jnp.sum(where, dtype=dtype))
    squares = over_devices(jnp.sum((x - y) ** 2))
    loss = invariance_weight * _numerics.quotient(squares, count * dim)
    # With one row there is no variance; 0 / 0 becomes 0.
    degrees = jnp.where(count > 1, count - 1, 0)
    for side in (x, y):
        mean = _numerics.quotient(over_devices(jnp.sum(side, 0)), count)
        side = jnp.where(where[:, None], side - mean[None, :], 0)
        products = lax.dot_general(side, side, (((0,), (0,)), ((), ())), precision)
        covariance = _numerics.quotient(over_devices(products), degrees)
        variance = jnp.diagonal(covariance)
        lack = _numerics.relu(1 - _numerics.safe_sqrt(variance + epsilon))
        spread = jnp.where(degrees > 0, jnp.sum(lack) / dim, 0)
        is_crossed = ~jnp.eye(dim, dtype=bool)
        crossed = jnp.sum(jnp.where(is_crossed, covariance, 0) ** 2) / dim
        loss += variance_weight / 2 * spread + covariance_weight * crossed
    return _rows.poisoned(loss, is_good)  # pyright: ignore (a scalar stays one)


def shrinkage_loss(
    predictions: jax.Array,
    targets: jax.Array,
    *,
    a: ArrayLike = 10.0,
    c: ArrayLike = 0.2,
    target_weight: bool = True,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Regress, and shrink the squared error where it is small already.

    L = mean over elements of exp(t) e^2 / (1 + exp(a (c - |e|))),   e = prediction - t

    Easy samples far outnumber the hard ones in dense regression (similarity maps of
    trackers); below `c` their error counts less and less. `target_weight=False` leaves
    out exp(t), as many implementations do. No existing row: 0.

    Args:
      predictions: [batch] or [batch, ...] floating.
      targets: of the same shape, usually in 0..1.
      a: how fast the weight drops around `c`; a number or a scalar array.
      c: the error at which a weight is one half.
      target_weight: whether large targets weigh more.
      where: [batch] bool, which rows exist. weights: [batch], how much a row counts.
      reduction: over elements; see `jaxmetric.losses`.
      axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(elements), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> print(f"{shrinkage_loss(jnp.array([0.2]), jnp.array([0.0])):.4f}")
      0.0200

    Source: Lu, Ma, Ni, Yang, Reid, Yang. Deep Regression Tracking with Shrinkage Loss.
    ECCV 2018, equation 6.
    """
    function = "shrinkage_loss"
    sides = [
        _rows_of_numbers(function, "predictions", predictions),
        _rows_of_numbers(function, "targets", targets),
    ]
    predictions, targets = sides
    if predictions.shape != targets.shape:
        must = f"have shape {predictions.shape} like `predictions`"
        got, remedy = str(targets.shape), "Give one target an element."
        raise ValueError(_checks.text(function, "targets", must, got, remedy))
    dtype = _numerics.accumulation_dtype(*sides)
    where = _checks.mask(function, "where", where, predictions, "predictions")
    if weights is not None:
        weights = _checks.weights(function, weights, predictions.shape[0], dtype)
    number = partial(_checks.number, function, dtype=dtype)
    hyper = (number("a", a), number("c", c))
    reductions.check_reduction(function, reduction)
    options = (bool(target_weight), reduction, axis_name)
    return _shrinkage(predictions, targets, where, weights, hyper, options)


@partial(jax.jit, static_argnames="options")
def _shrinkage(
    predictions: jax.Array,
    targets: jax.Array,
    where: jax.Array,
    weights: jax.Array | None,
    hyper: tuple,
    options: tuple,
) -> jax.Array | LossStats:
    """One term an element; `e^2 sigmoid(a (|e| - c))` overflows nowhere."""
    (a, c), (target_weight, reduction, axis_name) = hyper, options
    dtype = _numerics.accumulation_dtype(predictions, targets)
    batch = where.shape[0]
    is_bad = ~_numerics.is_finite(predictions, where)
    is_bad = (is_bad | ~_numerics.is_finite(targets, where)).astype(jnp.int32)
    is_bad = is_bad if axis_name is None else lax.psum(is_bad, axis_name)
    predictions, target = (
        jnp.where(where[:, None], side.reshape(batch, -1), 0).astype(dtype)
        for side in (predictions, targets)
    )
    error = predictions - target
    terms = error**2 * jax.nn.sigmoid(a * (_numerics.absolute(error) - c))
    if target_weight:
        terms *= jnp.exp(target)
    is_term = jnp.broadcast_to(where[:, None], terms.shape)
    stats = _rows.pair_terms(terms, is_term)
    loss = reductions.reduce(stats, reduction, weights=weights, axis_name=axis_name)
    return _rows.poisoned(loss, is_bad == 0)


def _rows_of_numbers(function: str, argument: str, values: ArrayLike) -> jax.Array:
    """Return [batch, ...] floating point numbers as an array."""
    array = jnp.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        must, remedy = "be floating point", f"Use {argument}.astype(jnp.float32)."
        got = str(array.dtype)
        raise TypeError(_checks.text(function, argument, must, got, remedy))
    if array.ndim == 0 or array.size == 0:
        must, got = "have shape (rows, ...)", str(array.shape)
        remedy = "Give at least one number."
        raise ValueError(_checks.text(function, argument, must, got, remedy))
    return array
