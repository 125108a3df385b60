"""The hardest share of all pairs of a batch."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.miners import _slots
from jaxmetric.pairs import Pairs
from jaxmetric.relations import Labels

__all__ = ["hard_pairs"]


def hard_pairs(
    embeddings: jax.Array,
    labels: Labels,
    *,
    fraction: ArrayLike = 0.5,
    distance: Distance = "euclidean",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    size: int | None = None,
    block_size: int | None = None,
) -> Pairs:
    """Return the farthest positive and the nearest negative pairs of the whole batch.

    ceil(fraction * number) of each kind, of all ordered pairs of that kind; among equal
    distances those of the lowest anchor, then other. It compares pairs of different
    anchors, so there is no `axis_name`.

    Args:
      embeddings: [batch, dim] floating.
      labels: [batch] integer, or a `jaxmetric.Relation`.
      fraction: 0 to 1; a number or a scalar array.
      distance: a name or a callable; see `pairwise_distance`.
      size: how many slots to return: the first valid ones, by anchor and other. None
        returns a slot for every ordered pair of rows.
      precision, where, ids, ref_embeddings, ref_labels, ref_where, ref_ids, block_size:
        as in `jaxmetric.losses`.

    Returns:
      `Pairs` of [batch * n] slots, or of [size].

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x n). Time: O(batch n (dim + log(batch n))).

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> found = hard_pairs(x, y, fraction=0.25, size=3)
      >>> print(found.anchor, found.other, found.is_positive)
      [1 2 2] [2 1 3] [False False  True]

    Source: Yuan, Yang, Zhang. Hard-Aware Deeply Cascaded Embedding. ICCV 2017.
    arXiv:1611.05720.
    """
    function = "hard_pairs"
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
    )
    _checks.block_size(function, block_size)
    _slots.check_size(function, size)
    fraction = _checks.number(
        function, "fraction", fraction, comparison.dtype, at_least=0
    )
    return _hard_pairs(comparison, fraction, size, block_size)


@partial(jax.jit, static_argnames=("size", "block_size"))
def _hard_pairs(
    comparison: Comparison,
    fraction: jax.Array,
    size: int | None,
    block_size: int | None,
) -> Pairs:
    """Rank all pairs of each kind at once."""
    comparison, geometry = _slots.measured(comparison)
    search = _rows.to_search(comparison, geometry)

    def body(block: Block) -> tuple[jax.Array, jax.Array, jax.Array]:
        block = _slots.finite(block)
        return block.distances, block.positive, block.negative

    d, positive, negative = _rows.map_rows(*search, body, (), block_size)
    anchor = lax.broadcasted_iota(jnp.int32, d.shape, 0).reshape(-1)
    other = lax.broadcasted_iota(jnp.int32, d.shape, 1).reshape(-1)
    d, positive, negative = (a.reshape(-1) for a in (d, positive, negative))
    positive = _largest(d, positive, fraction)
    valid = positive | _largest(-d, negative, fraction)
    if size is not None:
        (kept,) = jnp.nonzero(valid, size=size, fill_value=-1)
        anchor, other, positive = (a[kept] for a in (anchor, other, positive))
        valid = kept >= 0
    return _slots.pairs_of(anchor, other, positive, valid)


def _largest(values: jax.Array, mask: jax.Array, fraction: jax.Array) -> jax.Array:
    """Return the mask of the largest share of the masked [k] values, rounded up."""
    number = jnp.sum(mask, dtype=jnp.int32)
    share = fraction * number.astype(values.dtype)
    # A fraction like 0.1 is not exact: what is a whole number but for rounding is one.
    share = jnp.ceil(share * (1 - 4 * jnp.finfo(share.dtype).eps)).astype(jnp.int32)
    share = jnp.clip(share, 0, number)
    order = jnp.sort(jnp.where(mask, -values, jnp.inf))
    last = -order[jnp.maximum(share - 1, 0)]
    is_above, is_last = mask & (values > last), mask & (values == last)
    rest = share - jnp.sum(is_above, dtype=jnp.int32)
    is_first = jnp.cumsum(is_last, dtype=jnp.int32) <= rest
    return (is_above | (is_last & is_first)) & (share > 0)
