"""All pairs beyond a threshold: a fixed one, or one that the row's other side sets."""

from functools import partial

import jax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.miners import _slots
from jaxmetric.pairs import Pairs
from jaxmetric.relations import Labels

__all__ = ["multi_similarity", "pair_margin"]


def multi_similarity(
    embeddings: jax.Array,
    labels: Labels,
    *,
    epsilon: ArrayLike = 0.1,
    distance: Distance = "cosine",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    size: int | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Pairs:
    """Return the pairs that the hardest pair of the other kind does not outdo by far.

    positive kept if  s_p - epsilon < max_n s_n
    negative kept if  s_n + epsilon > min_p s_p

    An anchor without a positive or without a negative gives no pair. The selection of
    `multi_similarity_loss` in its paper.

    Args:
      embeddings: [batch, dim] floating.
      labels: [batch] integer, or a `jaxmetric.Relation`.
      epsilon: slack, in units of similarity; a number, a scalar array or one an anchor
        [batch].
      distance: similarities are s = 1 - d for "cosine", -d for any other.
      size: how many slots to return: the first valid ones. None returns a slot for
        every ordered pair of rows.
      precision, where, ids, ref_embeddings, ref_labels, ref_where, ref_ids, block_size,
        axis_name: as in `jaxmetric.losses`.

    Returns:
      `Pairs` of [batch * n] slots, or of [size].

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x n), with a `size` O(block x n + size).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
      >>> found = multi_similarity(x, jnp.array([0, 0, 1, 1]), size=4)
      >>> print(found.anchor, found.other)
      [1 1 2 2] [0 2 1 3]

    Source: Wang, Han, Huang, Dong, Scott. Multi-Similarity Loss with General Pair
    Weighting for Deep Metric Learning. CVPR 2019. arXiv:1904.06627, equations 5, 6.
    """
    function = "multi_similarity"
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
    _slots.check_size(function, size)
    rows, dtype = comparison.num_rows, comparison.dtype
    epsilon = _checks.number(function, "epsilon", epsilon, dtype, rows=rows)
    return _select(comparison, (epsilon,), (_multi_similarity_rows, size, block_size))


def pair_margin(
    embeddings: jax.Array,
    labels: Labels,
    *,
    positive_margin: ArrayLike = 0.2,
    negative_margin: ArrayLike = 0.8,
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
    axis_name: str | None = None,
) -> Pairs:
    """Return the positive pairs beyond one margin and the negatives within another.

    positive kept if  d > positive_margin
    negative kept if  d < negative_margin

    Both strictly: the pairs for which a contrastive loss of these margins is above 0.

    Args:
      embeddings: [batch, dim] floating.
      labels: [batch] integer, or a `jaxmetric.Relation`.
      positive_margin: in units of `distance`; a number, a scalar array or one an
        anchor [batch].
      negative_margin: likewise.
      distance: a name or a callable; see `pairwise_distance`.
      size: how many slots to return: the first valid ones. None returns a slot for
        every ordered pair of rows.
      precision, where, ids, ref_embeddings, ref_labels, ref_where, ref_ids, block_size,
        axis_name: as in `jaxmetric.losses`.

    Returns:
      `Pairs` of [batch * n] slots, or of [size].

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x n), with a `size` O(block x n + size).

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [1.5], [1.6]]), jnp.array([0, 0, 1, 1])
      >>> found = pair_margin(x, y, size=6)
      >>> print(found.anchor, found.other)
      [0 1 1 1 2 3] [1 0 2 3 1 1]
      >>> print(found.is_positive.astype(int))
      [1 1 0 0 0 0]
    """
    function = "pair_margin"
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
    _slots.check_size(function, size)
    number = partial(_checks.number, function, dtype=comparison.dtype)
    rows = comparison.num_rows
    margins = (
        number("positive_margin", positive_margin, rows=rows),
        number("negative_margin", negative_margin, rows=rows),
    )
    return _select(comparison, margins, (_pair_margin_rows, size, block_size))


@partial(jax.jit, static_argnames="options")
def _select(
    comparison: Comparison, hyper: tuple[jax.Array, ...], options: tuple
) -> Pairs:
    """Select by blocks; `rows(block, *hyper)` gives [b, n] positives and negatives."""
    rows, size, block_size = options

    def body(block: Block, *hyper: jax.Array) -> tuple[jax.Array, jax.Array]:
        positive, negative = rows(_slots.finite(block), *hyper)
        return positive | negative, positive

    search = _slots.measured(comparison)
    found = _slots.each_pair(search, body, hyper, size, block_size)
    anchor, other, is_positive, valid = found
    return _slots.pairs_of(anchor, other, is_positive.astype(bool), valid)


def _multi_similarity_rows(
    block: Block, epsilon: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the [b, n] masks of the positives and negatives that are kept."""
    s = block.similarities
    nearest_negative = _numerics.masked_max(s, block.negative)[:, None]
    farthest_positive = -_numerics.masked_max(-s, block.positive)[:, None]
    # Where a side is empty its extreme is infinite, and nothing of the other is kept.
    positive = block.positive & (s - epsilon < nearest_negative)
    return positive, block.negative & (s + epsilon > farthest_positive)


def _pair_margin_rows(
    block: Block, positive_margin: jax.Array, negative_margin: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the [b, n] masks of the positives and negatives that are kept."""
    d = block.distances
    positive = block.positive & (d > positive_margin)
    return positive, block.negative & (d < negative_margin)
