"""Confidence intervals of metrics, by drawing the queries again and again."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _checks
from jaxmetric.retrieval import sides

__all__ = ["Interval", "bootstrap"]


class Interval(NamedTuple):
    """A metric and its confidence interval.

    Attributes:
      value: of the queries as they are.
      low, high: the ends of the interval.
    """

    value: jax.Array
    low: jax.Array
    high: jax.Array


def bootstrap(
    key: jax.Array,
    metrics: Any,
    *,
    statistic: Callable[[Any], Any] | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
) -> Any:
    """Return confidence intervals of metrics, by resampling the queries.

    As many queries as are counted are drawn with replacement, `num_samples` times; the
    interval holds the middle share `confidence` of the means (the percentile method).
    It tells how the metric would vary over other queries from where these came from,
    for the same references; queries are taken to be independent.

    A metric is averaged over the queries that are counted in it (not NaN); without any
    all three numbers are NaN. Whole numbers (`num_queries`) are left out. Metrics of
    the same queries are resampled together.

    Args:
      key: a PRNG key; the result is a function of the arguments alone.
      metrics: what a metric returns with reduction="none": a dict of [q] arrays, or
        one. With a `statistic`, any pytree of arrays with equally many rows.
      statistic: a function of resampled rows that returns a pytree of scalars, in
        place of the mean; `lambda pairs: verification(*pairs)`, say.
      num_samples: how often queries are drawn.
      confidence: between 0 and 1.

    Returns:
      An `Interval(value, low, high)` of scalars for each floating metric, in a dict
      where a dict came in; with a `statistic`, for each scalar that it returns.

    Raises:
      ValueError: shapes or ranges do not fit.

    Memory: O(q + num_samples) numbers a metric. Time: O(num_samples q).

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> is_right = (jnp.arange(100) % 4 != 0).astype(jnp.float32)
      >>> value, low, high = bootstrap(jax.random.key(0), is_right)
      >>> print(f"{value:.2f}, 95 % in {low:.2f} to {high:.2f}")
      0.75, 95 % in 0.67 to 0.83

    Source: Efron. Bootstrap Methods: Another Look at the Jackknife. Annals of
    Statistics, 1979.
    """
    function = "bootstrap"
    sides.one_positive_int(function, "num_samples", num_samples, "Use 1000.")
    is_number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
    if not is_number or not 0 < confidence < 1:
        must, remedy = "lie between 0 and 1", "Use confidence=0.95."
        text = _checks.text(function, "confidence", must, repr(confidence), remedy)
        raise ValueError(text)
    if statistic is None:
        metrics = _floating(metrics)
    sides.equally_many(function, "metrics", metrics)
    options = (statistic, int(num_samples), float(confidence))
    intervals = _bootstrap(key, metrics, options)
    return intervals if statistic else sides.in_order_of(metrics, intervals)


@partial(jax.jit, static_argnames="options")
def _bootstrap(key: jax.Array, metrics: Any, options: tuple) -> Any:
    """Compute the statistic of the rows as they are, and of draw after draw."""
    statistic, num_samples, confidence = options
    metrics = jax.tree.map(jnp.asarray, metrics)
    if statistic is None:
        metrics = jax.tree.map(_counted_first, metrics)
        is_column = lambda node: isinstance(node, _Column)  # noqa: E731
        value = jax.tree.map(lambda column: column.mean, metrics, is_leaf=is_column)

        def of_draw(key: jax.Array) -> Any:
            # One key for all: metrics of the same queries draw the same ones.
            draw = partial(_mean_of_draw, key)
            return jax.tree.map(draw, metrics, is_leaf=is_column)
    else:
        num_rows = jax.tree.leaves(metrics)[0].shape[0]
        value = statistic(metrics)

        def of_draw(key: jax.Array) -> Any:
            rows = jax.random.randint(key, (num_rows,), 0, num_rows, jnp.int32)
            return statistic(jax.tree.map(lambda a: a[rows], metrics))

    draws = lax.map(of_draw, jax.random.split(key, num_samples))
    tail = (1 - confidence) / 2

    def interval(value: jax.Array, draws: jax.Array) -> Interval:
        ends = jnp.quantile(draws, jnp.array([tail, 1 - tail], draws.dtype))
        return Interval(jnp.asarray(value), *ends)

    return jax.tree.map(interval, value, draws)


class _Column(NamedTuple):
    """A metric of [q] queries: those that are counted come first.

    Attributes:
      values: [q], 0 for the others.
      number: scalar int32, how many are counted.
      mean: scalar.
    """

    values: jax.Array
    number: jax.Array
    mean: jax.Array


def _counted_first(values: jax.Array) -> _Column:
    """Return a [q] metric as a column."""
    is_counted = ~jnp.isnan(values)
    number = jnp.sum(is_counted, dtype=jnp.int32)
    values = jnp.where(is_counted, values, 0)[jnp.argsort(~is_counted)]
    return _Column(values, number, _mean(values, number))


def _mean_of_draw(key: jax.Array, column: _Column) -> jax.Array:
    """Return the mean of as many values as there are, drawn with replacement."""
    q = column.values.shape[0]
    limit = jnp.maximum(column.number, 1)
    rows = jax.random.randint(key, (q,), 0, limit, jnp.int32)
    is_drawn = jnp.arange(q) < column.number
    return _mean(jnp.where(is_drawn, column.values[rows], 0), column.number)


def _mean(values: jax.Array, number: jax.Array) -> jax.Array:
    """Return the sum over the number; NaN where that is 0."""
    safe = jnp.where(number > 0, number, 1).astype(values.dtype)
    return jnp.where(number > 0, jnp.sum(values) / safe, jnp.nan)


def _floating(metrics: Any) -> Any:
    """Return the metrics without whole numbers, which are no averages."""
    if not isinstance(metrics, dict):
        return metrics
    kinds = {name: jnp.result_type(values) for name, values in metrics.items()}
    is_kept = {name: jnp.issubdtype(kind, jnp.floating) for name, kind in kinds.items()}
    return {name: values for name, values in metrics.items() if is_kept[name]}
