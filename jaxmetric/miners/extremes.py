"""One triplet an anchor: its nearest or farthest positive and negative."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows, _selection
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.miners import _slots
from jaxmetric.pairs import Triplets
from jaxmetric.relations import Labels

__all__ = ["batch_easy_hard", "batch_hard"]

_KINDS = ("easy", "hard", "semihard")


def batch_hard(
    embeddings: jax.Array,
    labels: Labels,
    *,
    distance: Distance = "euclidean",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Triplets:
    """Return each anchor with its farthest positive and its nearest negative.

    An anchor that lacks a positive or a negative gives an invalid slot.

    Args:
      embeddings: [batch, dim] floating.
      labels: [batch] integer, or a `jaxmetric.Relation`.
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, ids, ref_embeddings, ref_labels, ref_where, ref_ids, block_size,
        axis_name: as in `jaxmetric.losses`.

    Returns:
      `Triplets` of [batch] slots, one an anchor.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch).

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> print(batch_hard(x, y).negative)
      [2 2 1 1]

    Source: Hermans, Beyer, Leibe. In Defense of the Triplet Loss for Person
    Re-Identification. 2017. arXiv:1703.07737.
    """
    function = "batch_hard"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance=distance,
        precision=precision,
        where=where,
        ids=ids,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        ref_ids=ref_ids,
        axis_name=axis_name,
    )
    _checks.block_size(function, block_size)
    return _batch_hard(comparison, block_size)


def batch_easy_hard(
    embeddings: jax.Array,
    labels: Labels,
    *,
    positive: str = "easy",
    negative: str = "semihard",
    positive_range: tuple[ArrayLike, ArrayLike] | None = None,
    negative_range: tuple[ArrayLike, ArrayLike] | None = None,
    distance: Distance = "euclidean",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Triplets:
    """Return each anchor with a positive and a negative, either of them easy or hard.

    positive  "easy" the nearest, "hard" the farthest, "semihard" the farthest that is
              strictly nearer than the chosen negative
    negative  "hard" the nearest, "easy" the farthest, "semihard" the nearest that is
              strictly farther than the chosen positive

    An anchor that lacks either gives an invalid slot. The default, an easy positive
    and a semi-hard negative, keeps several modes of a class apart where batch-hard
    pulls all of it together.

    Args:
      embeddings: [batch, dim] floating.
      labels: [batch] integer, or a `jaxmetric.Relation`.
      positive: "easy", "hard" or "semihard"; negative: likewise, but not both
        "semihard", as each would wait for the other.
      positive_range: least and greatest distance of a positive, both inclusive, as
        numbers or scalar arrays; None for any. negative_range: likewise.
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, ids, ref_embeddings, ref_labels, ref_where, ref_ids, block_size,
        axis_name: as in `jaxmetric.losses`.

    Returns:
      `Triplets` of [batch] slots, one an anchor.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch).

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> print(batch_easy_hard(x, y).negative)
      [2 2 0 1]
      >>> print(batch_easy_hard(x, y, positive="hard", negative="hard").negative)
      [2 2 1 1]

    Source: Xuan, Stylianou, Pless. Improved Embeddings with Easy Positive Triplet
    Mining. WACV 2020. arXiv:1904.04370.
    """
    function = "batch_easy_hard"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance=distance,
        precision=precision,
        where=where,
        ids=ids,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        ref_ids=ref_ids,
        axis_name=axis_name,
    )
    _checks.block_size(function, block_size)
    _checks.choice(function, "positive", positive, _KINDS, usual="easy")
    _checks.choice(function, "negative", negative, _KINDS, usual="semihard")
    if positive == negative == "semihard":
        must, got = "be 'easy' or 'hard' where `positive` is 'semihard'", "'semihard'"
        remedy = "Use negative='hard'."
        raise ValueError(_checks.text(function, "negative", must, got, remedy))
    ranges = None
    if positive_range is not None or negative_range is not None:
        named = {"positive_range": positive_range, "negative_range": negative_range}
        ranges = tuple(
            _range(function, name, value, comparison.dtype)
            for name, value in named.items()
        )
    return _easy_hard(comparison, ranges, (positive, negative, block_size))


@partial(jax.jit, static_argnames="block_size")
def _batch_hard(comparison: Comparison, block_size: int | None) -> Triplets:
    """Search by blocks; one slot an anchor."""
    search = _rows.to_search(*_slots.measured(comparison))
    body = lambda block: _selection.hardest(_slots.finite(block))  # noqa: E731
    p, n, valid = _rows.map_rows(*search, body, (), block_size)
    anchor = jnp.arange(comparison.num_rows, dtype=jnp.int32)
    return _slots.triplets(anchor, p, n, valid)


@partial(jax.jit, static_argnames="options")
def _easy_hard(
    comparison: Comparison, ranges: tuple | None, options: tuple[str, str, int | None]
) -> Triplets:
    """Search by blocks; one slot an anchor."""
    positive, negative, block_size = options
    comparison, geometry = _slots.measured(comparison)
    search = comparison, geometry
    if ranges is None:
        search = _rows.to_search(comparison, geometry)

    def body(block: Block) -> tuple[jax.Array, jax.Array, jax.Array]:
        return _choose(_slots.finite(block), ranges, positive, negative)

    p, n, valid = _rows.map_rows(*search, body, (), block_size)
    anchor = jnp.arange(comparison.num_rows, dtype=jnp.int32)
    return _slots.triplets(anchor, p, n, valid)


def _choose(
    block: Block, ranges: tuple | None, positive: str, negative: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return [b] positives and negatives, and which rows have both."""
    d, rows = block.distances, jnp.arange(block.where.size)
    is_positive, is_negative = block.positive, block.negative
    if ranges is not None:
        (least, greatest), (least_n, greatest_n) = ranges
        is_positive = is_positive & (d >= least) & (d <= greatest)
        is_negative = is_negative & (d >= least_n) & (d <= greatest_n)
    # Whichever is not semi-hard comes first: the other one is measured by it.
    if positive == "semihard":
        n, has_negative = _extreme(d, is_negative, is_nearest=negative == "hard")
        is_nearer = is_positive & (d < d[rows, n][:, None]) & has_negative[:, None]
        p, has_positive = _extreme(d, is_nearer, is_nearest=False)
        return p, n, has_positive & has_negative
    p, has_positive = _extreme(d, is_positive, is_nearest=positive == "easy")
    if negative == "semihard":
        is_negative &= (d > d[rows, p][:, None]) & has_positive[:, None]
    n, has_negative = _extreme(d, is_negative, is_nearest=negative != "easy")
    return p, n, has_positive & has_negative


def _extreme(
    d: jax.Array, mask: jax.Array, *, is_nearest: bool
) -> tuple[jax.Array, jax.Array]:
    """Return the [b] nearest or farthest of the mask, and which rows have one."""
    find = _numerics.masked_argmin if is_nearest else _numerics.masked_argmax
    return find(d, mask), jnp.any(mask, -1)


def _range(
    function: str, argument: str, value: object, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
    """Return the least and the greatest distance, as scalars."""
    if value is None:
        return jnp.array(-jnp.inf, dtype), jnp.array(jnp.inf, dtype)
    if not isinstance(value, tuple | list) or len(value) != 2:
        must, remedy = "be two numbers or None", "Use (least, greatest)."
        raise ValueError(_checks.text(function, argument, must, repr(value), remedy))
    least, greatest = (_checks.number(function, argument, v, dtype) for v in value)
    return least, greatest
