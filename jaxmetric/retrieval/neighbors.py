"""Nearest neighbours by blocks of queries, never the whole matrix."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _geometry, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance
from jaxmetric.retrieval import shards, sides

__all__ = ["Neighbors", "nearest_neighbors"]


class Neighbors(NamedTuple):
    """The nearest references of each query, nearest first.

    Attributes:
      indices: [q, k] int32 rows of the references (of the queries without them).
      distances: [q, k] float32 or wider.
    """

    indices: jax.Array
    distances: jax.Array


def nearest_neighbors(
    query: ArrayLike,
    reference: ArrayLike | None = None,
    *,
    k: int,
    distance: Distance = "euclidean",
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Neighbors:
    """Return the k nearest references of each query.

    Among equal distances the lowest index comes first. Without `reference` a query is
    no neighbour of itself; its duplicates are. The distances of the k found are
    computed afresh in difference form (except "dot" and callables), and ordered by it.

    Non-finite references come after all others, at distance NaN; references that do
    not exist come last of all, at distance inf. A non-finite query has distance NaN to
    everything, one that does not exist has inf. All indices are in range.

    Args:
      query: [q, dim] floating.
      k: how many; at most the number of references, the query itself left out.
      reference, distance, where, ref_where, block_size, axis_name: as in
        `jaxmetric.retrieval`.

    Returns:
      `Neighbors(indices, distances)`, [q, k] each.

    Raises:
      ValueError: `k` exceeds the number of candidates, or shapes, names or ranges do
        not fit. TypeError: dtypes do not fit.

    Memory: O(block x n + q k).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [1.0], [3.0]])
      >>> indices, distances = nearest_neighbors(x, k=2)
      >>> print(indices)
      [[1 2]
       [0 2]
       [1 0]]
      >>> print(distances)
      [[1. 3.]
       [1. 2.]
       [2. 3.]]
    """
    function = "nearest_neighbors"
    comparison = sides.compare(
        function,
        query,
        None,
        reference,
        None,
        distance=distance,
        where=where,
        ref_where=ref_where,
        axis_name=axis_name,
    )
    _checks.block_size(function, block_size)
    remedy = "Use k=1 for the nearest alone."
    k = sides.one_positive_int(function, "k", k, remedy)
    return _nearest_neighbors(comparison, (function, k, block_size))


@partial(jax.jit, static_argnames="options")
def _nearest_neighbors(comparison: Comparison, options: tuple) -> Neighbors:
    """Prepare, search by blocks of queries, and mark what is not a distance."""
    function, k, block_size = options
    is_self = comparison.y is None
    spread = shards.spread(comparison)
    comparison = _rows.gather(comparison) if spread is None else spread.comparison
    x, y = comparison.x, comparison.x if comparison.y is None else comparison.y
    where, ref_where = comparison.anchors.where, comparison.references.where
    n = y.shape[0] if spread is None else spread.references.where.shape[0]
    sides.check_num_candidates(function, k, n, is_self=is_self)
    x_finite, y_finite = jnp.isfinite(x).all(-1), jnp.isfinite(y).all(-1)
    geometry = _geometry.prepare(
        x, y, where & x_finite, ref_where & y_finite, comparison.distance
    )
    axis_name = None if spread is None else comparison.axis_name
    if spread is not None:
        geometry = spread.share(geometry)
    # Usable references first, then the non-finite, then those that do not exist. The
    # last two are infinitely far, and ties go to the first column.
    kind = jnp.where(ref_where, jnp.where(y_finite, 0, 1), 2).astype(jnp.int32)
    order = jnp.argsort(kind)
    geometry = geometry._replace(
        y=geometry.y[order],
        y_centred=geometry.y_centred[order],
        y_exists=geometry.y_exists[order],
    )
    first = 0 if spread is None else spread.first
    own = jnp.full(x.shape[0], -1, jnp.int32)
    if comparison.anchors.index is not None:
        own = comparison.anchors.index
    body = partial(
        _search_block,
        # What a column is: its kind first, then its index among all references.
        columns=(kind * n + first + jnp.arange(y.shape[0], dtype=jnp.int32))[order],
        num_usable=jnp.sum(kind == 0, dtype=jnp.int32),
        scale=geometry.scale,
        options=(k, n, is_self, comparison.distance, axis_name),
    )
    search, geometry = sides.to_search(comparison, geometry, axis_name)
    if spread is None:
        found = _rows.map_rows(search, geometry, body, (own,), block_size)
    else:
        here = lambda block, _, own: body(block, own)  # noqa: E731
        found = spread.map_rows(search, geometry, here, (own,), block_size)
    columns, distances = found
    # Usable references have distances, those that are no numbers NaN, and so on.
    distances = jnp.where(columns < n, distances, jnp.nan)
    distances = jnp.where(columns < 2 * n, distances, jnp.inf)
    distances = jnp.where(x_finite[:, None], distances, jnp.nan)
    return Neighbors(columns % n, jnp.where(where[:, None], distances, jnp.inf))


def _search_block(
    block: _rows.Block,
    own: jax.Array,
    *,
    columns: jax.Array,
    num_usable: jax.Array,
    scale: jax.Array,
    options: tuple[int, int, bool, Distance, str | None],
) -> tuple[jax.Array, jax.Array]:
    """Return the [b, k] nearest of a block, as numbers in `columns`, and distances.

    Args:
      block: of prepared rows, for a search; with an axis, the queries of all devices.
      own: [b, 1] index of the query itself, -1 where it is none.
      columns: [n] int32 which references the columns of the block are.
      num_usable: scalar, how many columns hold references to be found.
      scale: of the distances that are returned.
      options: k, the number of all references, whether queries are among them, the
        distance that was asked for, and the axis over which references are spread.
    """
    k, n, is_self, distance, axis_name = options
    found, rows = block.distances, block.geometry
    is_usable = lax.broadcasted_iota(jnp.int32, found.shape, 1) < num_usable
    # One more than asked for: the query itself is taken out afterwards.
    num_found = min(k + is_self, found.shape[-1])
    is_near = sides.near(block)
    if is_near is not None:
        is_near &= is_usable
        num_near = jnp.sum(is_near, -1, dtype=jnp.int32)
        found = sides.settle(block, is_near, num_near > num_found)
    far = jnp.where(is_usable & ~jnp.isnan(found), found, jnp.inf)
    _, nearest = lax.top_k(-far, num_found)
    if callable(distance) or distance == "dot":
        key, exact = (jnp.take_along_axis(a, nearest, -1) for a in (far, found))
    else:
        # Slot by slot: [b, dim] numbers at a time.
        def measure(j: jax.Array) -> jax.Array:
            exists = (rows.x_exists, rows.y_exists[j])
            return _geometry.row_distances(rows.x, rows.y[j], scale, exists, distance)

        exact = lax.map(measure, nearest.T).T
        key = jnp.where(nearest < num_usable, exact, jnp.inf)
    key, nearest, exact = (
        shards.to_owners(a, axis_name) for a in (key, columns[nearest], exact)
    )
    if is_self:
        # Behind everything else, as the reference with the largest number.
        is_own = nearest % n == own
        key = jnp.where(is_own, jnp.inf, key)
        nearest = jnp.where(is_own, jnp.iinfo(jnp.int32).max, nearest)
    _, nearest, exact = lax.sort((key, nearest, exact), num_keys=2)
    return nearest[:, :k], exact[:, :k]
