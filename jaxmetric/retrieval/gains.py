"""Graded relevance: normalised discounted cumulative gain by blocks of queries."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _numerics, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance
from jaxmetric.retrieval import fixed_point, scores, sides

__all__ = ["ndcg"]

Gain = Callable[[jax.Array, jax.Array], jax.Array]


def ndcg(
    query: ArrayLike,
    query_labels: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    reference_labels: ArrayLike | None = None,
    *,
    gain: Gain | ArrayLike | None = None,
    k: int | None = None,
    distance: Distance = "euclidean",
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    reduction: scores.Reduction = "mean",
    block_size: int | None = None,
) -> jax.Array:
    """Return the normalised discounted cumulative gain of the nearest references.

    With g_r the gain of a query's r-th nearest reference:

    DCG = sum over r <= k of g_r / log2(1 + r),   NDCG = DCG / (the largest possible)

    It is averaged over the queries that have a reference with a gain above 0. Without
    any it is NaN, and also when an existing row is not finite or a gain is negative or
    not finite. Among equal distances the smallest gains come first.

    Gains enter as they are (scikit-learn's convention, which averages over ties
    instead); for the exponential form give gains 2^g - 1.

    Args:
      query: [q, dim] floating.
      query_labels: [q] integer; may be left out where `gain` is a matrix.
      gain: a function that maps labels [b] and [n] to gains [b, n], by blocks; or a
        matrix of gains [q, n]; None for 1 where labels are equal, else 0. The function
        must be the same object from call to call to be compiled once. With row numbers
        as labels it may look gains up.
      k: how many references are looked at; None for all. Beyond their number it means
        all.
      reference, reference_labels, distance, where, ref_where, block_size: as in
        `jaxmetric.retrieval`.
      reduction: "mean", or "none" for one number a query, [q], NaN where left out.

    Returns:
      A scalar in [0, 1], float32 or wider; with reduction="none" [q] of them.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x n), and the matrix where one is given. Time: O(q n (dim + log n)).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [1.0], [3.0], [7.0]])
      >>> years = jnp.array([2001, 2002, 2002, 2007])
      >>> def closeness(a, b):
      ...     return jnp.exp(-jnp.abs(a[:, None] - b[None, :]).astype(jnp.float32))
      >>> print(f"{ndcg(x, years, gain=closeness):.4f}")
      0.9528

    Source: Järvelin, Kekäläinen. Cumulated gain-based evaluation of IR techniques. ACM
    Transactions on Information Systems, 2002.
    """
    function = "ndcg"
    function_of_labels = gain if callable(gain) else None
    is_matrix = gain is not None and function_of_labels is None
    if query_labels is None and not is_matrix:
        must, got = "come with `query`", "None"
        remedy = "Pass one integer a query, or gain= as a matrix."
        raise ValueError(_checks.text(function, "query_labels", must, got, remedy))
    if query_labels is None and reference_labels is not None:
        must, remedy = "come with `query_labels`", "Pass both, or neither."
        text = _checks.text(function, "reference_labels", must, "it alone", remedy)
        raise ValueError(text)
    comparison = sides.compare(
        function,
        query,
        query_labels,
        reference,
        reference_labels,
        distance=distance,
        where=where,
        ref_where=ref_where,
        axis_name=None,
    )
    _checks.block_size(function, block_size)
    scores.check_reduction(function, reduction)
    if k is not None:
        k = sides.one_positive_int(function, "k", k, "Use k=None for all references.")
    shape = (comparison.num_rows, comparison.references.where.shape[0])
    matrix = None
    if is_matrix:
        matrix = gain if isinstance(gain, jax.Array) else np.asarray(gain)
        matrix = jnp.asarray(_check_gains(function, matrix, shape))
    elif function_of_labels is not None:
        labels = (comparison.anchors.labels, comparison.references.labels)
        _check_gains(function, jax.eval_shape(function_of_labels, *labels), shape)
    options = (function_of_labels, k, reduction, block_size)
    return _ndcg(comparison, matrix, options)


@partial(jax.jit, static_argnames="options")
def _ndcg(
    comparison: Comparison, matrix: jax.Array | None, options: tuple
) -> jax.Array:
    """Sort by blocks of queries, and average."""
    gain, k, reduction, block_size = options
    comparison = _rows.gather(comparison)
    search, geometry = sides.to_search(comparison, _rows.prepare(comparison))
    references = search.references

    def gains_of(block: _rows.Block, rows: jax.Array) -> jax.Array:
        if matrix is not None:
            return matrix[rows[:, 0]]
        if gain is not None:
            return gain(block.labels, references.labels)
        return block.labels[:, None] == references.labels[None, :]

    def body(block: _rows.Block, rows: jax.Array) -> tuple[jax.Array, ...]:
        return _normalised(block, gains_of(block, rows), k)

    rows = jnp.arange(comparison.num_rows, dtype=jnp.int32)
    found = _rows.map_rows(search, geometry, body, (rows,), block_size)
    value, is_counted, is_number = found
    is_good = _rows.is_finite(comparison) & jnp.all(is_number)
    if reduction == "none":
        return jnp.where(is_counted & is_good, value, jnp.nan)
    return jnp.where(is_good, fixed_point.mean(value, is_counted), jnp.nan)


def _normalised(
    block: _rows.Block, gains: jax.Array, k: int | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the NDCG of the queries of a block, which count, and which are numbers.

    Args:
      block: of prepared rows, for a search.
      gains: [b, n] of any real dtype.
      k: how many references are looked at; None for all.
    """
    exists = block.positive | block.negative
    distances = block.distances
    dtype = distances.dtype
    # Selected first: what does not exist may have any gain.
    gains = jnp.where(exists, gains.astype(dtype), 0)
    is_near = sides.near(block)
    if is_near is not None:
        # The order of near pairs matters where their gains differ.
        is_near &= exists
        largest = jnp.max(jnp.where(is_near, gains, -jnp.inf), -1)
        smallest = jnp.min(jnp.where(is_near, gains, jnp.inf), -1)
        distances = sides.settle(block, is_near, largest > smallest)
    is_number = ~jnp.any(jnp.isnan(distances) & exists, -1)
    is_number &= jnp.all((gains >= 0) & (gains < jnp.inf), -1)
    keys = _numerics.order_keys(distances)
    keys = jnp.where(exists, keys, jnp.iinfo(keys.dtype).max)
    _, found = lax.sort((keys, gains), num_keys=2)
    best = -lax.sort(-gains)
    # Scaled to at most 4, so that no sum overflows.
    scale = _numerics.power_of_two_above(best[:, :1])
    place = jnp.arange(gains.shape[-1]) + 1
    discounts = 1 / jnp.log2(1 + place.astype(dtype))
    if k is not None:
        discounts = jnp.where(place <= k, discounts, 0)

    def gained(ordered: jax.Array) -> jax.Array:
        return jnp.sum(ordered / scale * discounts[None, :], -1)

    is_counted = best[:, 0] > 0
    ideal = jnp.where(is_counted, gained(best), 1)
    # A rounding above 1 is none.
    value = jnp.minimum(gained(found) / ideal, 1)
    return jnp.where(is_counted, value, 0), is_counted, is_number


def _check_gains(
    function: str, gains: np.ndarray | jax.Array | jax.ShapeDtypeStruct, shape: tuple
):
    """Return gains of the shape and of real numbers; refuse others."""
    if gains.shape != shape:
        must = f"have shape {shape}, a row a query and a column a reference"
        got, remedy = str(gains.shape), "Map labels [b] and [n] to gains [b, n]."
        raise ValueError(_checks.text(function, "gain", must, got, remedy))
    is_real = gains.dtype == bool or jnp.issubdtype(gains.dtype, jnp.integer)
    if not is_real and not jnp.issubdtype(gains.dtype, jnp.floating):
        must, got = "be real numbers", str(gains.dtype)
        raise TypeError(
            _checks.text(function, "gain", must, got, "Give numbers of 0 or more.")
        )
    return gains
