"""Lifted structures: positive pairs against a soft minimum over all negatives."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows, reductions
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["generalized_lifted_structure_loss", "lifted_structure_loss"]


def lifted_structure_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 1.0,
    positive_margin: ArrayLike = 0.0,
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
    """Pull each positive pair nearer than the negatives of both of its ends.

    L = mean over ordered positive pairs (a, p) of
        1/2 max(0, log(exp l_a + exp l_p) + d(a, p) - positive_margin)^2
    l_i = logsumexp_n (margin - d(i, n)) over the negatives of i

    A pair counts if one of its ends has a negative; without any such pair the loss is
    0. References have no negatives of their own: with `ref_embeddings` the bracket is
    l_a + d(a, p) - positive_margin (PML 2.9 takes wrong rows there, 3.x refuses).

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      margin: in units of `distance`; a number, a scalar array or one a row [batch].
      positive_margin: likewise; one an anchor.
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward. The distances are computed twice.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
      >>> print(f"{lifted_structure_loss(x, y, margin=3.0):.4f}")
      2.6756

    Source: Oh Song, Xiang, Jegelka, Savarese. Deep Metric Learning via Lifted
    Structured Feature Embedding. CVPR 2016. arXiv:1511.06452, equation 4.
    """
    function = "lifted_structure_loss"
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
    hyper = _margins(function, comparison, margin, positive_margin)
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    return _lifted_structure(comparison, hyper, (reduction, block_size))


def generalized_lifted_structure_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 1.0,
    positive_margin: ArrayLike = 0.0,
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
    """Pull each anchor's positives nearer than its negatives, both taken softly.

    L = mean over anchors of
        max(0, logsumexp_p (d(a, p) - positive_margin) + logsumexp_n (margin - d(a, n)))

    The smooth relatives of the farthest positive and the nearest negative of
    `batch_hard_triplet_loss`. An anchor counts if it has a positive and a negative;
    without any such anchor the loss is 0. In PML a row without positives takes 0 for
    their logsumexp, so that it still repels, and is averaged in.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      margin: in units of `distance`; a number, a scalar array or one an anchor
        [batch].
      positive_margin: likewise.
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
      >>> print(f"{generalized_lifted_structure_loss(x, y, margin=3.0):.4f}")
      1.5000

    Source: Hermans, Beyer, Leibe. In Defense of the Triplet Loss for Person
    Re-Identification. 2017. arXiv:1703.07737, equation 8.
    """
    function = "generalized_lifted_structure_loss"
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
    return _rows.row_loss(
        comparison,
        _generalized_lifted_rows,
        _margins(function, comparison, margin, positive_margin),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _margins(
    function: str, comparison: Comparison, margin: ArrayLike, positive_margin: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Return both margins in the dtype of the distances, scalars or one an anchor."""
    number = partial(_checks.number, function, dtype=comparison.dtype)
    rows = comparison.num_rows
    return (
        number("margin", margin, rows=rows),
        number("positive_margin", positive_margin, rows=rows),
    )


@partial(jax.jit, static_argnames="options")
def _lifted_structure(
    comparison: Comparison, hyper: tuple[jax.Array, jax.Array], options: tuple
) -> jax.Array | LossStats:
    """Find every row's level of negatives, then bring both ends of a pair together."""
    reduction, block_size = options
    margin, positive_margin = hyper
    is_self = comparison.y is None
    comparison = _rows.gather(comparison)
    geometry = _rows.prepare(comparison)
    level, exists = _rows.map_rows(
        comparison, geometry, _negative_level, (margin,), block_size
    )
    others = None
    if is_self:
        others = tuple(
            _rows.gather_rows(a, comparison.axis_name)[None, :] for a in (level, exists)
        )

    def rows(
        block: Block, level: jax.Array, exists: jax.Array, positive_margin: jax.Array
    ) -> LossStats:
        return _lifted_rows(block, level, exists, positive_margin, others)

    per_row = (level, exists, positive_margin)
    stats = _rows.map_rows(comparison, geometry, rows, per_row, block_size)
    return _rows.finish(comparison, stats, reduction)


def _negative_level(block: Block, margin: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return logsumexp_n (margin - d_n), [b], and whether there is a negative."""
    return _numerics.masked_logsumexp(margin - block.distances, block.negative)


def _lifted_rows(
    block: Block,
    level: jax.Array,
    exists: jax.Array,
    positive_margin: jax.Array,
    others: tuple[jax.Array, ...] | None,
) -> LossStats:
    """Sum over p of 1/2 [log(e^l + e^l_p) + d_p - positive_margin]+^2, [b, n].

    `level` and `exists` are columns [b, 1], `others` the same of the references, rows
    [1, n].
    """
    joint, has_level = level, exists
    if others is not None:
        level_p, exists_p = others
        both = level + jax.nn.softplus(level_p - level)
        joint = jnp.where(exists, jnp.where(exists_p, both, level), level_p)
        has_level = exists | exists_p
    violation = _numerics.relu(joint + block.distances - positive_margin)
    return _rows.pair_terms(violation * violation / 2, block.positive & has_level)


def _generalized_lifted_rows(
    block: Block, margin: jax.Array, positive_margin: jax.Array
) -> LossStats:
    """Hinge of both logsumexps, for [b, n] distances."""
    d = block.distances
    pull, _ = _numerics.masked_logsumexp(d - positive_margin, block.positive)
    push, _ = _numerics.masked_logsumexp(margin - d, block.negative)
    return _rows.anchor_terms(_numerics.relu(pull + push), block.has_both)
