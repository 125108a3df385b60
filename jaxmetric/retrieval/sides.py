"""Queries and references: checked, gathered and prepared for a search.

A search needs the order of the distances, not the distances. So roots and scales are
left out, and care goes where rounding could decide an order: whole-number rows stay
whole, and pairs too close for the product form are settled in difference form.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _geometry, _rows, pairs
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Geometry

# Up to this many units in the last place, a distance in product form is noise.
_NOISE = 64


def compare(
    function: str,
    query: ArrayLike,
    query_labels: ArrayLike | None,
    reference: ArrayLike | None,
    reference_labels: ArrayLike | None,
    *,
    distance: Distance,
    where: ArrayLike | None,
    ref_where: ArrayLike | None,
    axis_name: str | None,
) -> Comparison:
    """Check the arguments that retrieval functions share.

    Without `query_labels` (a search that knows no classes) all labels are 0.
    """
    x = _checks.embeddings(function, "query", query)
    labels = jnp.zeros(x.shape[0], jnp.int32)
    if query_labels is not None:
        labels = _checks.integers(function, "query_labels", query_labels, x, "query")
    where = _checks.mask(function, "where", where, x, "query")
    y, anchors = None, pairs.Side(labels, where, None, None)
    references = anchors
    if reference is None:
        others = dict(reference_labels=reference_labels, ref_where=ref_where)
        for name, value in others.items():
            if value is not None:
                must, got = "come with `reference`", "it alone"
                remedy = "Pass both, or neither to compare the queries with each other."
                raise ValueError(_checks.text(function, name, must, got, remedy))
    else:
        y = _checks.embeddings(function, "reference", reference)
        _checks.same_width(function, "reference", y, x, of="query")
        ref_labels = jnp.zeros(y.shape[0], jnp.int32)
        if query_labels is not None:
            name = "reference_labels"
            if reference_labels is None:
                must, remedy = "come with `reference`", "Pass one integer a reference."
                raise ValueError(_checks.text(function, name, must, "None", remedy))
            ref_labels = _checks.integers(
                function, name, reference_labels, y, "reference"
            )
            labels, ref_labels = _checks.alike(labels, ref_labels)
        ref_where = _checks.mask(function, "ref_where", ref_where, y, "reference")
        anchors = anchors._replace(labels=labels)
        references = pairs.Side(ref_labels, ref_where, None, None)
    _geometry.check_distance(function, distance, x, y)
    return Comparison(
        x=x,
        y=y,
        anchors=anchors,
        references=references,
        weights=None,
        is_valid=jnp.array(True),
        distance=distance,
        precision=lax.Precision.HIGHEST,
        axis_name=axis_name,
    )


def to_search(
    comparison: Comparison, geometry: Geometry
) -> tuple[Comparison, Geometry]:
    """Return both for a search, where only the order of the distances matters."""
    if comparison.distance == "euclidean":
        # Squares have the same order and cost no root.
        comparison = dataclasses.replace(comparison, distance="sqeuclidean")
    geometry = lax.stop_gradient(geometry)
    if is_expanded(geometry, comparison.distance):
        geometry = _without_needless_centre(geometry)
    # Without the scale, distances stay in the range of the format.
    return comparison, geometry._replace(scale=jnp.ones_like(geometry.scale))


def is_expanded(geometry: Geometry, distance: Distance) -> bool:
    """Return whether squared distances are computed as |x|^2 + |y|^2 - 2 <x, y>."""
    width = geometry.x.shape[-1]
    return distance == "sqeuclidean" and width > _geometry.DIFFERENCE_DIM


def near(block: _rows.Block) -> jax.Array | None:
    """Return [b, n] pairs whose distance is noise; None where there are none."""
    if is_expanded(block.geometry, block.distance):
        return block.distances == 0
    if block.distance == "cosine":
        return block.distances <= _NOISE * jnp.finfo(block.distances.dtype).eps
    return None


def settle(
    block: _rows.Block, is_near: jax.Array, is_unsettled: jax.Array
) -> jax.Array:
    """Return [b, n] distances, those of near pairs of unsettled rows recomputed.

    Args:
      block: of prepared rows.
      is_near: [b, n] bool.
      is_unsettled: [b] bool, rows whose result depends on the order of near pairs.
    """
    rows, distance = block.geometry, block.distance
    unsettled_first = jnp.argsort(~is_unsettled)

    def recompute(turn: jax.Array, distances: jax.Array) -> jax.Array:
        # One row at a time: its differences to all references are [n, dim] numbers.
        i = unsettled_first[turn]
        exists = (rows.x_exists[i], rows.y_exists)
        exact = _geometry.row_distances(
            rows.x[i][None, :], rows.y, rows.scale, exists, distance
        )
        return distances.at[i].set(jnp.where(is_near[i], exact, distances[i]))

    # A loop without turns where all is settled: unlike a `cond`, it stays one under
    # `vmap`.
    num_turns = jnp.sum(is_unsettled, dtype=jnp.int32)
    return lax.fori_loop(0, num_turns, recompute, block.distances)


def _without_needless_centre(geometry: Geometry) -> Geometry:
    """Take the centre back where whole-number rows are exact without it.

    Their squared distances are then exact whatever the order of summation, so equal
    ones are equal and none drowns in the noise of the product form.
    """
    x, y = geometry.x * geometry.scale, geometry.y * geometry.scale
    norms = jnp.max(jnp.sum(x * x, -1)) + jnp.max(jnp.sum(y * y, -1))
    is_exact = _NOISE * jnp.finfo(x.dtype).eps * norms < 1
    is_exact &= jnp.all(x == jnp.round(x)) & jnp.all(y == jnp.round(y))
    return geometry._replace(
        x_centred=jnp.where(is_exact, geometry.x, geometry.x_centred),
        y_centred=jnp.where(is_exact, geometry.y, geometry.y_centred),
    )
