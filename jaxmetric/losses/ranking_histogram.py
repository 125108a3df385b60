"""Average precision on a histogram of distances, each row's own."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["fast_ap_loss"]


def fast_ap_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    num_bins: int = 10,
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
    """Raise the average precision that a histogram of distances shows.

    L = mean over anchors of 1 - (1 / num_p) sum_l h+_l H+_l / H_l

    The squared distances of the unit rows, in [0, 4], are spread over `num_bins` + 1
    nodes, each onto its two neighbours; h+ counts positives, h all others of the
    anchor, capitals are the sums up to a node. An anchor counts if it has a positive
    and a negative; without any such anchor the loss is 0. The sum is evaluated as
    (1 / num_p) sum_l h+_l H-_l / H_l, which is the same and exactly 0 for a perfect
    order.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      num_bins: a positive Python int.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward. Time: O(batch^2 (dim + num_bins)).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
      >>> print(f"{fast_ap_loss(x, jnp.array([0, 0, 1, 1])):.4f}")
      0.6667

    Source: Cakir, He, Xia, Kulis, Sclaroff. Deep Metric Learning to Rank. CVPR 2019,
    equation 10.
    """
    function = "fast_ap_loss"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance="cosine",
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
    _checks.positive_int(function, "num_bins", num_bins)
    return _rows.row_loss(
        comparison,
        _fast_ap_rows,
        (),
        (num_bins,),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _fast_ap_rows(block: Block, num_bins: int) -> LossStats:
    """(1 / num_p) sum_l h+_l H-_l / H_l, from the [b, n] distances.

    The h+ of all nodes add up to num_p, so this is 1 minus the average precision, and
    nothing cancels where that is nearly 1.
    """
    squares = 2 * block.distances
    width = 4 / num_bins

    @jax.checkpoint
    def count(node: jax.Array) -> tuple[jax.Array, jax.Array]:
        pulse = _numerics.relu(1 - _numerics.absolute(squares - node) / width)
        sides = (block.positive, block.negative)
        positives, negatives = (jnp.sum(jnp.where(s, pulse, 0), -1) for s in sides)
        return positives, negatives

    nodes = width * jnp.arange(num_bins + 1, dtype=squares.dtype)
    positives, negatives = lax.map(count, nodes)
    before = jnp.cumsum(negatives, axis=0)
    total = before + jnp.cumsum(positives, axis=0)
    wrong = jnp.sum(_numerics.quotient(positives * before, total), axis=0)
    num_positives = jnp.sum(block.positive, -1, dtype=squares.dtype)
    return _rows.anchor_terms(_numerics.quotient(wrong, num_positives), block.has_both)
