"""k-reciprocal re-ranking: neighbours that hold each other for neighbours go first."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _geometry, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Geometry
from jaxmetric.retrieval import reciprocal_sets, sides
from jaxmetric.retrieval.neighbors import Neighbors, nearest_neighbors

__all__ = ["rerank"]

_DISTANCES = ("sqeuclidean", "euclidean", "cosine", "manhattan")

# Numbers in the block of final distances, and pairs measured at once.
_ELEMENTS, _PAIRS = 2**22, 2**14


def rerank(
    query: ArrayLike,
    reference: ArrayLike | None = None,
    *,
    k: int,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    distance: str = "sqeuclidean",
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    block_size: int | None = None,
) -> Neighbors:
    """Return the k nearest references by k-reciprocal re-ranking.

    All rows, queries and references, are each other's neighbours. R(i) are the rows
    among the k1 nearest of i that have i among their own k1 nearest (i itself is one);
    each j in R(i) adds its own such set for round(k1 / 2) if more than two thirds of
    it are in R(i). On the extended set, with distances divided by the largest of i's,

    V_ij = exp(-d_ij) / sum over the set,   then averaged over the k2 nearest of i
    J_ij = 1 - sum of min(V_i, V_j) / sum of max(V_i, V_j)
    d*_ij = (1 - lambda_value) J_ij + lambda_value d_ij

    and references are ordered by d*, the lowest index first among equals. Without
    `reference` a query is no neighbour of itself.

    References that are not finite come after all others at distance NaN, those that do
    not exist last of all at inf; a query that is not finite has distance NaN, one that
    does not exist inf. None of them takes part. Works on the host, so not under `jit`.

    For metrics of the result, take k = all of them and hand `evaluate` row numbers in
    place of rows, with a distance that looks them up.

    Args:
      query: [q, dim] floating.
      k: how many; at most the number of references, the query itself left out.
      k1: neighbours that must be reciprocal.
      k2: neighbours over which V is averaged; 1 for none.
      lambda_value: in [0, 1], the weight of the original distance.
      distance: "sqeuclidean" (as in the paper), "euclidean", "cosine" or "manhattan".
      reference, where, ref_where, block_size: as in `jaxmetric.retrieval`.

    Returns:
      `Neighbors(indices, distances)`, [q, k] each, with the distances d*.

    Raises:
      ValueError: `k` exceeds the number of candidates, or shapes, names or ranges do
        not fit. TypeError: dtypes do not fit, or an array is traced.

    Memory: O(block x (q + n) + (q + n) (k1 + set) + q k), where a set averaged over k2
    neighbours has some ten to a few hundred rows. Time: O((q + n)^2 dim) for the
    neighbours, O(q n (dim + log k)) for the result.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [1.0], [1.8], [2.6], [5.0], [5.5]])
      >>> indices, distances = rerank(x, k=2, k1=2, k2=1)
      >>> print(indices[3], distances[3].round(2))
      [2 1] [0.37 0.65]

    Source: Zhong, Zheng, Cao, Li. Re-ranking Person Re-identification with k-reciprocal
    Encoding. CVPR, 2017. arXiv:1701.08398.
    """
    function = "rerank"
    _checks.choice(function, "distance", distance, _DISTANCES, usual="sqeuclidean")
    comparison = sides.compare(
        function,
        query,
        None,
        reference,
        None,
        distance=distance,  # pyright: ignore (one of the names)
        where=where,
        ref_where=ref_where,
        axis_name=None,
    )
    _checks.block_size(function, block_size)
    k = sides.one_positive_int(function, "k", k, "Use k=1 for the nearest alone.")
    k1 = sides.one_positive_int(function, "k1", k1, "Use k1=20.")
    k2 = sides.one_positive_int(function, "k2", k2, "Use k2=6.")
    is_number = isinstance(lambda_value, int | float)
    if not is_number or not 0 <= lambda_value <= 1:
        must, remedy = "lie between 0 and 1", "Use lambda_value=0.3."
        got = repr(lambda_value)
        raise ValueError(_checks.text(function, "lambda_value", must, got, remedy))
    n, is_self = comparison.references.where.shape[0], comparison.y is None
    sides.check_num_candidates(function, k, n, is_self=is_self)
    rows, is_query, columns = _usable(comparison)
    indices, distances = _blank(comparison, is_query, columns, k)
    first = 0 if is_self else int(is_query.sum())
    num_found = min(k, columns.size - is_self)
    if is_query.any() and num_found > 0:
        options = (num_found, k1, k2, float(lambda_value), block_size)
        places, final = _rerank(rows, first, int(is_query.sum()), distance, options)
        indices[is_query, :num_found] = columns[places]
        distances[is_query, :num_found] = final
    return Neighbors(jnp.asarray(indices), jnp.asarray(distances))


def _usable(comparison: Comparison) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows that exist and are finite, and where they come from.

    Returns:
      [rows, dim] queries, then references (the queries where there is no other side);
      [q] bool, which queries they are; their indices among the references.
    """
    dtype = comparison.dtype
    x = sides.on_host("rerank", "query", comparison.x.astype(dtype))
    where = sides.on_host("rerank", "where", comparison.anchors.where)
    is_query = where & np.isfinite(x).all(-1)
    if comparison.y is None:
        return x[is_query], is_query, np.flatnonzero(is_query)
    y = sides.on_host("rerank", "reference", comparison.y.astype(dtype))
    ref_where = sides.on_host("rerank", "ref_where", comparison.references.where)
    columns = np.flatnonzero(ref_where & np.isfinite(y).all(-1))
    return np.concatenate([x[is_query], y[columns]]), is_query, columns


def _blank(
    comparison: Comparison, is_query: np.ndarray, columns: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and distances, [q, k], where nothing is found.

    Args:
      comparison: of all rows.
      is_query: [q] bool, queries that are finite and exist.
      columns: indices of the references that are finite and exist.
      k: how many are asked for.
    """
    ref_where = np.asarray(comparison.references.where)
    kind = np.where(ref_where, 1, 2)
    kind[columns] = 0
    order = np.argsort(kind, kind="stable")
    if comparison.y is None:
        # A query that takes part is no neighbour of itself.
        order = order[1:] if columns.size else order
    order = order[:k]
    num_queries = is_query.size
    indices = np.tile(order.astype(np.int32), (num_queries, 1))
    row = np.where(kind[order] == 2, np.inf, np.nan).astype(comparison.dtype)
    distances = np.tile(row, (num_queries, 1))
    where = np.asarray(comparison.anchors.where)
    distances[~is_query] = np.nan
    distances[~where] = np.inf
    return indices, distances


def _rerank(
    rows: np.ndarray, first: int, num_queries: int, distance: str, options: tuple
) -> tuple[np.ndarray, np.ndarray]:
    """Return places among the references and final distances, [queries, k] each.

    Args:
      rows: [all, dim] finite, the queries first.
      first: where the references start; 0 where they are the queries.
      num_queries: how many rows are queries.
      distance: one of the names.
      options: k, k1, k2, lambda_value and block_size.
    """
    k, k1, k2, lambda_value, block_size = options
    comparison = _rows.gather(
        sides.compare(
            "rerank",
            rows,
            None,
            None,
            None,
            distance=distance,  # pyright: ignore (one of the names)
            where=None,
            ref_where=None,
            axis_name=None,
        )
    )
    geometry, largest = _measure(comparison, block_size)
    neighbors = np.arange(len(rows), dtype=np.int32)[:, None]
    width = min(max(k1, k2 - 1), len(rows) - 1)
    if width:
        found = nearest_neighbors(
            rows,
            k=width,
            distance=distance,  # pyright: ignore (one of the names)
            block_size=block_size,
        )
        neighbors = np.concatenate([neighbors, np.asarray(found.indices)], 1)
    row, member = reciprocal_sets.expanded(neighbors, k1)
    near = _pair_distances(geometry, distance, row, member)
    safe = np.where(largest > 0, largest, 1).astype(np.float64)
    weights = np.exp(-near / safe[row])
    sets = reciprocal_sets.weighted(row, member, weights, len(rows))
    sets = reciprocal_sets.averaged(sets, neighbors[:, :k2])
    owners = reciprocal_sets.inverted(sets, first)
    num_references = len(rows) - first
    size = block_size or max(1, _ELEMENTS // num_references)
    size = min(size, num_queries)
    found = []
    for start in range(0, num_queries, size):
        # The last block reaches back, so that all have one shape.
        queries = np.arange(start, start + size) - max(0, start + size - num_queries)
        far = reciprocal_sets.jaccard(sets, owners, queries, num_references)
        of_block = _geometry.take_rows(geometry, lambda a, i=queries: a[i])
        own = queries if first == 0 else np.full_like(queries, -1)
        arrays = (of_block, far.astype(rows.dtype), safe[queries].astype(rows.dtype))
        block = _final(arrays, own, lambda_value, (first, k, distance))
        is_new = queries >= start
        found.append(jax.tree.map(lambda a, i=is_new: np.asarray(a)[i], block))
    places, final = zip(*found, strict=True)
    return np.concatenate(places), np.concatenate(final)


@partial(jax.jit, static_argnames="block_size")
def _measure(
    comparison: Comparison, block_size: int | None
) -> tuple[Geometry, jax.Array]:
    """Return the prepared rows, and the largest distance of each, by blocks."""
    geometry = _rows.prepare(comparison)
    body = lambda block: jnp.max(block.distances, -1)  # noqa: E731
    return geometry, _rows.map_rows(comparison, geometry, body, (), block_size)


def _pair_distances(
    geometry: Geometry, distance: str, i: np.ndarray, j: np.ndarray
) -> np.ndarray:
    """Return [pairs] distances of rows `i` to rows `j`, some at a time."""
    parts = []
    for start in range(0, i.size, _PAIRS):
        part = [a[start : start + _PAIRS] for a in (i, j)]
        missing = _PAIRS - part[0].size
        part = [np.pad(a, (0, missing)).astype(np.int32) for a in part]
        found = np.asarray(_some_pair_distances(geometry, *part, distance))
        parts.append(found[: _PAIRS - missing])
    return np.concatenate(parts)


@partial(jax.jit, static_argnames="distance")
def _some_pair_distances(geometry: Geometry, i, j, distance: str) -> jax.Array:
    """Return [pairs] distances, in difference form."""
    return _geometry.pair_distances(geometry, distance, i, j)  # pyright: ignore


@partial(jax.jit, static_argnames="options")
def _final(
    arrays: tuple[Geometry, jax.Array, jax.Array],
    own: jax.Array,
    lambda_value: float,
    options: tuple[int, int, str],
) -> tuple[jax.Array, jax.Array]:
    """Return places and final distances, [b, k], of a block of queries.

    Args:
      arrays: the prepared rows of the block, its Jaccard distances [b, n], and each
        query's largest distance [b].
      own: [b] place of the query itself, -1 where it is none.
      lambda_value: the weight of the original distance.
      options: where the references start, k, and the distance.
    """
    geometry, far, largest = arrays
    first, k, distance = options
    geometry = geometry._replace(
        y=geometry.y[first:],
        y_centred=geometry.y_centred[first:],
        y_exists=geometry.y_exists[first:],
    )
    original = _geometry.block_distances(
        geometry,
        distance,  # pyright: ignore (one of the names)
        lax.Precision.HIGHEST,
    )
    weight = jnp.asarray(lambda_value, far.dtype)
    final = (1 - weight) * far + weight * original / largest[:, None]
    is_own = lax.broadcasted_iota(jnp.int32, final.shape, 1) == own[:, None]
    found, places = lax.top_k(-jnp.where(is_own, jnp.inf, final), k)
    return places, -found
