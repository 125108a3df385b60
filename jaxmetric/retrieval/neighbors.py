"""Nearest neighbours by blocks of queries, never the whole matrix."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _geometry, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Geometry
from jaxmetric.retrieval import sides

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
    is_int = isinstance(k, int | np.integer) and not isinstance(k, bool)
    if not is_int or k < 1:
        must, remedy = "be a positive int", "Use k=1 for the nearest alone."
        raise ValueError(_checks.text(function, "k", must, repr(k), remedy))
    return _nearest_neighbors(comparison, (function, int(k), block_size))


@partial(jax.jit, static_argnames="options")
def _nearest_neighbors(comparison: Comparison, options: tuple) -> Neighbors:
    """Prepare, search by blocks of queries, and mark what is not a distance."""
    function, k, block_size = options
    is_self = comparison.y is None
    comparison = _rows.gather(comparison)
    x, y = comparison.x, comparison.x if comparison.y is None else comparison.y
    num_candidates = y.shape[0] - is_self
    if k > num_candidates:
        must = f"be at most {num_candidates}, the number of candidates"
        must += " without the query itself" if is_self else ""
        remedy = f"Use k={num_candidates}." if num_candidates else "Give two rows."
        raise ValueError(_checks.text(function, "k", must, str(k), remedy))
    x_finite, y_finite = jnp.isfinite(x).all(-1), jnp.isfinite(y).all(-1)
    where, ref_where = comparison.anchors.where, comparison.references.where
    # Usable references first, then the non-finite, then those that do not exist. The
    # last two are infinitely far, and ties go to the first column.
    order = jnp.argsort(jnp.where(ref_where, jnp.where(y_finite, 0, 1), 2))
    geometry = _geometry.prepare(
        x, y, where & x_finite, ref_where & y_finite, comparison.distance
    )
    geometry = geometry._replace(
        y=geometry.y[order],
        y_centred=geometry.y_centred[order],
        y_exists=geometry.y_exists[order],
    )
    num_usable = jnp.sum(ref_where & y_finite, dtype=jnp.int32)
    index = comparison.anchors.index
    own = jnp.full(x.shape[0], -1, jnp.int32)
    if index is not None:
        own = jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0]))[index]
    body = partial(
        _search_block,
        true=geometry,
        k=k,
        is_self=is_self,
        distance=comparison.distance,
        num_usable=num_usable,
    )
    search, search_geometry = sides.to_search(comparison, geometry)
    columns, distances = _rows.map_rows(
        search, search_geometry, body, (own, jnp.arange(x.shape[0])), block_size
    )
    indices = order[columns].astype(jnp.int32)
    is_usable = columns < num_usable
    unusable = jnp.where(ref_where[indices], jnp.nan, jnp.inf).astype(distances.dtype)
    distances = jnp.where(is_usable, distances, unusable)
    distances = jnp.where(x_finite[:, None], distances, jnp.nan)
    return Neighbors(indices, jnp.where(where[:, None], distances, jnp.inf))


def _search_block(
    block: _rows.Block,
    own: jax.Array,
    rows: jax.Array,
    *,
    true: Geometry,
    k: int,
    is_self: bool,
    distance: Distance,
    num_usable: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return the [b, k] nearest columns of a block and their distances.

    Args:
      block: of prepared rows, for a search.
      own: [b, 1] column of the query itself, -1 where it is none.
      rows: [b, 1] which queries these are.
      true: the geometry in which the distances that are returned are computed.
      k, is_self, distance: as asked for.
      num_usable: scalar, how many columns hold references to be found.
    """
    found = block.distances
    n = found.shape[-1]
    is_usable = lax.broadcasted_iota(jnp.int32, found.shape, 1) < num_usable
    # One more than asked for: the query itself is taken out afterwards.
    num_found = min(k + is_self, n)
    is_near = sides.near(block)
    if is_near is not None:
        is_near &= is_usable
        num_near = jnp.sum(is_near, -1, dtype=jnp.int32)
        found = sides.settle(block, is_near, num_near > num_found)
    far = jnp.where(is_usable & ~jnp.isnan(found), found, jnp.inf)
    _, columns = lax.top_k(-far, num_found)
    if is_self:
        is_own_or_later = jnp.cumsum(columns == own, -1, dtype=jnp.int32) > 0
        columns = jnp.where(is_own_or_later[:, :-1], columns[:, 1:], columns[:, :-1])
    if callable(distance) or distance == "dot":
        return columns, jnp.take_along_axis(found, columns, -1)
    # Slot by slot: [b, dim] numbers at a time.
    exact = lax.map(
        lambda j: _geometry.pair_distances(true, distance, rows[:, 0], j), columns.T
    ).T
    key = jnp.where(columns < num_usable, exact, jnp.inf)
    _, columns, exact = lax.sort((key, columns, exact), num_keys=2)
    return columns, exact
