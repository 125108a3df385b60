"""Two sides of a comparison, prepared once, and the distances between them.

`prepare` does what is done once for all rows: masked rows become zeros, the numbers
are scaled into the middle of the format's range, the cosine's rows are normalised.
`block_distances` then gives a block of rows against all references, `pair_distances`
chosen rows against chosen references.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _checks, _numerics

DistanceName = Literal["euclidean", "sqeuclidean", "cosine", "dot", "manhattan"]
Distance = DistanceName | Callable[[jax.Array, jax.Array], jax.Array]
Precision = str | lax.Precision | lax.DotAlgorithmPreset

NAMES = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")

# Up to this width the difference form costs about what a matrix product does.
DIFFERENCE_DIM = 32


class Geometry(NamedTuple):
    """Both sides in the accumulation dtype.

    Attributes:
      x: [m, dim] anchor rows and y: [n, dim] references, scaled (Euclidean and
        Manhattan) or of unit norm (cosine).
      x_centred, y_centred: the same with a common offset taken out, for products.
      x_exists, y_exists: [m], [n] bool, False for a zero row under the cosine.
      scale: scalar power of two by which the rows were divided.
      y_columns: [dim, n] `y_centred` once more, for blocks that are differentiated, or
        None. See `columns`.
    """

    x: jax.Array
    y: jax.Array
    x_centred: jax.Array
    y_centred: jax.Array
    x_exists: jax.Array
    y_exists: jax.Array
    scale: jax.Array
    y_columns: jax.Array | None = None


def check_distance(
    function: str, distance: object, x: jax.Array, y: jax.Array | None = None
) -> None:
    """Require a named distance, or a callable that fits [m, dim] and [n, dim] rows."""
    if not callable(distance):
        _checks.choice(function, "distance", distance, NAMES, usual="euclidean")
        return
    y = x if y is None else y
    dtype = _numerics.accumulation_dtype(x, y)
    rows = (jax.ShapeDtypeStruct(side.shape, dtype) for side in (x, y))
    found = jnp.shape(jax.eval_shape(distance, *rows))
    if found != (x.shape[0], y.shape[0]):
        must = "map x[m, d] and y[n, d] to an array of shape [m, n]"
        remedy = f"Return shape ({x.shape[0]}, {y.shape[0]}) here."
        got = f"shape {found}"
        raise ValueError(_checks.text(function, "distance", must, got, remedy))


def prepare(
    x: jax.Array,
    y: jax.Array | None,
    x_where: jax.Array,
    y_where: jax.Array | None,
    distance: Distance,
) -> Geometry:
    """Prepare [m, dim] rows and [n, dim] references (None: the rows themselves)."""
    dtype = _numerics.accumulation_dtype(x, x if y is None else y)
    # Selected before any arithmetic: a masked row may hold anything, and 0 * NaN in
    # the transpose of the matrix product would spoil good rows.
    x = jnp.where(x_where[:, None], x, 0).astype(dtype)
    is_self = y is None
    y = x if y is None else jnp.where(y_where[:, None], y, 0).astype(dtype)  # pyright: ignore
    y_where = x_where if y_where is None else y_where
    scale = jnp.ones((), dtype)
    if distance == "cosine":
        x, x_exists = _numerics.unit_rows(x)
        y, y_exists = (x, x_exists) if is_self else _numerics.unit_rows(y)
        return Geometry(x, y, x, y, x_exists, y_exists, scale)
    if distance in ("euclidean", "sqeuclidean", "manhattan"):
        # Rows that are not finite are told by NaN, and must not spoil the others.
        finite = [jnp.where(jnp.isfinite(a), a, 0) for a in lax.stop_gradient((x, y))]
        largest = jnp.maximum(*(jnp.max(jnp.abs(a)) for a in finite))
        scale = _numerics.power_of_two_above(largest)
        x = x / scale
        y = x if is_self else y / scale
    x_centred, y_centred = x, y
    if distance in ("euclidean", "sqeuclidean"):
        # |x|^2 + |y|^2 - 2<x, y> loses every digit that a common offset takes. The
        # distances do not depend on the centre, so it needs no gradient.
        count = jnp.sum(y_where, dtype=dtype)
        total = jnp.sum(finite[1] / scale, axis=0)
        centre = _numerics.quotient(total, count)
        x_centred = jnp.where(x_where[:, None], x - centre[None, :], 0)
        y_centred = x_centred
        if not is_self:
            y_centred = jnp.where(y_where[:, None], y - centre[None, :], 0)
    return Geometry(x, y, x_centred, y_centred, x_where, y_where, scale)


def take_rows(geometry: Geometry, rows: Callable[[jax.Array], jax.Array]) -> Geometry:
    """Return the geometry with `rows` applied to everything that has an anchor axis."""
    return geometry._replace(
        x=rows(geometry.x),
        x_centred=rows(geometry.x_centred),
        x_exists=rows(geometry.x_exists),
    )


def columns(geometry: Geometry) -> jax.Array:
    """Return [dim, n] centred references, to be products' other side in all blocks.

    The gradient G of a block is multiplied from both sides, G @ y and G.T @ x. Beside
    the first, XLA on CPU takes twice as long for the second as for x.T @ G, which is
    what the transpose of a product with columns asks for. The barrier keeps it from
    being turned round again.
    """
    return lax.optimization_barrier(geometry.y_centred.T)


def squared_norms(geometry: Geometry) -> tuple[jax.Array, jax.Array]:
    """Return [m] and [n] squared norms of the centred rows, of both sides."""
    x, y = geometry.x_centred, geometry.y_centred
    return jnp.sum(x * x, -1), jnp.sum(y * y, -1)


def block_distances(
    geometry: Geometry,
    distance: Distance,
    precision: Any,
    norms: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """Return [m, n] distances of the anchor rows to all references.

    `norms` are the `squared_norms`, for those who call more than once.
    """
    x, y, scale = geometry.x, geometry.y, geometry.scale
    if distance == "euclidean":
        return scale * _numerics.safe_sqrt(_squares(geometry, precision, norms))
    if distance == "sqeuclidean":
        return scale * (scale * _squares(geometry, precision, norms))
    if distance == "manhattan":
        return scale * _absolute_differences(x, y)
    if distance == "dot":
        return -_products(geometry, geometry.x_centred, precision)
    if distance == "cosine":
        d = 1 - _products(geometry, geometry.x_centred, precision)
        # Equal rows end within a few units in the last place of 0: exactly 0 then.
        return jnp.where(d > 4 * jnp.finfo(d.dtype).eps, d, 0)
    return _call(distance, x, y)


def pair_distances(
    geometry: Geometry, distance: Distance, i: jax.Array, j: jax.Array
) -> jax.Array:
    """Return the distances of anchor rows `i` to references `j`, in difference form."""
    side_x, side_y = geometry.x[i], geometry.y[j]
    exists = (geometry.x_exists[i], geometry.y_exists[j])
    return row_distances(side_x, side_y, geometry.scale, exists, distance)


def reference_pair_distances(
    geometry: Geometry, distance: Distance, i: jax.Array, j: jax.Array
) -> jax.Array:
    """Return the distances of references `i` to references `j`, in difference form."""
    exists = (geometry.y_exists[i], geometry.y_exists[j])
    return row_distances(geometry.y[i], geometry.y[j], geometry.scale, exists, distance)


def row_distances(
    x: jax.Array,
    y: jax.Array,
    scale: jax.Array,
    exists: tuple[jax.Array, jax.Array],
    distance: Distance,
) -> jax.Array:
    """Return [...] distances of prepared rows [..., dim], row against row."""
    if distance == "euclidean":
        return scale * _numerics.safe_sqrt(jnp.sum((x - y) ** 2, -1))
    if distance == "sqeuclidean":
        return scale * (scale * jnp.sum((x - y) ** 2, -1))
    if distance == "manhattan":
        return scale * jnp.sum(_numerics.absolute(x - y), -1)
    if distance == "dot":
        return -jnp.sum(x * y, -1)
    if distance == "cosine":
        # 1 - <x, y> = |x - y|^2 / 2 + (1 - |x|^2) / 2 + (1 - |y|^2) / 2, where |x|^2
        # is 1, or 0 for a row without direction.
        missing = sum((~e).astype(x.dtype) / 2 for e in exists)
        # Equal rows may still be a rounding apart where the compiler fuses the last
        # product of the normalisation with the difference.
        squares = jnp.sum((x - y) ** 2, -1)
        squares = jnp.where(squares > jnp.finfo(x.dtype).eps ** 2, squares, 0)
        return squares / 2 + missing
    pair = lambda a, b: _call(distance, a[None], b[None])[0, 0]  # noqa: E731
    for _ in range(x.ndim - 1):
        pair = jax.vmap(pair)
    return pair(x, y)


def _squares(
    geometry: Geometry, precision: Any, norms: tuple[jax.Array, jax.Array] | None
) -> jax.Array:
    """Return [m, n] squared Euclidean distances of the scaled rows."""
    xc = geometry.x_centred
    of_x, of_y = squared_norms(geometry) if norms is None else norms
    norms_of_pairs = of_x[:, None] + of_y[None, :]
    # The factor stands at the narrow side: the gradient of a pair needs no second copy.
    expansion = norms_of_pairs + _products(geometry, -2 * xc, precision)
    if xc.shape[-1] <= DIFFERENCE_DIM:
        # Values in difference form, which cancels nothing. XLA's gradient of that form
        # is many times slower than the product, and the expansion is the same
        # polynomial: d2 = sg(difference) + (expansion - sg(expansion)) has the value
        # of the first (the bracket is exactly 0) and all derivatives of the second.
        x, y = lax.stop_gradient((geometry.x, geometry.y))
        difference = jnp.sum((x[:, None, :] - y[None, :, :]) ** 2, -1)
        surrogate = difference + (expansion - lax.stop_gradient(expansion))
        return jnp.where(difference > 0, surrogate, 0)
    # Below this the expansion holds nothing but rounding: the rows count as equal.
    noise = 64 * jnp.finfo(expansion.dtype).eps * norms_of_pairs
    return jnp.where(expansion > noise, expansion, 0)


def _products(geometry: Geometry, x: jax.Array, precision: Any) -> jax.Array:
    """Return [m, n] inner products of rows with the centred references."""
    y, y_axis = geometry.y_columns, 0
    if y is None:
        y, y_axis = geometry.y_centred, 1
    return lax.dot_general(
        x,
        y,
        (((1,), (y_axis,)), ((), ())),
        precision=precision,
        preferred_element_type=x.dtype,
    )


def _absolute_differences(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return [m, n] sums of absolute coordinate differences."""
    return jnp.sum(_numerics.absolute(x[:, None, :] - y[None, :, :]), -1)


def _call(distance: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return [m, n] distances of a user's callable, in the dtype of the rows."""
    return distance(x, y).astype(x.dtype)
