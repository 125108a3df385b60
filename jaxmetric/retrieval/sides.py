"""Queries and references: checked, gathered and prepared for a search.

A search needs the order of the distances, not the distances. So roots and scales are
left out, and care goes where rounding could decide an order: whole-number rows stay
whole, and pairs too close for the product form are settled in difference form.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _geometry, _numerics, _rows, pairs
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
    comparison = Comparison(
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
    return _without_needless_axis(comparison)


def positive_ints(
    function: str, argument: str, values: Sequence[int], remedy: str
) -> tuple[int, ...]:
    """Return a sequence of positive Python ints as a tuple; one int is one of them."""
    numbers = tuple(values) if isinstance(values, Sequence | np.ndarray) else (values,)
    for number in numbers:
        is_int = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not is_int or number < 1:
            must = "hold positive ints"
            raise ValueError(
                _checks.text(function, argument, must, repr(number), remedy)
            )
    return tuple(int(number) for number in numbers)


def one_positive_int(function: str, argument: str, value: object, remedy: str) -> int:
    """Return a positive Python int."""
    is_int = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_int or value < 1:  # pyright: ignore (an int)
        must = "be a positive int"
        raise ValueError(_checks.text(function, argument, must, repr(value), remedy))
    return int(value)  # pyright: ignore (an int)


def on_host(function: str, argument: str, values: ArrayLike) -> np.ndarray:
    """Return a NumPy array, for what is done on the host; refuse a traced one."""
    try:
        return np.asarray(values)
    except jax.errors.TracerArrayConversionError as error:
        must, got = "hold numbers that are known", "a traced array"
        remedy = "Call it outside of jax.jit, vmap and shard_map."
        text = _checks.text(function, argument, must, got, remedy)
        raise TypeError(text) from error


def equally_many(function: str, argument: str, values: Any) -> jax.Array:
    """Return one array of a pytree of arrays that must have equally many rows."""
    leaves = jax.tree.leaves(values)
    lengths = {np.shape(leaf)[:1] for leaf in leaves}
    if len(lengths) != 1 or () in lengths or (0,) in lengths:
        must, got = "hold arrays with equally many rows", "none"
        if leaves:
            got = "shapes " + ", ".join(str(np.shape(leaf)) for leaf in leaves)
        remedy = 'Use what a metric returns with reduction="none".'
        raise ValueError(_checks.text(function, argument, must, got, remedy))
    return jnp.asarray(leaves[0])


def in_order_of(example: Any, values: Any) -> Any:
    """Return a dict in the order of another: a compiled function sorts its keys."""
    if not isinstance(example, dict):
        return values
    return {name: values[name] for name in example}


def check_num_candidates(function: str, k: int, n: int, *, is_self: bool) -> None:
    """Require at most as many neighbours as a query has candidates among n rows."""
    num_candidates = n - is_self
    if k > num_candidates:
        must = f"be at most {num_candidates}, the number of candidates"
        must += " without the query itself" if is_self else ""
        remedy = f"Use k={num_candidates}." if num_candidates else "Give two rows."
        raise ValueError(_checks.text(function, "k", must, str(k), remedy))


def _without_needless_axis(comparison: Comparison) -> Comparison:
    """Return the comparison without its axis where it is the same on all devices."""
    axis_name = comparison.axis_name
    if axis_name is None:
        return comparison
    if axis_name not in _numerics.varying_axes(lax.axis_index(axis_name)):
        return comparison  # JAX does not track what varies
    arrays = (comparison.x, comparison.y, comparison.anchors, comparison.references)
    leaves = jax.tree.leaves(arrays)
    varies = any(axis_name in _numerics.varying_axes(a) for a in leaves)
    return comparison if varies else dataclasses.replace(comparison, axis_name=None)


def to_search(
    comparison: Comparison, geometry: Geometry, axis_name: str | None = None
) -> tuple[Comparison, Geometry]:
    """Return both for a search, where only the order of the distances matters.

    With an `axis_name` the devices of the axis decide together how rows are prepared.
    """
    if comparison.distance == "euclidean":
        # Squares have the same order and cost no root.
        comparison = dataclasses.replace(comparison, distance="sqeuclidean")
    geometry = lax.stop_gradient(geometry)
    if is_expanded(geometry, comparison.distance):
        geometry = _without_needless_centre(geometry, axis_name)
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


def settle_kinds(block: _rows.Block, axis_name: str | None = None) -> jax.Array:
    """Return [b, n] distances that tell relevant from irrelevant near pairs.

    With an `axis_name` the other references of the rows are on the devices of the axis.
    """
    is_near = near(block)
    if is_near is None:
        return block.distances
    # The order of near pairs matters where both kinds are among them.
    kinds = [jnp.any(is_near & kind, -1) for kind in (block.positive, block.negative)]
    if axis_name is not None:
        kinds = [lax.psum(kind.astype(jnp.int32), axis_name) > 0 for kind in kinds]
    return settle(block, is_near, kinds[0] & kinds[1])


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


def _without_needless_centre(geometry: Geometry, axis_name: str | None) -> Geometry:
    """Take the centre back where whole-number rows are exact without it.

    Their squared distances are then exact whatever the order of summation, so equal
    ones are equal and none drowns in the noise of the product form.
    """
    x, y = geometry.x * geometry.scale, geometry.y * geometry.scale
    norms = jnp.max(jnp.sum(x * x, -1)) + jnp.max(jnp.sum(y * y, -1))
    is_exact = _NOISE * jnp.finfo(x.dtype).eps * norms < 1
    is_exact &= jnp.all(x == jnp.round(x)) & jnp.all(y == jnp.round(y))
    if axis_name is not None:
        is_exact = lax.pmin(is_exact.astype(jnp.int32), axis_name) > 0
    return geometry._replace(
        x_centred=jnp.where(is_exact, geometry.x, geometry.x_centred),
        y_centred=jnp.where(is_exact, geometry.y, geometry.y_centred),
    )
