"""Queries and keys that belong together row by row: who is whose, on all devices.

Row i of the queries belongs to row i of the keys, by index. With `axis_name` these are
rows of the global arrays, so a query's own key may be on another device.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _geometry, _numerics, _rows, pairs
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Geometry, Precision


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["comparison", "own", "exists"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class PairedRows:
    """Queries against all keys, or the other way round.

    Attributes:
      comparison: the negatives of its masks are the rows that belong to somebody else.
      own: [m] int32, the row of the other side that belongs to each row.
      exists: [m] bool, whether both exist.
    """

    comparison: Comparison
    own: jax.Array
    exists: jax.Array

    def own_distances(self, geometry: Geometry) -> jax.Array:
        """Return [m] distances of the rows that belong together."""
        rows = jnp.arange(self.own.shape[0])
        distance = self.comparison.distance
        return _geometry.pair_distances(geometry, distance, rows, self.own)


def compare(
    function: str,
    queries: ArrayLike,
    keys: ArrayLike,
    *,
    distance: Distance,
    precision: Precision,
    labels: ArrayLike | None,
    ref_labels: ArrayLike | None,
    where: ArrayLike | None,
    ref_where: ArrayLike | None,
    weights: ArrayLike | None,
    axis_name: str | None,
) -> tuple[Comparison, tuple[bool, bool]]:
    """Check the arguments of a paired loss; also tell whether two of them were given.

    Those are `ref_where` and `labels`. In their place stands something of the same
    shape, until it is known how many keys there are on all devices.
    """
    x = _checks.embeddings(function, "queries", queries)
    y = _checks.embeddings(function, "keys", keys)
    for name, rows in (("queries", x), ("keys", y)):
        _checks.not_explicit(function, name, rows)
    _checks.same_width(function, "keys", y, x, of="queries")
    if y.shape[0] < x.shape[0] and axis_name is None:
        raise ValueError(_too_few_keys(function, x.shape[0], y.shape[0]))
    x_where = _checks.mask(function, "where", where, x, "queries")
    y_where = _checks.mask(function, "ref_where", ref_where, y, "keys")
    if weights is not None:
        dtype = _numerics.accumulation_dtype(x)
        weights = _checks.weights(function, weights, x.shape[0], dtype)
    x_labels = jnp.arange(x.shape[0], dtype=jnp.int32)
    y_labels = jnp.arange(y.shape[0], dtype=jnp.int32)
    if labels is not None:
        x_labels = _checks.integers(function, "labels", labels, x, "queries")
        ref_labels = _labels_of_keys(function, x_labels, ref_labels, x, y)
        y_labels = _checks.integers(function, "ref_labels", ref_labels, y, "keys")
        x_labels, y_labels = _checks.alike(x_labels, y_labels)
    elif ref_labels is not None:
        must, remedy = "come with `labels`", "Pass both, or neither."
        raise ValueError(_checks.text(function, "ref_labels", must, "it alone", remedy))
    _geometry.check_distance(function, distance, x, y)
    comparison = Comparison(
        x=x,
        y=y,
        anchors=pairs.Side(x_labels, x_where, None, None),
        references=pairs.Side(y_labels, y_where, None, None),
        weights=weights,
        is_valid=jnp.array(True),
        distance=distance,
        precision=_checks.precision(function, precision),
        axis_name=axis_name,
    )
    return comparison, (ref_where is not None, labels is not None)


def of_queries(
    function: str, comparison: Comparison, given: tuple[bool, bool]
) -> PairedRows:
    """Return the queries against the keys of all devices.

    Without a `ref_where` of their own, keys exist where their queries do, and further
    keys all. Without labels every row is a class of its own; with them, rows of the
    same label are no negatives. Neither are the rows that belong together, which have
    the same id.
    """
    has_where, has_labels = given
    comparison = _rows.gather(comparison)
    x, y, dtype = comparison.x, comparison.y, comparison.dtype
    assert y is not None
    anchors, references = comparison.anchors, comparison.references
    is_query = _rows.gather_rows(anchors.where, comparison.axis_name)
    num_queries, num_keys = is_query.shape[0], references.where.shape[0]
    if num_keys < num_queries:
        raise ValueError(_too_few_keys(function, num_queries, num_keys))
    own = jnp.arange(comparison.num_rows, dtype=jnp.int32)
    if comparison.axis_name is not None:
        own += lax.axis_index(comparison.axis_name) * comparison.num_rows
    rows = jnp.arange(num_keys, dtype=jnp.int32)
    is_key = references.where
    if not has_where:
        further = num_keys - num_queries
        is_key = jnp.pad(is_query, (0, further), constant_values=True)
    labels, ref_labels = own, rows
    if has_labels:
        labels, ref_labels = anchors.labels, references.labels
    # Widened here: the gradients of two directions are not added in half precision.
    comparison = dataclasses.replace(
        comparison,
        x=x.astype(dtype),
        y=y.astype(dtype),
        anchors=pairs.Side(labels, anchors.where, own, None),
        references=pairs.Side(ref_labels, is_key, rows, None),
    )
    return PairedRows(comparison, own, anchors.where & is_key[own])


def of_keys(queries: PairedRows) -> PairedRows:
    """Return each query's own key against the queries of all devices."""
    forward, own = queries.comparison, queries.own
    gather = partial(_rows.gather_rows, axis_name=forward.axis_name)
    x, y, references = forward.x, forward.y, forward.references
    assert y is not None
    distance = forward.distance
    if callable(distance):
        distance = partial(_transposed, distance)
    anchors = pairs.Side(references.labels[own], references.where[own], own, None)
    comparison = dataclasses.replace(
        forward,
        x=y[own],
        y=gather(x),
        anchors=anchors,
        references=jax.tree.map(gather, forward.anchors),
        distance=distance,
    )
    return PairedRows(comparison, own, queries.exists)


def _labels_of_keys(
    function: str,
    labels: jax.Array,
    ref_labels: ArrayLike | None,
    x: jax.Array,
    y: jax.Array,
) -> ArrayLike:
    """Return the labels of the keys: those of their queries unless they are given."""
    if ref_labels is not None:
        return ref_labels
    if x.shape[0] != y.shape[0]:
        must, got = "come with `labels` where there are further keys", "None"
        remedy = "Pass one integer a key."
        raise ValueError(_checks.text(function, "ref_labels", must, got, remedy))
    return labels


def _too_few_keys(function: str, num_queries: int, num_keys: int) -> str:
    must = f"have at least the {num_queries} rows of `queries`"
    remedy = "Row i of the queries belongs to row i of the keys."
    return _checks.text(function, "keys", must, f"{num_keys} rows", remedy)


def _transposed(distance: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return a callable's distances of queries y to keys x, as [keys, queries]."""
    return distance(y, x).T
