"""What is found for each query among the references that it has not seen yet."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance
from jaxmetric.retrieval import fixed_point, scores, sides

__all__ = ["recommendation"]

# Numbers in the matrix of one block of queries.
_ELEMENTS = 2**21


def recommendation(
    query: ArrayLike,
    reference: ArrayLike,
    relevant: ArrayLike | Sequence[Sequence[int]],
    seen: ArrayLike | Sequence[Sequence[int]] | None = None,
    *,
    ks: Sequence[int] = (10, 20),
    distance: Distance = "euclidean",
    reduction: scores.Reduction = "mean",
    block_size: int | None = None,
) -> dict[str, jax.Array]:
    """Return how many relevant references are among the nearest unseen ones.

    Queries are users and references items, say: what a user has seen is not found
    again. With R the number of a query's relevant references, and rel_k whether its
    k-th nearest unseen reference is one of them:

    recall_at_{k}   sum over r <= k of rel_r / R
    ndcg_at_{k}     sum over r <= k of rel_r / log2(1 + r), over the largest possible,
                    the sum over r <= min(k, R) of 1 / log2(1 + r)

    These are averaged over the queries with R >= 1; `num_queries` says how many they
    are. Without any the metrics are NaN, and also when a row is not finite. What is
    both seen and relevant counts as seen. Among equal distances the irrelevant
    references come first.

    Args:
      query: [q, dim] floating.
      reference: [n, dim] floating.
      relevant: [m, 2] integer pairs, a row of `query` and one of `reference`, in any
        order; a pair that comes twice is one.
      seen: [p, 2] integer pairs likewise; None where nothing is.
      ks: how many references are looked at; beyond their number it means all.
      distance: a name or a callable; see `pairwise_distance`. With "dot", the largest
        product comes first.
      reduction: "mean", or "none" for one number a query, [q], NaN where left out.
      block_size: queries computed together; None lets the library choose.

    Returns:
      A dict of scalars, float32 or wider; with reduction="none" of [q] arrays, without
      `num_queries`.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit, or
        pairs that are traced.

    Memory: O(block x n + q + m + p). Time: O(q n dim).

    Example:
      >>> import jax.numpy as jnp
      >>> users, items = jnp.array([[0.0], [5.0]]), jnp.array([[0.0], [1.0], [4.0]])
      >>> found = recommendation(users, items, [[0, 1], [1, 0]], [[0, 0]], ks=(1, 2))
      >>> print(f"{found['recall_at_1']:.2f} {found['ndcg_at_2']:.2f}")
      0.50 0.50

    Source: Järvelin, Kekäläinen. Cumulated gain-based evaluation of IR techniques. ACM
    Transactions on Information Systems, 2002; over unseen items: He et al. LightGCN.
    SIGIR 2020. arXiv:2002.02126, section 4.1.
    """
    function = "recommendation"
    comparison = sides.compare(
        function,
        query,
        None,
        reference,
        None,
        distance=distance,
        where=None,
        ref_where=None,
        axis_name=None,
    )
    assert comparison.y is not None
    sizes = (comparison.num_rows, comparison.y.shape[0])
    found = _pairs(function, "relevant", relevant, sizes)
    left_out = np.zeros((0, 2), np.int64)
    if seen is not None:
        left_out = _pairs(function, "seen", seen, sizes)
    counts = sides.positive_ints(function, "ks", ks, "Use ks=(10, 20).")
    scores.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    size = min(block_size or max(_ELEMENTS // sizes[1], 1), sizes[0])
    options = (counts, distance)
    parts = [
        _of_block(rows, comparison, options)
        for rows in _blocks(found, left_out, sizes[0], size)
    ]
    values, is_counted = (
        jax.tree.map(lambda *blocks: jnp.concatenate(blocks)[: sizes[0]], *part)
        for part in zip(*parts, strict=True)
    )
    finished = _finish(comparison, values, is_counted, reduction)
    # A compiled function sorts the names.
    names = [f"{metric}_at_{k}" for k in counts for metric in ("recall", "ndcg")]
    names += ["num_queries"] if reduction == "mean" else []
    return {name: finished[name] for name in dict.fromkeys(names)}


def _pairs(
    function: str, argument: str, values: Any, sizes: tuple[int, int]
) -> np.ndarray:
    """Return [m, 2] row numbers in range, by the first of them."""
    pairs = sides.on_host(function, argument, values)
    remedy = "Give (row of `query`, row of `reference`)."
    if pairs.size == 0:
        return np.zeros((0, 2), np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        must, got = "have shape (m, 2)", str(pairs.shape)
        raise ValueError(_checks.text(function, argument, must, got, remedy))
    if not np.issubdtype(pairs.dtype, np.integer):
        must, got = "be integer", str(pairs.dtype)
        raise TypeError(_checks.text(function, argument, must, got, remedy))
    for column, size in enumerate(sizes):
        low, high = int(pairs[:, column].min()), int(pairs[:, column].max())
        if low < 0 or high >= size:
            must = f"hold rows from 0 to {size - 1} in column {column}"
            got = str(low if low < 0 else high)
            raise ValueError(_checks.text(function, argument, must, got, remedy))
    return pairs[np.argsort(pairs[:, 0], kind="stable")].astype(np.int64)


def _blocks(
    relevant: np.ndarray, seen: np.ndarray, q: int, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Give (row numbers, pairs relevant, pairs seen) of blocks, all of one shape.

    In the pairs the rows are those of the block; what fills up lies outside of it.
    """
    starts = np.arange(0, q, size)
    edges = [np.searchsorted(p[:, 0], np.append(starts, q)) for p in (relevant, seen)]
    most = [max(int(np.diff(e).max(initial=0)), 1) for e in edges]
    # Powers of two: data that differ a little are not compiled anew.
    most = [1 << (count - 1).bit_length() for count in most]
    for i, start in enumerate(starts):
        filled = []
        for pairs, edge, count in zip((relevant, seen), edges, most, strict=True):
            own = np.full((count, 2), size, np.int32)
            part = pairs[edge[i] : edge[i + 1]]
            own[: len(part)] = part - [start, 0]
            filled.append(own)
        rows = np.arange(start, start + size)
        yield np.where(rows < q, rows, -1).astype(np.int32), filled[0], filled[1]


@partial(jax.jit, static_argnames="options")
def _of_block(rows: tuple, comparison: Comparison, options: tuple) -> tuple:
    """Return the metrics of a block of queries, [b] each, and which of them count."""
    numbers, relevant, seen = rows
    counts, distance = options
    # Padding has the first query's row, so that it changes no scale.
    x = comparison.x[jnp.maximum(numbers, 0)]
    anchors = comparison.anchors._replace(
        labels=jnp.zeros_like(numbers), where=numbers >= 0
    )
    comparison = dataclasses.replace(comparison, x=x, anchors=anchors)
    search, geometry = sides.to_search(comparison, _rows.prepare(comparison))
    shape = (numbers.shape[0], geometry.y.shape[0])

    def mask(pairs: jax.Array) -> jax.Array:
        # What fills up the pairs lies outside, and is dropped.
        places = jnp.zeros(shape, bool).at[pairs[:, 0], pairs[:, 1]]
        return places.set(True, mode="drop")

    def body(block: _rows.Block) -> tuple:
        is_unseen = ~mask(seen)
        is_relevant = mask(relevant) & is_unseen
        block = dataclasses.replace(
            block, positive=is_relevant, negative=is_unseen & ~is_relevant
        )
        return _gained(block, counts)

    return _rows.map_rows(search, geometry, body, (), shape[0])


def _gained(block: _rows.Block, counts: tuple[int, ...]) -> tuple:
    """Return {metric: [b]} of a block, and which queries have anything relevant."""
    distances = sides.settle_kinds(block)
    most = min(max(counts), distances.shape[-1])
    size = jnp.sum(block.positive, -1, dtype=jnp.int32)
    keys, kinds = [], []
    # The nearest of each kind, then both merged: of equals the irrelevant come first.
    for kind in (block.negative, block.positive):
        far = jnp.where(kind & ~jnp.isnan(distances), distances, jnp.inf)
        nearest = -lax.top_k(-far, most)[0]
        slot = lax.broadcasted_iota(jnp.int32, nearest.shape, 1)
        exists = slot < jnp.sum(kind, -1, dtype=jnp.int32)[:, None]
        keys.append(nearest)
        kinds.append(jnp.where(exists, len(kinds), 2).astype(jnp.int32))
    is_empty = jnp.concatenate(kinds, -1) == 2
    merged = (is_empty.astype(jnp.int32), jnp.concatenate(keys, -1))
    *_, found = lax.sort((*merged, jnp.concatenate(kinds, -1)), num_keys=3)
    hits = (found[:, :most] == 1).astype(distances.dtype)
    place = jnp.arange(1, most + 1)
    discounts = 1 / jnp.log2(1 + place.astype(distances.dtype))
    is_possible = place[None, :] <= size[:, None]
    values = {}
    for k in counts:
        first = jnp.where(place <= k, discounts, 0)[None, :]
        total = jnp.sum(jnp.where(first > 0, hits, 0), -1)
        values[f"recall_at_{k}"] = total / jnp.maximum(size, 1).astype(total.dtype)
        ideal = jnp.sum(jnp.where(is_possible, first, 0), -1)
        gained = jnp.sum(hits * first, -1) / jnp.where(size > 0, ideal, 1)
        values[f"ndcg_at_{k}"] = jnp.minimum(gained, 1)
    return values, size > 0


@partial(jax.jit, static_argnames="reduction")
def _finish(
    comparison: Comparison,
    values: dict[str, jax.Array],
    is_counted: jax.Array,
    reduction: scores.Reduction,
) -> dict[str, jax.Array]:
    """Return the means, or the numbers of the queries."""
    is_good = _rows.is_finite(comparison)
    if reduction == "none":
        keep = is_counted & is_good
        return {name: jnp.where(keep, v, jnp.nan) for name, v in values.items()}
    means = {
        name: jnp.where(is_good, fixed_point.mean(v, is_counted), jnp.nan)
        for name, v in values.items()
    }
    return means | {"num_queries": jnp.sum(is_counted, dtype=jnp.int32)}
