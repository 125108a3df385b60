"""Ranks made smooth: how many rows stand before a positive, counted by sigmoids.

Every positive of an anchor is compared with all other rows, so these losses cost as
many passes over a row as it has positives.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows, _selection
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["pnp_loss", "smooth_ap_loss"]

Variant = Literal["O", "Ds", "Dq", "Iu", "Ib"]


def smooth_ap_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    temperature: ArrayLike = 0.01,
    include_self: bool = True,
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
    """Raise the average precision, its ranks counted by sigmoids.

    L = mean over anchors of 1 - (1 / |Q|) sum_{j in Q} rank(j; Q) / rank(j; Q and N)
    rank(j; S) = 1 + sum_{k in S, k != j} sigmoid((s_k - s_j) / temperature)

    N are the negatives, Q the positives and, with `include_self` and without
    references, the anchor itself (similarity 1), as in the authors' code; without it
    this is the average precision of the usual retrieval list. An anchor counts if it
    has a positive and a negative; without any such anchor the loss is 0. Evaluated as
    the share of negatives in each rank, in which nothing cancels. PML 2.9 is right
    for contiguous labels with as many classes as rows a class.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      temperature: > 0, of the sigmoids; a number or a scalar array.
      include_self: count the anchor among its positives; no effect with references.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward. Time: O(batch^2 (dim + largest
    class)).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
      >>> print(f"{smooth_ap_loss(x, jnp.array([0, 0, 1, 1])):.4f}")
      0.4000

    Source: Brown, Xie, Kalogeiton, Zisserman. Smooth-AP: Smoothing the Path Towards
    Large-Scale Image Retrieval. ECCV 2020. arXiv:2007.12163, equation 8.
    """
    function = "smooth_ap_loss"
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
    return _rows.row_loss(
        comparison,
        _smooth_ap_rows,
        (_temperature(function, temperature, comparison.dtype),),
        (include_self and comparison.y is None,),
        function=function,
        reduction=reduction,
        block_size=block_size,
        by_class=True,
    )


def pnp_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    variant: Variant = "Dq",
    alpha: ArrayLike = 8.0,
    b: ArrayLike = 2.0,
    temperature: ArrayLike = 0.01,
    include_self: bool = True,
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
    """Penalise the negatives that stand before a positive, however few they are.

    L = mean over anchors of (1 / |Q|) sum_{j in Q} f(R_j)
    R_j = sum_{k in N} sigmoid((s_k - s_j) / temperature)

      "O"   f = R                              all negatives alike
      "Ds"  f = log(1 + R)                     less for each the more there are, slowly
      "Dq"  f = 1 - (1 + R)^-alpha             the same, quickly
      "Iu"  f = (1 + R) log(1 + R)             more for each the more there are
      "Ib"  f = (b R - log(1 + b R)) / b^2     the same, but at most 1 / b for each

    N are the negatives, Q the positives and, with `include_self` and without
    references, the anchor itself (similarity 1), as in the authors' code. An anchor
    counts if it has a positive and a negative; without any such anchor the loss is 0.
    The default is the paper's best, where PML has "O" and alpha 1.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      variant: the name of f.
      alpha: > 0, used by "Dq"; a number or a scalar array.
      b: > 0, used by "Ib"; a number or a scalar array.
      temperature: > 0, of the sigmoids; a number or a scalar array.
      include_self: count the anchor among its positives; no effect with references.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward. Time: O(batch^2 (dim + largest
    class)).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
      >>> print(f"{pnp_loss(x, jnp.array([0, 0, 1, 1]), alpha=1.0):.4f}")
      0.5000

    Source: Li et al. Rethinking the Optimization of Average Precision: Only Penalizing
    Negative Instances before Positive Ones is Enough. AAAI 2022. arXiv:2102.04640.
    """
    function = "pnp_loss"
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
    _checks.choice(function, "variant", variant, get_args(Variant), usual="Dq")
    number, dtype = partial(_checks.number, function), comparison.dtype
    return _rows.row_loss(
        comparison,
        _pnp_rows,
        (
            _temperature(function, temperature, dtype),
            number("alpha", alpha, dtype, above=0),
            number("b", b, dtype, above=0),
        ),
        (variant, include_self and comparison.y is None),
        function=function,
        reduction=reduction,
        block_size=block_size,
        by_class=True,
    )


def _temperature(function: str, temperature: ArrayLike, dtype: jnp.dtype) -> jax.Array:
    """Return a temperature in the dtype of the distances."""
    remedy = "Typical values are 0.01 to 0.1."
    return _checks.number(
        function, "temperature", temperature, dtype, above=0, remedy=remedy
    )


def _smooth_ap_rows(block: Block, temperature: jax.Array, has_self: bool) -> LossStats:
    """Mean over j in Q of n_j / (1 + q_j + n_j), the sums of sigmoids over Q and N.

    That is 1 - (1 + q_j) / (1 + q_j + n_j).
    """
    s = block.similarities
    columns = lax.broadcasted_iota(jnp.int32, s.shape, 1)

    def share(s_j: jax.Array, j: jax.Array | None) -> jax.Array:
        """Of rows [b] with similarity `s_j`, in column `j` (None: the anchors)."""
        before = jax.nn.sigmoid((s - s_j[:, None]) / temperature)
        is_other = block.positive
        if j is not None:
            is_other &= columns != j[:, None]
        rank = 1 + jnp.sum(jnp.where(is_other, before, 0), -1)
        if has_self and j is not None:
            rank += jax.nn.sigmoid((1 - s_j) / temperature)
        wrong = jnp.sum(jnp.where(block.negative, before, 0), -1)
        return wrong / (rank + wrong)

    return _mean_over_positives(block, share, has_self)


def _pnp_rows(
    block: Block,
    temperature: jax.Array,
    alpha: jax.Array,
    b: jax.Array,
    variant: Variant,
    has_self: bool,
) -> LossStats:
    """Mean over j in Q of f(R_j), R_j the sum of sigmoids over the negatives."""
    s = block.similarities

    def penalty(s_j: jax.Array, j: jax.Array | None) -> jax.Array:
        before = jax.nn.sigmoid((s - s_j[:, None]) / temperature)
        wrong = jnp.sum(jnp.where(block.negative, before, 0), -1)
        if variant == "O":
            return wrong
        if variant == "Ds":
            return jnp.log1p(wrong)
        if variant == "Dq":
            return -jnp.expm1(-alpha * jnp.log1p(wrong))
        if variant == "Iu":
            return (1 + wrong) * jnp.log1p(wrong)
        return _less_its_log1p(b * wrong) / (b * b)

    return _mean_over_positives(block, penalty, has_self)


def _less_its_log1p(x: jax.Array) -> jax.Array:
    """Return x - log(1 + x) for x >= 0, with all its digits."""
    # Near 0 both are x but for a rounding: there the Taylor series, whose first term
    # left out, x^9 / 9, is about the last digit of x^2 / 2 in float64.
    is_small = x < 1e-2
    near = jnp.where(is_small, x, 0)
    series = jnp.zeros_like(x)
    for power in range(8, 1, -1):
        series = series * near + (-1) ** power / power
    far = jnp.where(is_small, 1, x)
    return jnp.where(is_small, series * near * near, far - jnp.log1p(far))


def _mean_over_positives(
    block: Block,
    term: Callable[[jax.Array, jax.Array | None], jax.Array],
    has_self: bool,
) -> LossStats:
    """Average `term(s_j, j)` over the positives j of each row, one [b] at a time.

    With `has_self` the anchor is one of them, as `term(1, None)`.
    """
    s, rows = block.similarities, jnp.arange(block.where.size)

    def term_of(j: jax.Array, exists: jax.Array) -> jax.Array:
        return jnp.where(exists, term(s[rows, j], j), 0)

    start = _numerics.varying_like(jnp.zeros_like(s[:, 0]), s, block.positive)
    if has_self:
        start += jax.checkpoint(lambda s_j: term(s_j, None))(jnp.ones_like(start))
    total = _selection.sum_over_positives(block, term_of, start)
    size = jnp.sum(block.positive, -1, dtype=s.dtype) + float(has_self)
    return _rows.anchor_terms(_numerics.quotient(total, size), block.has_both)
