"""Averages of per-query metrics class by class."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks
from jaxmetric.retrieval import sides

__all__ = ["PerClass", "per_class"]


class PerClass(NamedTuple):
    """What `per_class` returns.

    Attributes:
      labels: [classes] integer, the classes.
      metrics: as the metrics that went in, with [classes] in place of [q].
    """

    labels: jax.Array
    metrics: Any


def per_class(
    metrics: Any, labels: ArrayLike, *, classes: ArrayLike | None = None
) -> PerClass:
    """Return the average of each metric over the queries of each class.

    Queries that are left out of a metric (NaN) are left out of its averages; a class
    without any other has NaN. Whole numbers are added instead: `num_queries` says how
    many queries of a class were counted. The mean over classes, where each counts the
    same however many queries it has, is `jnp.nanmean` of an average.

    Args:
      metrics: what a metric returns with reduction="none": a dict of [q] arrays, or
        one such array.
      labels: [q] integer, the labels of the queries.
      classes: [classes] distinct integers, the classes in the order that is wanted.
        None for those of `labels`, ascending; under `jit` they must be given.

    Returns:
      `PerClass(labels, metrics)`.

    Raises:
      ValueError: shapes do not fit. TypeError: dtypes do not fit, or `labels` are
        traced and `classes` are missing.

    Memory: O(q + classes).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [1.0], [3.0], [7.0]])
      >>> labels = jnp.array([0, 0, 1, 1])
      >>> from jaxmetric.retrieval import evaluate
      >>> found = per_class(evaluate(x, labels, reduction="none"), labels)
      >>> print(found.labels, found.metrics["precision_at_1"])
      [0 1] [1.  0.5]
      >>> print(f"{jnp.nanmean(found.metrics['precision_at_1']):.2f}")
      0.75
    """
    function = "per_class"
    rows = sides.equally_many(function, "metrics", metrics)
    integers = _checks.integers(function, "labels", labels, rows, "metrics")
    if classes is None:
        try:
            classes = np.unique(np.asarray(integers))
        except jax.errors.TracerArrayConversionError as error:
            must, got = "be given for traced `labels`", "None"
            remedy = "Pass classes=jnp.arange(num_classes)."
            text = _checks.text(function, "classes", must, got, remedy)
            raise TypeError(text) from error
    wanted = _checks.label_rows(function, "classes", classes)
    integers, wanted = _checks.alike(integers, wanted)
    found = _per_class(metrics, integers, wanted)
    return found._replace(metrics=sides.in_order_of(metrics, found.metrics))


@jax.jit
def _per_class(metrics: Any, labels: jax.Array, classes: jax.Array) -> PerClass:
    """Find each query's class, then add up."""
    num_classes = classes.shape[0]
    iota = jnp.arange(num_classes, dtype=jnp.int32)
    ordered, order = lax.sort((classes, iota), num_keys=1)
    place = jnp.searchsorted(ordered, labels).astype(jnp.int32)
    place = jnp.minimum(place, num_classes - 1)
    # Queries of no wanted class go to a slot of their own, which is cut off.
    slot = jnp.where(ordered[place] == labels, order[place], num_classes)

    def add(values: jax.Array) -> jax.Array:
        sums = jnp.zeros(num_classes + 1, values.dtype).at[slot].add(values)
        return sums[:num_classes]

    def average(values: jax.Array) -> jax.Array:
        if not jnp.issubdtype(values.dtype, jnp.floating):
            return add(values.astype(jnp.int32))
        is_counted = ~jnp.isnan(values)
        count = add(is_counted.astype(values.dtype))
        total = add(jnp.where(is_counted, values, 0))
        return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), jnp.nan)

    return PerClass(classes, jax.tree.map(average, jax.tree.map(jnp.asarray, metrics)))
