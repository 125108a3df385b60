"""Pairs: equal labels together, other labels apart, pair by pair."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import (
    _checks,
    _comparison,
    _geometry,
    _numerics,
    _rows,
    _strips,
    distances,
    reductions,
)
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["contrastive_loss", "pair_loss"]


def pair_loss(
    x: jax.Array,
    y: jax.Array,
    is_positive: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    squared: bool = True,
    distance: Distance = "euclidean",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array | LossStats:
    """Pull the pairs that belong together, push the others beyond a margin.

    squared=True   L = mean of 1/2 d^2 (positive), 1/2 max(0, margin - d)^2 (negative)
    squared=False  L = mean of d (positive), max(0, margin - d) (negative)

    Explicit pairs, row by row; distances in difference form. The halves are the
    paper's (TF-Addons has none: exactly twice this). `distance="cosine",
    squared=False, margin=1 - m` is `torch.nn.CosineEmbeddingLoss(margin=m)`. No
    existing row: 0.

    Args:
      x: [batch, dim] floating.
      y: [batch, dim] floating, row i of `y` with row i of `x`.
      is_positive: [batch] bool, or integers 0 and 1.
      margin: in units of `distance`; a number, a scalar array or one a row.
      squared: the paper's squares with halves, or plain hinges.
      distance: a name or a callable; see `pairwise_distance`.
      where: [batch] bool, which pairs exist.
      weights: [batch], how much a pair counts.
      reduction: over pairs; see `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x dim), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [0.0]]), jnp.array([[2.0], [0.5]])
      >>> print(f"{pair_loss(x, y, jnp.array([True, False])):.4f}")
      1.0625

    Source: Hadsell, Chopra, LeCun. Dimensionality Reduction by Learning an Invariant
    Mapping. CVPR 2006, equation 4.
    """
    function = "pair_loss"
    x = _checks.embeddings(function, "x", x)
    y = _checks.embeddings(function, "y", y)
    if x.shape != y.shape:
        must, remedy = f"have shape {x.shape} like `x`", "Give one row of each a pair."
        raise ValueError(_checks.text(function, "y", must, str(y.shape), remedy))
    _geometry.check_distance(function, distance, x[:1], y[:1])
    reductions.check_reduction(function, reduction)
    is_positive = _checks.integers(function, "is_positive", is_positive, x, "x") != 0
    where = _checks.mask(function, "where", where, x, "x")
    dtype, batch = _numerics.accumulation_dtype(x, y), x.shape[0]
    margin = _checks.number(function, "margin", margin, dtype, rows=batch)
    if weights is not None:
        weights = _checks.weights(function, weights, batch, dtype)
    d = distances.paired_rows(x, y, where, distance)
    h = partial(_penalty, squared=squared)
    terms = jnp.where(is_positive, h(d), h(_numerics.relu(margin - d)))
    stats = _rows.anchor_terms(terms, where)
    loss = reductions.reduce(stats, reduction, weights=weights)
    is_good = _numerics.is_finite(x, where) & _numerics.is_finite(y, where)
    return _rows.poisoned(loss, is_good)


def contrastive_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 1.0,
    positive_margin: ArrayLike = 0.0,
    squared: bool = True,
    positive_weight: ArrayLike = 1.0,
    negative_weight: ArrayLike = 1.0,
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
    """Pull positive pairs within a margin, push negative pairs beyond another.

    L = mean over ordered pairs of  h(max(0, d - positive_margin))   (positive)
                                    h(max(0, margin - d))            (negative)
    h(v) = 1/2 v^2, or v with squared=False

    All ordered pairs of the batch are terms, of one mean (PML averages the two sides
    apart: with one side's weight 0 and reduction="mean_active" each is had). A batch
    of one class keeps its positive terms. No pair: 0. The soft weights of a
    `jaxmetric.Relation` multiply the terms of their pairs, not their count.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      margin: of negatives, in units of `distance`; a number, a scalar array or one an
        anchor [batch].
      positive_margin: likewise of positives.
      squared: the paper's squares with halves, or plain hinges.
      positive_weight: factor of the positive terms, not of their count.
      negative_weight: factor of the negative terms, not of their count.
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
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> print(f"{contrastive_loss(x, y, margin=4.0):.4f}")
      1.8333

    Source: Hadsell, Chopra, LeCun. Dimensionality Reduction by Learning an Invariant
    Mapping. CVPR 2006, equation 4.
    """
    function = "contrastive_loss"
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
    number = partial(_checks.number, function, dtype=comparison.dtype)
    rows = comparison.num_rows
    hyper = (
        number("margin", margin, rows=rows),
        number("positive_margin", positive_margin, rows=rows),
        number("positive_weight", positive_weight),
        number("negative_weight", negative_weight),
    )
    return _strips.pair_loss(
        comparison,
        _contrastive_pairs,
        hyper,
        (squared,),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _contrastive_pairs(
    block: Block,
    margin: jax.Array,
    positive_margin: jax.Array,
    positive_weight: jax.Array,
    negative_weight: jax.Array,
    squared: bool,
) -> tuple[jax.Array, jax.Array]:
    """h([d_p - positive_margin]+) or h([margin - d_n]+) of [b, n] pairs."""
    d = block.distances
    attraction = _penalty(_numerics.relu(d - positive_margin), squared)
    repulsion = _penalty(_numerics.relu(margin - d), squared)
    terms = jnp.where(
        block.positive, positive_weight * attraction, negative_weight * repulsion
    )
    soft = block.pair_weights
    terms = terms if soft is None else soft * terms
    return terms, block.positive | block.negative


def _penalty(v: jax.Array, squared: bool) -> jax.Array:
    """Return h(v), of a violation that is not negative."""
    return v * v / 2 if squared else v
