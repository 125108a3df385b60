"""Triplets found in the batch: all of them, or the hardest of each anchor.

Batch-all never forms the cube: it counts, without gradient, how often each distance
takes part in an active triplet, and lets a linear form carry the derivatives.
Batch-hard selects by index, then computes the selected distances afresh.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import (
    _checks,
    _comparison,
    _geometry,
    _hinges,
    _rows,
    _selection,
    reductions,
)
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.losses.triplets import triplet_terms
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = [
    "batch_all_triplet_loss",
    "batch_hard_triplet_loss",
]


def batch_all_triplet_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 0.2,
    soft: bool = False,
    distance: Distance = "euclidean",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    reduction: Reduction = "mean_active",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Pull equal labels nearer than other labels by a margin, over all triplets.

    L = sum over (a, p, n) of max(0, d(a, p) + margin - d(a, n)) / number above 0

    Every valid triplet is a term; by default the mean is over the active ones. Without
    a valid triplet the loss is 0. With `soft` the terms are softplus(d(a, p) - d(a, n))
    and the margin is not used.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      margin: in units of `distance`; a number, a scalar array or one an anchor
        [batch].
      soft: softplus instead of the hinge.
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward; the cube of all triplets is never
    formed. Time: O(batch^2 (dim + largest class)).

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> print(f"{batch_all_triplet_loss(x, y, margin=2.0):.4f}")
      2.6667

    Source: Hermans, Beyer, Leibe. In Defense of the Triplet Loss for Person
    Re-Identification. 2017. arXiv:1703.07737, equation 6.
    """
    function = "batch_all_triplet_loss"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance=distance,
        precision=precision,
        where=where,
        weights=weights,
        ids=ids,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        ref_ids=ref_ids,
        axis_name=axis_name,
    )
    rows = comparison.num_rows
    margin = _checks.number(function, "margin", margin, comparison.dtype, rows=rows)
    body = _batch_all_soft if soft else _batch_all_hinge
    return _rows.row_loss(
        comparison,
        body,
        (jnp.broadcast_to(margin, (rows,)),),
        function=function,
        reduction=reduction,
        block_size=block_size,
        by_class=True,
    )


def batch_hard_triplet_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 0.2,
    soft: bool = False,
    distance: Distance = "euclidean",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Pull each anchor's farthest positive nearer than its nearest negative.

    L = mean over anchors of max(0, max_p d(a, p) + margin - min_n d(a, n))

    An anchor counts if it has at least one positive and one negative; without any such
    anchor the loss is 0. Equally hard candidates: the lowest index gets the gradient.
    With `soft` the terms are softplus(max_p d - min_n d) and the margin is not used.
    The candidates are searched without gradient, their distances computed afresh in
    difference form. Unlike TF-Addons and sentence-transformers, anchors without a
    positive are not averaged in.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      margin: in units of `distance`; a number, a scalar array or one an anchor
        [batch].
      soft: softplus instead of the hinge.
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch) forward, O(batch x dim) backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> print(f"{batch_hard_triplet_loss(x, y, margin=2.0):.2f}")
      1.25

    Source: Hermans, Beyer, Leibe. In Defense of the Triplet Loss for Person
    Re-Identification. 2017. arXiv:1703.07737, equation 5.
    """
    function = "batch_hard_triplet_loss"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance=distance,
        precision=precision,
        where=where,
        weights=weights,
        ids=ids,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        ref_ids=ref_ids,
        axis_name=axis_name,
    )
    rows, dtype = comparison.num_rows, comparison.dtype
    margin = _checks.number(function, "margin", margin, dtype, rows=rows)
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    return _batch_hard(comparison, margin, (soft, reduction, block_size))


@partial(jax.jit, static_argnames="options")
def _batch_hard(
    comparison: Comparison, margin: jax.Array, options: tuple
) -> jax.Array | LossStats:
    """Select by index without gradient, then recompute what was selected."""
    soft, reduction, block_size = options
    comparison = _rows.gather(comparison)
    geometry = _rows.prepare(comparison)
    p, n, has_both = _selection.find_hardest(comparison, geometry, block_size)
    anchors = jnp.arange(comparison.num_rows)
    measure = partial(_geometry.pair_distances, geometry, comparison.distance, anchors)
    stats = triplet_terms(measure(p), measure(n), margin, has_both, soft)
    return _rows.finish(comparison, stats, reduction)


def _batch_all_hinge(block: Block, margin: jax.Array) -> LossStats:
    """Sum over p, n of max(0, (d_p + margin) - d_n), for [b, n] distances."""
    total, num_active = _hinges.hinge_sums(block, margin)
    return LossStats(total, _num_triplets(block), num_active)


def _batch_all_soft(block: Block, margin: jax.Array) -> LossStats:
    """Sum over p, n of softplus(d_p - d_n), for [b, n] distances."""
    del margin
    d, rows = block.distances, jnp.arange(block.where.size)

    def terms_of(p: jax.Array, exists: jax.Array) -> tuple[jax.Array, jax.Array]:
        is_term = exists[:, None] & block.negative
        terms = jax.nn.softplus(jnp.where(is_term, d[rows, p][:, None] - d, 0))
        terms = jnp.where(is_term, terms, 0)
        return jnp.sum(terms, -1), jnp.sum(terms > 0, -1, dtype=jnp.int32)

    zero = jnp.zeros(d.shape[0], d.dtype)
    total, num_active = _selection.sum_over_positives(
        block, terms_of, (zero, zero.astype(jnp.int32))
    )
    return LossStats(total, _num_triplets(block), num_active)


def _num_triplets(block: Block) -> jax.Array:
    """Return [b] int32 numbers of valid triplets."""
    num_positives = jnp.sum(block.positive, -1, dtype=jnp.int32)
    return num_positives * jnp.sum(block.negative, -1, dtype=jnp.int32)
