"""Predictions that should go up and down with their targets, on any scale."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _numerics, _rows

__all__ = ["correlation_loss"]


def correlation_loss(
    predictions: jax.Array,
    targets: jax.Array,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Bring predictions in line with their targets, whatever scale and zero these have.

    L = 1 - r,   r = cov(p, t) / sqrt(var(p) var(t)) over the batch (Pearson)

    So a cosine need not *be* the score that people gave a pair of texts, as it must in
    a regression: it only has to go up and down with it. 0 for a perfect line upwards,
    2 for one downwards. Targets that are all equal, or fewer than two existing rows,
    say nothing: 0. Predictions that are all equal have r = 0. It is no sum of terms a
    row, so there is no `reduction`; batches of 64 rows or more tell r well.

    Args:
      predictions: [batch] floating, such as `1 - paired_distance(x, y,
        distance="cosine")`.
      targets: [batch] floating, such as the scores of the pairs.
      where: [batch] bool, which rows exist. weights: [batch], how much a row counts in
        means, variances and covariance.
      axis_name: as in `jaxmetric.losses`; the means are those of the global batch.

    Returns:
      Scalar float32 or wider.

    Raises:
      ValueError: shapes do not fit. TypeError: dtypes do not fit.

    Memory: O(batch), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> cosines, scores = jnp.array([0.1, 0.2, 0.9]), jnp.array([1.0, 2.0, 3.0])
      >>> print(f"{correlation_loss(cosines, scores):.4f}")
      0.0823

    Source: Pearson. Note on Regression and Inheritance in the Case of Two Parents.
    Proceedings of the Royal Society of London 58, 1895.
    """
    function = "correlation_loss"
    predictions, targets = (
        _numbers(function, name, values)
        for name, values in (("predictions", predictions), ("targets", targets))
    )
    if predictions.shape != targets.shape:
        must = f"have shape {predictions.shape} like `predictions`"
        got, remedy = str(targets.shape), "Give one target a prediction."
        raise ValueError(_checks.text(function, "targets", must, got, remedy))
    dtype = _numerics.accumulation_dtype(predictions, targets)
    where = _checks.mask(function, "where", where, predictions, "predictions")
    if weights is not None:
        weights = _checks.weights(function, weights, predictions.shape[0], dtype)
    return _correlation(predictions, targets, where, weights, axis_name=axis_name)


@partial(jax.jit, static_argnames="axis_name")
def _correlation(
    predictions: jax.Array,
    targets: jax.Array,
    where: jax.Array,
    weights: jax.Array | None,
    *,
    axis_name: str | None,
) -> jax.Array:
    """Sum over the rows of all devices, twice: the means, then what is around them."""
    dtype = _numerics.accumulation_dtype(predictions, targets)

    def over_devices(a: jax.Array) -> jax.Array:
        return a if axis_name is None else lax.psum(a, axis_name)

    is_bad = ~jnp.isfinite(predictions) | ~jnp.isfinite(targets)
    is_good = over_devices(jnp.sum(is_bad & where)) == 0
    rows = jnp.ones(where.shape, dtype) if weights is None else weights.astype(dtype)
    rows = jnp.where(where, rows, 0)
    # Weights of mean 1 or so: their scale must not reach the test for zero below.
    rows = rows * _numerics.quotient(jnp.ones((), dtype), over_devices(jnp.sum(rows)))

    def around_mean(values: jax.Array) -> jax.Array:
        values = jnp.where(where, values, 0).astype(dtype)
        values = values - over_devices(jnp.sum(rows * values))
        return jnp.where(where, values, 0)

    p, t = around_mean(predictions), around_mean(targets)
    covariance = over_devices(jnp.sum(rows * p * t))
    spreads = [_numerics.safe_sqrt(over_devices(jnp.sum(rows * a * a))) for a in (p, t)]
    # One root each: the product of two variances underflows long before they do.
    r = _numerics.quotient(_numerics.quotient(covariance, spreads[0]), spreads[1])
    loss = jnp.where(spreads[1] > 0, 1 - r, 0)
    return _rows.poisoned(loss, is_good)  # pyright: ignore (a scalar stays one)


def _numbers(function: str, argument: str, values: ArrayLike) -> jax.Array:
    """Return [batch] floating point numbers as an array."""
    array = jnp.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        must, remedy = "be floating point", f"Use {argument}.astype(jnp.float32)."
        got = str(array.dtype)
        raise TypeError(_checks.text(function, argument, must, got, remedy))
    if array.ndim != 1 or array.size == 0:
        must, got = "have shape (batch,)", str(array.shape)
        remedy = "Give one number a row."
        raise ValueError(_checks.text(function, argument, must, got, remedy))
    return array
