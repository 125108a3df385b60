"""Who may be compared with whom: labels, ids and `where` of both sides to masks.

Labels and ids are only ever compared for equality, as integers. "Self" is decided by
index, never by distance, label or the identity of an array.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["ClassSegments", "Pairs", "Side", "Triplets", "class_segments", "pair_masks"]


class Side(NamedTuple):
    """What is known of the rows of one side, embeddings apart.

    Attributes:
      labels: [n] integer classes.
      where: [n] bool, which rows exist.
      ids: [n] integer names of the samples behind the rows, or None.
      index: [n] int32 position of each row among the references, or None where the
        rows are not among them.
    """

    labels: jax.Array
    where: jax.Array
    ids: jax.Array | None
    index: jax.Array | None


def pair_masks(anchors: Side, references: Side) -> tuple[jax.Array, jax.Array]:
    """Return the [m, n] bool masks of positive and of negative pairs.

    positive: equal labels, both rows exist, not the same row, not the same sample
    negative: other labels, both rows exist, not the same sample

    Args:
      anchors: of m rows; an `index` excludes the pair of a row with itself.
      references: of n rows; the `index` is not used.

    Memory: O(m n).

    Example:
      >>> import jax.numpy as jnp
      >>> rows = Side(jnp.array([0, 0, 1]), jnp.ones(3, bool), None, jnp.arange(3))
      >>> positive, negative = pair_masks(rows, rows)
      >>> print(positive.astype(int))
      [[0 1 0]
       [1 0 0]
       [0 0 0]]
    """
    is_equal = anchors.labels[:, None] == references.labels[None, :]
    allowed = anchors.where[:, None] & references.where[None, :]
    if anchors.ids is not None and references.ids is not None:
        allowed &= anchors.ids[:, None] != references.ids[None, :]
    positive = is_equal & allowed
    if anchors.index is not None:
        columns = lax.broadcasted_iota(jnp.int32, positive.shape, 1)
        positive &= anchors.index[:, None] != columns
    return positive, ~is_equal & allowed


class Triplets(NamedTuple):
    """Chosen triplets, of a static number of slots.

    Attributes:
      anchor: [t] int32 rows of the embeddings.
      positive, negative: [t] int32 rows of the references (in self mode, embeddings).
      valid: [t] bool; the indices of an invalid slot are 0.
    """

    anchor: jax.Array
    positive: jax.Array
    negative: jax.Array
    valid: jax.Array


class Pairs(NamedTuple):
    """Chosen pairs, of a static number of slots.

    Attributes:
      anchor: [t] int32 rows of the embeddings.
      other: [t] int32 rows of the references (the embeddings in self mode).
      is_positive: [t] bool.
      valid: [t] bool; the indices of an invalid slot are 0.
    """

    anchor: jax.Array
    other: jax.Array
    is_positive: jax.Array
    valid: jax.Array


class ClassSegments(NamedTuple):
    """References in the order of their labels: every class is one segment.

    Attributes:
      order: [n] int32 references sorted by label, those that do not exist last.
      start: [m] int32 where the segment of each anchor's class starts in `order`.
      size: [m] int32 how many candidates it holds, the anchor itself left out.
      own: [m] int32 position of the anchor inside its segment, or one past its end.
    """

    order: jax.Array
    start: jax.Array
    size: jax.Array
    own: jax.Array

    def candidate(self, slot: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return each anchor's candidate number `slot`, [m], and whether it has one."""
        position = self.start + slot + (slot >= self.own).astype(jnp.int32)
        last = self.order.shape[0] - 1
        return self.order[jnp.minimum(position, last)], slot < self.size


def class_segments(anchors: Side, references: Side) -> ClassSegments:
    """Sort the references by label, so that an anchor's positives are a short loop.

    A sort of the labels has one dimension; a loop over the largest class in the batch
    then visits every positive pair once. Candidates of equal ids are still in: ask
    the masks.

    Args:
      anchors: of m rows.
      references: of n rows.

    Memory: O(m + n). Time: O((m + n) log n).
    """
    n = references.labels.shape[0]
    iota = jnp.arange(n, dtype=jnp.int32)
    missing = (~references.where).astype(jnp.int32)
    _, ordered, order = lax.sort((missing, references.labels, iota), num_keys=2)
    # The tail of missing rows gets the largest label, so that all is in order; it is
    # cut off again where a class of that very label reaches into it.
    num_existing = n - jnp.sum(missing, dtype=jnp.int32)
    largest = jnp.iinfo(ordered.dtype).max
    ordered = jnp.where(iota < num_existing, ordered, largest)
    start = _count_before(ordered, anchors.labels, inclusive=False)
    stop = _count_before(ordered, anchors.labels, inclusive=True)
    size = jnp.minimum(stop, num_existing) - start
    if anchors.index is None:
        return ClassSegments(order, start, jnp.where(anchors.where, size, 0), size)
    rank = jnp.zeros(n, jnp.int32).at[order].set(iota)
    own = rank[anchors.index] - start
    return ClassSegments(order, start, jnp.where(anchors.where, size - 1, 0), own)


def _count_before(
    ordered: jax.Array, values: jax.Array, *, inclusive: bool
) -> jax.Array:
    """Return [m] int32 how many of the [n] ordered are below (or at) each value."""
    # A binary search without a loop, whose carry would have a type per mapped axis.
    n = ordered.shape[0]
    low = jnp.zeros(values.shape, jnp.int32)
    high = jnp.full(values.shape, n, jnp.int32)
    for _ in range(n.bit_length()):
        middle = (low + high) // 2
        found = ordered[jnp.minimum(middle, n - 1)]
        is_before = (found <= values if inclusive else found < values) & (middle < n)
        low = jnp.where(is_before & (low < high), middle + 1, low)
        high = jnp.where(is_before, high, middle)
    return low
