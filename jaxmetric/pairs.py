"""Who may be compared with whom: labels, ids and `where` of both sides to masks.

Labels and ids are only ever compared for equality, as integers. "Self" is decided by
index, never by distance, label or the identity of an array.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import relations
from jaxmetric.relations import Relation

__all__ = [
    "ClassSegments",
    "Pairs",
    "RowSegments",
    "Side",
    "Triplets",
    "class_segments",
    "comparable",
    "has_finite_weights",
    "pair_masks",
    "pair_weights",
    "row_segments",
]


class Side(NamedTuple):
    """What is known of the rows of one side, embeddings apart.

    Attributes:
      labels: [n] integer classes; None on both sides where the anchors have a relation.
      where: [n] bool, which rows exist.
      ids: [n] integer names of the samples behind the rows, or None.
      index: [n] int32 position of each row among the references, or None where the
        rows are not among them.
      relation: of anchors, [n, references] masks or weights in place of labels.
    """

    labels: Any
    where: jax.Array
    ids: jax.Array | None
    index: jax.Array | None
    relation: Relation | None = None


def pair_masks(anchors: Side, references: Side) -> tuple[jax.Array, jax.Array]:
    """Return the [m, n] bool masks of positive and of negative pairs.

    positive: equal labels, both rows exist, not the same row, not the same sample
    negative: other labels, both rows exist, not the same row, not the same sample

    With a relation its masks stand for equal and other labels.

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
    allowed = comparable(anchors, references)
    if anchors.relation is None:
        is_equal = anchors.labels[:, None] == references.labels[None, :]
        return is_equal & allowed, ~is_equal & allowed
    positive, negative = relations.masks(anchors.relation)
    return positive & allowed, negative & allowed


def comparable(anchors: Side, references: Side) -> jax.Array:
    """Return [m, n] bool: both rows exist, and are not one row or one sample."""
    allowed = anchors.where[:, None] & references.where[None, :]
    if anchors.ids is not None and references.ids is not None:
        allowed &= anchors.ids[:, None] != references.ids[None, :]
    if anchors.index is not None:
        columns = lax.broadcasted_iota(jnp.int32, allowed.shape, 1)
        allowed &= anchors.index[:, None] != columns
    return allowed


def pair_weights(
    relation: Relation | None, positive: jax.Array, negative: jax.Array, dtype: Any
) -> jax.Array | None:
    """Return the [m, n] soft weights of pairs, 0 elsewhere; None where all are 1.

    Args:
      relation: of the anchors, or None.
      positive, negative: [m, n], its masks.
      dtype: of the weights.
    """
    if relation is None or all(a.dtype == bool for a in relation):
        return None
    of_positives, of_negatives = (a.astype(dtype) for a in relation)
    # Selected, not multiplied: a weight outside of the masks may be NaN.
    others = jnp.where(negative, of_negatives, 0)
    return jnp.where(positive, of_positives, others)


def has_finite_weights(anchors: Side, references: Side) -> jax.Array:
    """Return whether the weights of all pairs that can be compared are finite."""
    is_good = jnp.array(True)
    for weights in anchors.relation or ():
        if weights.dtype != bool:
            allowed = comparable(anchors, references)
            is_good &= jnp.all(jnp.isfinite(weights) | ~allowed)
    return is_good


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


class RowSegments(NamedTuple):
    """The positives of each row of a block, numbered from the left.

    What `ClassSegments` is to labels, made of masks that need not be classes.

    Attributes:
      rank: [b, n] int32, how many positives a row has up to and with each column.
      size: [b] int32, how many it has.
    """

    rank: jax.Array
    size: jax.Array

    def candidate(self, slot: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return each row's positive number `slot`, [b], and whether it has one."""
        column = jnp.sum(self.rank <= slot, -1, dtype=jnp.int32)
        return jnp.minimum(column, self.rank.shape[1] - 1), slot < self.size


def row_segments(positive: jax.Array) -> RowSegments:
    """Number the positives of each row of a [b, n] mask.

    Memory: O(b n).
    """
    rank = jnp.cumsum(positive, -1, dtype=jnp.int32)
    return RowSegments(rank, rank[:, -1])


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
