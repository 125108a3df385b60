"""Miners: which triplets or pairs of a batch a loss is to look at.

A miner returns indices in arrays of static shape with a `valid` flag, so it composes
with `jit`; slots without a result have index 0. Anchors index `embeddings`, the others
`ref_embeddings` (or `embeddings`, without them). Nothing is differentiated: a loss
that takes what a miner returns computes the chosen distances afresh. Equally good
candidates: the lowest index. Shared arguments are those of `jaxmetric.losses`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _rows, _selection, pairs
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.pairs import Triplets

__all__ = ["batch_hard", "random_triplets", "semi_hard"]

# Rows of masks looked at together when triplets are drawn.
_DRAWN_TOGETHER = 256


def batch_hard(
    embeddings: jax.Array,
    labels: ArrayLike,
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
      labels: [batch] integer. Only equality is used.
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


def semi_hard(
    embeddings: jax.Array,
    labels: ArrayLike,
    *,
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
) -> Triplets:
    """Return each positive pair with the nearest negative strictly beyond it.

    Where no negative is farther than the positive, the farthest negative is taken: the
    rule of TF-Addons and sentence-transformers, and of `semi_hard_triplet_loss`.

    Args:
      embeddings: [batch, dim] floating.
      labels: [batch] integer. Only equality is used.
      distance: a name or a callable; see `pairwise_distance`.
      size: how many slots to return: the first valid ones, in the order of anchor and
        positive. None returns a slot for every ordered pair of rows.
      precision, where, ids, ref_embeddings, ref_labels, ref_where, ref_ids, block_size,
        axis_name: as in `jaxmetric.losses`.

    Returns:
      `Triplets` of [batch * n] slots, or of [size].

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x n).

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> print(semi_hard(x, y, size=4).negative)
      [2 2 0 1]

    Source: Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832,
    section 3.2.
    """
    function = "semi_hard"
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
    if size is not None:
        _checks.positive_int(function, "size", size)
    return _semi_hard(comparison, size, block_size)


def random_triplets(
    key: jax.Array,
    labels: ArrayLike,
    *,
    num_triplets: int,
    where: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
) -> Triplets:
    """Draw triplets at random, from the labels alone.

    The anchor is uniform among those with a positive and a negative, then each of the
    two is uniform among its candidates; with replacement. Without such an anchor every
    slot is invalid.

    Args:
      key: a `jax.random` key.
      labels: [batch] integer. Only equality is used.
      num_triplets: how many slots to draw.
      where: [batch] bool, which rows exist. ids: [batch] names of samples.
      ref_labels: [n] integer labels of the other side, if positives and negatives come
        from there; ref_where, ref_ids: [n], likewise.

    Returns:
      `Triplets` of [num_triplets] slots.

    Raises:
      ValueError: shapes or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(num_triplets), and a block of rows of masks.

    Example:
      >>> import jax
      >>> drawn = random_triplets(
      ...     jax.random.key(0), jax.numpy.array([0, 0, 1]), num_triplets=2
      ... )
      >>> print(drawn.negative, drawn.valid)
      [2 2] [ True  True]
    """
    function = "random_triplets"
    _checks.positive_int(function, "num_triplets", num_triplets)
    labels = _checks.label_rows(function, "labels", labels)
    where = _checks.mask(function, "where", where, labels, "labels")
    if ids is not None:
        ids = _checks.integers(function, "ids", ids, labels, "labels")
    index = jnp.arange(labels.shape[0], dtype=jnp.int32)
    anchors = pairs.Side(labels, where, ids, index)
    references = anchors
    if ref_labels is not None:
        ref_labels = _checks.label_rows(function, "ref_labels", ref_labels)
        ref_where = _checks.mask(
            function, "ref_where", ref_where, ref_labels, "ref_labels"
        )
        if ref_ids is not None:
            ref_ids = _checks.integers(
                function, "ref_ids", ref_ids, ref_labels, "ref_labels"
            )
        anchors = anchors._replace(index=None)
        references = pairs.Side(ref_labels, ref_where, ref_ids, None)
    return _draw(key, anchors, references, num_triplets)


@partial(jax.jit, static_argnames="block_size")
def _batch_hard(comparison: Comparison, block_size: int | None) -> Triplets:
    """Search by blocks; one slot an anchor."""
    comparison = _rows.gather(comparison)
    search = _rows.to_search(comparison, _rows.prepare(comparison))
    p, n, valid = _rows.map_rows(*search, _selection.hardest, (), block_size)
    anchor = jnp.arange(comparison.num_rows, dtype=jnp.int32)
    return _slots(anchor, p, n, valid)


@partial(jax.jit, static_argnames=("size", "block_size"))
def _semi_hard(
    comparison: Comparison, size: int | None, block_size: int | None
) -> Triplets:
    """Search by blocks; a slot for every pair of an anchor and a reference."""
    comparison = _rows.gather(comparison)
    search = _rows.to_search(comparison, _rows.prepare(comparison))
    negative, valid = _rows.map_rows(
        *search, _semi_hard_rows, (), block_size, by_class=True
    )
    shape = negative.shape
    anchor = lax.broadcasted_iota(jnp.int32, shape, 0)
    positive = lax.broadcasted_iota(jnp.int32, shape, 1)
    slots = tuple(a.reshape(-1) for a in (anchor, positive, negative, valid))
    if size is not None:
        (kept,) = jnp.nonzero(slots[3], size=size, fill_value=-1)
        anchor, positive, negative, _ = (a[kept] for a in slots)
        slots = anchor, positive, negative, kept >= 0
    return _slots(*slots)


def _semi_hard_rows(block: Block) -> tuple[jax.Array, jax.Array]:
    """Return [b, n] negatives of each positive, and which references are positives."""
    d, rows = block.distances, jnp.arange(block.where.size)
    select = _selection.semi_hard(block, d)

    def step(slot: jax.Array, state: tuple) -> tuple:
        negative, valid = state
        p, n, exists = select(slot)
        # A row without a pair in this slot writes past the end, that is, nowhere.
        column = jnp.where(exists, p, d.shape[1])
        negative = negative.at[rows, column].set(n, mode="drop")
        return negative, valid.at[rows, column].set(True, mode="drop")

    start = jnp.zeros(d.shape, jnp.int32), jnp.zeros(d.shape, bool)
    return _selection.visit_positives(step, start, block)


@partial(jax.jit, static_argnames="num_triplets")
def _draw(
    key: jax.Array, anchors: pairs.Side, references: pairs.Side, num_triplets: int
) -> Triplets:
    """Draw anchors among those that have both, then their positives and negatives."""

    def counts(row: pairs.Side) -> tuple[jax.Array, jax.Array]:
        masks = pairs.pair_masks(jax.tree.map(lambda a: a[None], row), references)
        num_positives, num_negatives = (jnp.sum(m, dtype=jnp.int32) for m in masks)
        return num_positives, num_negatives

    num_positives, num_negatives = lax.map(counts, anchors, batch_size=_DRAWN_TOGETHER)
    has_both = (num_positives > 0) & (num_negatives > 0)
    key_a, key_p, key_n = jax.random.split(key, 3)
    num_anchors = jnp.sum(has_both, dtype=jnp.int32)
    shape = (num_triplets,)
    which = jax.random.randint(key_a, shape, 0, jnp.maximum(num_anchors, 1))
    anchor = jnp.minimum(
        jnp.searchsorted(jnp.cumsum(has_both, dtype=jnp.int32), which, side="right"),
        has_both.size - 1,
    ).astype(jnp.int32)
    which_p = jax.random.randint(key_p, shape, 0, jnp.maximum(num_positives[anchor], 1))
    which_n = jax.random.randint(key_n, shape, 0, jnp.maximum(num_negatives[anchor], 1))

    def pick(drawn: tuple) -> tuple[jax.Array, jax.Array]:
        row, *ranks = drawn
        masks = pairs.pair_masks(
            jax.tree.map(lambda a: a[row][None], anchors), references
        )
        # The candidate of rank r is the first column that has r + 1 of them up to it.
        seen = (jnp.cumsum(m[0], dtype=jnp.int32) for m in masks)
        p, n = (
            jnp.sum(s <= rank, dtype=jnp.int32)
            for s, rank in zip(seen, ranks, strict=True)
        )
        return p, n

    p, n = lax.map(pick, (anchor, which_p, which_n), batch_size=_DRAWN_TOGETHER)
    return _slots(anchor, p, n, jnp.broadcast_to(num_anchors > 0, shape))


def _slots(
    anchor: jax.Array, positive: jax.Array, negative: jax.Array, valid: jax.Array
) -> Triplets:
    """Return triplets whose invalid slots hold index 0."""
    a, p, n = (jnp.where(valid, index, 0) for index in (anchor, positive, negative))
    return Triplets(a, p, n, valid)
