"""Triplets drawn at random, without looking at embeddings."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, pairs, relations
from jaxmetric.miners import _slots
from jaxmetric.pairs import Triplets
from jaxmetric.relations import Labels, Relation

__all__ = ["random_triplets"]

# Rows of masks looked at together.
_DRAWN_TOGETHER = 256


def random_triplets(
    key: jax.Array,
    labels: Labels,
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
      labels: [batch] integer; or a `jaxmetric.Relation` [batch, n]. A square one
        without `ref_*` is of the batch with itself, its diagonal left out; with
        `ref_where` its columns are another side.
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
    if isinstance(labels, Relation):
        anchors, references = _related(
            function, labels, where, ids, ref_labels, ref_where, ref_ids
        )
        return _draw(key, anchors, references, num_triplets)
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


def _related(
    function: str,
    relation: Relation,
    where: ArrayLike | None,
    ids: ArrayLike | None,
    ref_labels: ArrayLike | None,
    ref_where: ArrayLike | None,
    ref_ids: ArrayLike | None,
) -> tuple[pairs.Side, pairs.Side]:
    """Return the anchors and references of a relation."""
    relations.refuse_ref_labels(function, ref_labels)
    shape = relations.shape_of(function, relation)
    relation = relations.check(function, relation, shape, "the references")
    rows, columns = jnp.zeros(shape[0]), jnp.zeros(shape[1])
    is_self = shape[0] == shape[1] and ref_where is None and ref_ids is None
    where = _checks.mask(function, "where", where, rows, "labels")
    if ids is not None:
        ids = _checks.integers(function, "ids", ids, rows, "labels")
    index = jnp.arange(shape[0], dtype=jnp.int32) if is_self else None
    anchors = pairs.Side(None, where, ids, index, relation)
    if is_self:
        return anchors, pairs.Side(None, where, ids, None)
    ref_where = _checks.mask(function, "ref_where", ref_where, columns, "labels")
    if ref_ids is not None:
        ref_ids = _checks.integers(function, "ref_ids", ref_ids, columns, "labels")
    return anchors, pairs.Side(None, ref_where, ref_ids, None)


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
    return _slots.triplets(anchor, p, n, jnp.broadcast_to(num_anchors > 0, shape))
