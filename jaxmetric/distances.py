"""Geometry: how far apart two embeddings are. Nothing here knows about labels.

Every distance is computed in float32 or wider whatever comes in, at the highest
matrix-product precision unless asked otherwise; equal rows are at distance exactly 0,
with gradient 0; nothing is added under a root.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _checks, _geometry, _numerics
from jaxmetric._geometry import Distance, Precision

__all__ = ["l2_normalize", "paired_distance", "pairwise_distance"]

# Numbers in the matrix of one block, so that a block stays in a CPU's cache.
_BLOCK_ELEMENTS = 2**18


def pairwise_distance(
    x: jax.Array,
    y: jax.Array | None = None,
    *,
    distance: Distance = "euclidean",
    precision: Precision = "highest",
) -> jax.Array:
    """Return the matrix of distances between the rows of two arrays.

    "euclidean"   |x_i - y_j|
    "sqeuclidean" |x_i - y_j|^2
    "cosine"      1 - <x_i, y_j> / (|x_i| |y_j|)      in [0, 2]; 1 for a zero row
    "dot"         -<x_i, y_j>
    "manhattan"   sum_d |x_id - y_jd|

    Close pairs keep their digits: the rows are centred, and where the product form
    has too few digits left a block of rows is computed in difference form. Without
    `y`, the matrix is bitwise symmetric and its diagonal exactly 0 (except "dot",
    whose diagonal is -|x_i|^2). Where a distance is 0, its gradient is 0.

    Args:
      x: [m, dim] floating.
      y: [n, dim] floating; None compares `x` with itself.
      distance: one of the names above, or a callable (x[m, dim], y[n, dim]) -> [m, n]
        whose values are taken as they are, self distances apart.
      precision: of the matrix product: "highest", "high", "default", a
        `lax.Precision` or a `lax.DotAlgorithmPreset`. Lower than "highest" rounds the
        operands on accelerators.

    Returns:
      [m, n] distances, float32 or wider.

    Raises:
      ValueError: shapes or names do not fit. TypeError: dtypes do not fit.

    Memory: O(m n).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
      >>> print(pairwise_distance(x))
      [[0. 5.]
       [5. 0.]]
    """
    function = "pairwise_distance"
    x = _checks.embeddings(function, "x", x)
    is_self = y is None
    if y is not None:
        y = _checks.embeddings(function, "y", y)
        _checks.same_width(function, "y", y, x, of="x")
    _geometry.check_distance(function, distance, x, y)
    precision = _checks.precision(function, precision)
    x_where = jnp.ones(x.shape[0], bool)
    y_where = None if y is None else jnp.ones(y.shape[0], bool)
    geometry = _geometry.prepare(x, y, x_where, y_where, distance)
    if callable(distance) or distance in ("dot", "manhattan"):
        d = _geometry.block_distances(geometry, distance, precision)
    else:
        d = _exact_by_blocks(geometry, distance, precision, is_self)
    # A product of non-finite rows may end in a comparison that is False, hence in 0.
    is_good = (
        jnp.isfinite(x).all(-1)[:, None]
        & (jnp.isfinite(x if y is None else y).all(-1)[None, :])
    )
    d = jnp.where(is_good, d, jnp.nan)
    if not is_self or distance == "dot":
        return d
    rows, columns = _indices(d.shape, 0)
    if not callable(distance):
        # Two kernels may round (i, j) and (j, i) differently; one of them serves both.
        d = jnp.where(rows < columns, d, d.T)
    return jnp.where((rows == columns) & is_good, 0, d)


def paired_distance(
    x: jax.Array, y: jax.Array, *, distance: Distance = "euclidean"
) -> jax.Array:
    """Return the distance of each row of one array to the same row of the other.

    The difference form is used, which cancels nothing: identical rows are at distance
    exactly 0, with gradient 0. Names as in `pairwise_distance`.

    Args:
      x: [m, dim] floating.
      y: [m, dim] floating.
      distance: a name, or a callable (x[1, dim], y[1, dim]) -> [1, 1] that is applied
        to one row of each at a time.

    Returns:
      [m] distances, float32 or wider.

    Raises:
      ValueError: shapes or names do not fit. TypeError: dtypes do not fit.

    Memory: O(m dim).

    Example:
      >>> import jax.numpy as jnp
      >>> print(paired_distance(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))))
      [5.]
    """
    function = "paired_distance"
    x = _checks.embeddings(function, "x", x)
    y = _checks.embeddings(function, "y", y)
    if x.shape != y.shape:
        must = f"have shape {x.shape} like `x`"
        remedy = "Use pairwise_distance for all pairs of two sets."
        raise ValueError(_checks.text(function, "y", must, f"{y.shape}", remedy))
    _geometry.check_distance(function, distance, x[:1], y[:1])
    d = paired_rows(x, y, jnp.ones(x.shape[0], bool), distance)
    # The guards at distance 0 take NaN for 0.
    is_good = jnp.isfinite(x).all(-1) & jnp.isfinite(y).all(-1)
    return jnp.where(is_good, d, jnp.nan)


def paired_rows(
    x: jax.Array, y: jax.Array, where: jax.Array, distance: Distance
) -> jax.Array:
    """Return [m] distances of checked rows; 0 for rows that do not exist."""
    geometry = _geometry.prepare(x, y, where, where, distance)
    exists = (geometry.x_exists, geometry.y_exists)
    d = _geometry.row_distances(
        geometry.x, geometry.y, geometry.scale, exists, distance
    )
    return jnp.where(where, d, 0)


def l2_normalize(x: jax.Array, *, axis: int = -1) -> jax.Array:
    """Return rows of unit Euclidean norm; a zero row stays zero with zero gradient.

    A row of norm at most 1e-6 counts as zero: its direction is rounding, and the usual
    `x / max(|x|, eps)` would give it a gradient of 1 / eps.

    Args:
      x: [...] floating; float16 and bfloat16 are computed in float32.
      axis: the axis along which the norm is taken.

    Returns:
      An array of the shape of `x`, float32 or wider.

    Raises:
      TypeError: `x` is not floating point.

    Memory: O(size of x).

    Example:
      >>> import jax.numpy as jnp
      >>> print(l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
      [[0.6 0.8]
       [0.  0. ]]
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        remedy, got = "Use x.astype(jnp.float32).", str(x.dtype)
        raise TypeError(
            _checks.text("l2_normalize", "x", "be floating point", got, remedy)
        )
    x = jnp.moveaxis(x.astype(_numerics.accumulation_dtype(x)), axis, -1)
    is_good = jnp.isfinite(x).all(-1, keepdims=True)
    return jnp.moveaxis(
        jnp.where(is_good, _numerics.unit_rows(x)[0], jnp.nan), -1, axis
    )


def _exact_by_blocks(
    geometry: _geometry.Geometry, distance: Distance, precision: object, is_self: bool
) -> jax.Array:
    """Return [m, n] Euclidean or cosine distances, by blocks of rows.

    A block with a pair too close for the product form is computed in difference form.
    """
    m, n = geometry.x.shape[0], geometry.y.shape[0]
    block = max(1, min(m, _BLOCK_ELEMENTS // n))
    num_blocks = -(-m // block)

    def split(rows: jax.Array) -> jax.Array:
        padding = num_blocks * block - m
        rows = jnp.pad(rows, ((0, padding),) + ((0, 0),) * (rows.ndim - 1))
        return rows.reshape((num_blocks, block) + rows.shape[1:])

    def one_block(part: tuple[jax.Array, ...]) -> jax.Array:
        x, x_centred, x_exists, first = part
        rows = geometry._replace(x=x, x_centred=x_centred, x_exists=x_exists)
        d = _geometry.block_distances(rows, distance, precision)
        if geometry.x.shape[-1] <= _geometry.DIFFERENCE_DIM and distance != "cosine":
            return d
        is_near = _is_near(rows, d, distance)
        if is_self:
            row, column = _indices(d.shape, first)
            is_near &= row != column
        # The difference form keeps [block, n, dim] numbers for its gradient unless
        # they are computed again.
        exact = jax.checkpoint(lambda rows: _difference_form(rows, distance))
        return lax.cond(
            jnp.any(is_near),
            lambda rows, d: jnp.where(is_near, exact(rows), d),
            lambda rows, d: d,
            rows,
            d,
        )

    first = jnp.arange(num_blocks, dtype=jnp.int32) * block
    parts = tuple(split(a) for a in (geometry.x, geometry.x_centred, geometry.x_exists))
    d = lax.map(one_block, (*parts, first))
    return d.reshape(num_blocks * block, n)[:m]


def _is_near(rows: _geometry.Geometry, d: jax.Array, distance: Distance) -> jax.Array:
    """Return [m, n] whether the product form has fewer than four digits left."""
    x, y = lax.stop_gradient((rows.x_centred, rows.y_centred))
    d, scale = lax.stop_gradient((d, rows.scale))
    norms = jnp.sum(x * x, -1)[:, None] + jnp.sum(y * y, -1)[None, :]
    squares = {
        "euclidean": (d / scale) ** 2,
        "sqeuclidean": d / scale / scale,
        "cosine": 2 * d,
    }[str(distance)]
    # The product form errs by about eps (|x|^2 + |y|^2) in the square.
    return squares <= 2**14 * jnp.finfo(d.dtype).eps * norms


def _difference_form(rows: _geometry.Geometry, distance: Distance) -> jax.Array:
    """Return [m, n] distances of prepared rows in difference form."""
    x, y = rows.x[:, None, :], rows.y[None, :, :]
    exists = (rows.x_exists[:, None], rows.y_exists[None, :])
    return _geometry.row_distances(x, y, rows.scale, exists, distance)


def _indices(shape: tuple[int, ...], first: int | jax.Array) -> tuple:
    """Return [m, n] row indices counted from `first`, and column indices."""
    rows = lax.broadcasted_iota(jnp.int32, shape, 0) + first
    return rows, lax.broadcasted_iota(jnp.int32, shape, 1)
