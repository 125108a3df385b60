"""Triplet losses whose terms are a part of the positive plus a part of the negative.

Such a sum over all triplets is a sum over pairs: every positive pair counts once for
each negative of its anchor, every negative pair once for each positive.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows, _selection, relations
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["lossless_triplet_loss", "margin_loss"]


def margin_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 0.2,
    beta: ArrayLike = 1.2,
    nu: ArrayLike = 0.0,
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
    """Keep positives inside a boundary and negatives outside, each by a margin.

    L = mean over (a, p, n) of  max(0, (d(a, p) + margin) - beta_a)
                                max(0, (beta_a + margin) - d(a, n))      two terms each
        + nu mean over counted anchors of beta_a

    A pair weighs as often as it occurs in a valid triplet; without a triplet the loss
    is 0. The boundary is learned with the encoder where `beta` is an argument of the
    gradient: one number, or one a class. `nu` (> 0 wants a small boundary) is added to
    every mean; under "sum" and "none" each term carries nu beta_a instead, which for a
    single boundary makes the same mean. PML adds it to boundaries that it learns only.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised; the paper does.
      labels: [batch] integer. Only equality is used, unless `beta` is one a class.
      margin: half the gap, in units of `distance`; a number, a scalar array or one an
        anchor [batch].
      beta: the boundary, in units of `distance`; a number, a scalar array or one a
        class [C], of which labels 0..C-1 then name the entries.
      nu: how much the boundaries themselves cost.
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward; no triplet is ever formed.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> print(f"{margin_loss(x, y, margin=1.0, beta=2.0):.4f}")
      0.8750

    Source: Wu, Manmatha, Smola, Krähenbühl. Sampling Matters in Deep Embedding
    Learning. ICCV 2017. arXiv:1706.07567, equation 5.
    """
    function = "margin_loss"
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
    dtype, rows = comparison.dtype, comparison.num_rows
    margin = _checks.number(function, "margin", margin, dtype, rows=rows)
    comparison, boundary = _boundaries(comparison, function, beta, labels)
    has_cost = not (isinstance(nu, int | float) and nu == 0)
    nu = _checks.number(function, "nu", nu, dtype)
    row_loss = partial(
        _rows.row_loss, comparison, block_size=block_size, function=function
    )
    is_mean = reduction not in ("sum", "none")
    loss = row_loss(
        _margin_rows, (margin, boundary, nu), (not is_mean,), reduction=reduction
    )
    if has_cost and is_mean:
        mean = row_loss(_boundary_rows, (boundary,), reduction="mean")
        return loss + nu * mean  # pyright: ignore (scalars under a mean)
    return loss


def lossless_triplet_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    max_distance: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    epsilon: ArrayLike = 1e-8,
    distance: Distance = "sqeuclidean",
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
    """Pull positives to distance 0 and push negatives to the largest there is.

    L = mean over (a, p, n) of - log max(1 - d(a, p) / beta, epsilon)
                               - log max(1 - (max_distance - d(a, n)) / beta, epsilon)

    There is no hinge: a triplet keeps its gradient until both are reached. The distance
    is squared Euclidean by default, and rows are meant to lie in [0, 1]^dim (a sigmoid
    at the end) or, with max_distance=4, on the unit sphere; farther negatives have
    terms below 0. Without a valid triplet the loss is 0. The post writes 1 - u +
    epsilon in place of the maximum, which in float32 is 0 at u = 1 and its log
    infinite: here each part ends at -log(epsilon), beyond which it has no gradient.

    Args:
      embeddings: [batch, dim] floating.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      max_distance: the largest distance that two rows can have; None for `dim`.
      beta: where the cost of a distance becomes infinite; None for `max_distance`.
      epsilon: > 0, where the cost is cut off.
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward; no triplet is ever formed. Time:
    O(batch^2 (dim + largest class)), of which the last only for `num_active`.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
      >>> print(f"{lossless_triplet_loss(x, jnp.array([0, 0, 1])):.4f}")
      1.0397

    Source: Arsenault. Lossless Triplet Loss. Blog post, Towards Data Science, 2018.
    """
    function = "lossless_triplet_loss"
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
    number = partial(_checks.number, function, dtype=comparison.dtype, above=0)
    if max_distance is None:
        max_distance = comparison.x.shape[1]
    largest = number("max_distance", max_distance)
    beta = largest if beta is None else number("beta", beta)
    return _rows.row_loss(
        comparison,
        _lossless_rows,
        (largest, beta, number("epsilon", epsilon)),
        function=function,
        reduction=reduction,
        block_size=block_size,
        by_class=True,
    )


def _boundaries(
    comparison: Comparison, function: str, beta: ArrayLike, labels: Labels
) -> tuple[Comparison, jax.Array]:
    """Return the [batch] boundaries of the anchors; the loss is NaN if one has none."""
    dtype, rows = comparison.dtype, comparison.num_rows
    if np.ndim(beta) != 1:
        beta = _checks.number(function, "beta", beta, dtype)
        return comparison, jnp.broadcast_to(beta, (rows,))
    relations.refuse(function, labels)
    num_classes = np.shape(beta)[0]
    beta = _checks.weights(function, beta, num_classes, dtype, argument="beta")
    mine = comparison.anchors.labels
    known = _checks.classes(function, labels, mine, num_classes, of="beta")  # pyright: ignore (labels)
    is_valid = comparison.is_valid & jnp.all(known | ~comparison.anchors.where)
    return (
        dataclasses.replace(comparison, is_valid=is_valid),
        beta[jnp.where(known, mine, 0)],
    )


def _margin_rows(
    block: Block,
    margin: jax.Array,
    boundary: jax.Array,
    nu: jax.Array,
    has_cost: bool,
) -> LossStats:
    """Sum over p, n of [d_p + margin - beta]+ and [beta + margin - d_n]+, [b, n]."""
    d = block.distances
    inside = jnp.where(block.positive, (d + margin) - boundary, 0)
    outside = jnp.where(block.negative, (boundary + margin) - d, 0)
    total = _over_triplets(block, _numerics.relu(inside), _numerics.relu(outside))
    num_terms = 2 * _num_triplets(block)
    if has_cost:
        total += nu * boundary[:, 0] * num_terms.astype(d.dtype)
    return LossStats(total, num_terms, _over_triplets(block, inside > 0, outside > 0))


def _boundary_rows(block: Block, boundary: jax.Array) -> LossStats:
    """The boundary of each anchor that has a triplet, as its one term."""
    return _rows.anchor_terms(boundary[:, 0], block.has_both)


def _lossless_rows(
    block: Block, max_distance: jax.Array, beta: jax.Array, epsilon: jax.Array
) -> LossStats:
    """Sum over p, n of the costs of d_p and of max_distance - d_n, [b, n]."""

    def cost(u: jax.Array) -> jax.Array:
        return -jnp.log(jnp.where(u > epsilon, u, epsilon))

    d = block.distances
    pull = cost(1 - d / beta)
    # 1 - (max_distance - d) / beta, without the digits of small d that 1 would cost.
    push = cost((beta - max_distance + d) / beta)
    total = _over_triplets(
        block, jnp.where(block.positive, pull, 0), jnp.where(block.negative, push, 0)
    )
    num_active = _num_above_zero(block, pull, push)
    return LossStats(total, _num_triplets(block), num_active)


def _over_triplets(block: Block, positive: jax.Array, negative: jax.Array) -> jax.Array:
    """Return [b] sums over all p, n of the [b, n] numbers of p and of n."""
    dtype = jnp.int32 if positive.dtype == bool else positive.dtype
    num_positives = jnp.sum(block.positive, -1, dtype=dtype)
    num_negatives = jnp.sum(block.negative, -1, dtype=dtype)
    of_positives = jnp.sum(positive, -1, dtype=dtype)
    return num_negatives * of_positives + num_positives * jnp.sum(
        negative, -1, dtype=dtype
    )


def _num_triplets(block: Block) -> jax.Array:
    """Return [b] int32 numbers of valid triplets."""
    num_positives = jnp.sum(block.positive, -1, dtype=jnp.int32)
    return num_positives * jnp.sum(block.negative, -1, dtype=jnp.int32)


def _num_above_zero(block: Block, pull: jax.Array, push: jax.Array) -> jax.Array:
    """Return [b] int32 numbers of triplets with pull_p + push_n > 0, of [b, n] each."""
    segments, rows = block.segments, jnp.arange(block.where.size)
    pull, push = lax.stop_gradient((pull, push))
    assert segments is not None

    def count(slot: jax.Array, state: tuple) -> tuple:
        p, exists = segments.candidate(slot)
        exists &= block.positive[rows, p]
        is_active = block.negative & (pull[rows, p][:, None] + push > 0)
        found = jnp.sum(exists[:, None] & is_active, -1, dtype=jnp.int32)
        return (state[0] + found,)

    none = jnp.zeros(block.where.size, jnp.int32)
    return _selection.visit_positives(count, (none,), block)[0]
