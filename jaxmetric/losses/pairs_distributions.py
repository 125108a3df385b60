"""The two distributions of similarities in a batch: their spread and their bounds.

One number for the whole batch, from sums over all pairs: no `reduction`, and nothing
that an anchor could be said to cost.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.relations import Labels

__all__ = ["intra_pair_variance_loss", "threshold_consistent_margin_loss"]


def intra_pair_variance_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    positive_epsilon: ArrayLike = 0.01,
    negative_epsilon: ArrayLike = 0.01,
    distance: Distance = "cosine",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Pull positives that lag behind up to their mean, negatives that lead down to it.

    L = mean_p max(0, (1 - positive_epsilon) m_p - s_p)^2
      + mean_n max(0, s_n - (1 + negative_epsilon) m_n)^2
    m_p, m_n = means of the similarities of all ordered pairs of the kind

    Gradients flow through the means. A side without pairs is 0; no pair at all: 0. For
    a distance the slack has the other sign: max(0, d_p - (1 + positive_epsilon) m_p)^2
    and max(0, (1 - negative_epsilon) m_n - d_n)^2, m the mean distances. Usually added
    to `tuplet_margin_loss`. `weights` weigh the pairs of an anchor in every mean.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      positive_epsilon: slack, a share of the mean; a number or a scalar array.
      negative_epsilon: likewise.
      distance: "cosine" and "dot" take the form of similarities, any other that of
        distances.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider. It is no sum of terms per anchor: there is no
      `reduction`.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward. The distances are computed twice.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [1.0, 0.0]])
      >>> print(f"{intra_pair_variance_loss(x, jnp.array([0, 0, 0, 1])):.4f}")
      0.1433

    Source: Yu, Tao. Deep Metric Learning with Tuplet Margin Loss. ICCV 2019, equation
    11.
    """
    function = "intra_pair_variance_loss"
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
    epsilon_p = number("positive_epsilon", positive_epsilon, at_least=0)
    epsilon_n = number("negative_epsilon", negative_epsilon, at_least=0)
    _checks.block_size(function, block_size)
    # Of s = -d the means are negative: a larger multiple of one is a lower bound.
    slack_p, slack_n = 1 + epsilon_p, 1 - epsilon_n
    if distance in ("cosine", "dot"):
        slack_p, slack_n = 1 - epsilon_p, 1 + epsilon_n
    return _intra_pair_variance(comparison, slack_p, slack_n, block_size)


def threshold_consistent_margin_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    positive_weight: ArrayLike = 1.0,
    negative_weight: ArrayLike = 1.0,
    positive_margin: ArrayLike = 0.9,
    negative_margin: ArrayLike = 0.5,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Bring hard positives above one similarity and hard negatives below another.

    L = positive_weight * mean of positive_margin - s_p   over s_p <= positive_margin
      + negative_weight * mean of s_n - negative_margin   over s_n >= negative_margin

    The same two cosines for every class, so that one threshold serves all of them.
    Pairs beyond their margin are not averaged in; a side that has none within is 0.
    `weights` weigh the pairs of an anchor in both means.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      positive_weight: factor of the positive side; a number or a scalar array.
      negative_weight: likewise.
      positive_margin: a cosine; a number, a scalar array or one an anchor [batch].
      negative_margin: likewise.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider. It is no sum of terms per anchor: there is no
      `reduction`.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
      >>> print(f"{threshold_consistent_margin_loss(x, jnp.array([0, 0, 1])):.4f}")
      0.6800

    Source: Zhang et al. Threshold-Consistent Margin Loss for Open-World Deep Metric
    Learning. 2023. arXiv:2307.04047.
    """
    function = "threshold_consistent_margin_loss"
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
    number = partial(_checks.number, function, dtype=comparison.dtype)
    rows = comparison.num_rows
    factors = (
        number("positive_weight", positive_weight),
        number("negative_weight", negative_weight),
    )
    margins = (
        number("positive_margin", positive_margin, rows=rows),
        number("negative_margin", negative_margin, rows=rows),
    )
    _checks.block_size(function, block_size)
    return _threshold_consistent(comparison, factors, margins, block_size)


@partial(jax.jit, static_argnames="block_size")
def _intra_pair_variance(
    comparison: Comparison,
    slack_p: jax.Array,
    slack_n: jax.Array,
    block_size: int | None,
) -> jax.Array:
    """Find the means of both kinds, then how far pairs are on their wrong side."""
    comparison = _rows.gather(comparison)
    geometry = _rows.prepare(comparison)
    kinds = _rows.map_rows(comparison, geometry, _kinds, (), block_size)
    mean_p, mean_n = _means(comparison, *kinds)
    bounds = (slack_p * mean_p, slack_n * mean_n)
    squares = _rows.map_rows(comparison, geometry, _squares, bounds, block_size)
    square_p, square_n = _means(comparison, *squares)
    return jnp.where(_rows.is_finite(comparison), square_p + square_n, jnp.nan)


@partial(jax.jit, static_argnames="block_size")
def _threshold_consistent(
    comparison: Comparison,
    factors: tuple[jax.Array, jax.Array],
    margins: tuple[jax.Array, jax.Array],
    block_size: int | None,
) -> jax.Array:
    """Average the excess of the pairs that are within their margin."""
    comparison = _rows.gather(comparison)
    geometry = _rows.prepare(comparison)
    sides = _rows.map_rows(comparison, geometry, _excess, margins, block_size)
    mean_p, mean_n = _means(comparison, *sides)
    loss = factors[0] * mean_p + factors[1] * mean_n
    return jnp.where(_rows.is_finite(comparison), loss, jnp.nan)


def _kinds(block: Block) -> tuple[Any, Any]:
    """Return sum and number of each row's positive and negative similarities."""
    s = block.similarities
    return _total(s, block.positive), _total(s, block.negative)


def _squares(block: Block, bound_p: jax.Array, bound_n: jax.Array) -> tuple[Any, Any]:
    """Return sum and number of [bound_p - s]+^2 and [s - bound_n]+^2 of each row."""
    s = block.similarities
    lag, lead = _numerics.relu(bound_p - s), _numerics.relu(s - bound_n)
    return _total(lag * lag, block.positive), _total(lead * lead, block.negative)


def _excess(block: Block, margin_p: jax.Array, margin_n: jax.Array) -> tuple[Any, Any]:
    """Return sum and number of margin_p - s >= 0 and s - margin_n >= 0 of each row."""
    s = block.similarities
    lack, excess = margin_p - s, s - margin_n
    return (
        _total(lack, block.positive & (lack >= 0)),
        _total(excess, block.negative & (excess >= 0)),
    )


def _total(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return [b] sums of [b, n] values over the mask, and int32 counts."""
    return jnp.sum(jnp.where(mask, values, 0), -1), jnp.sum(mask, -1, dtype=jnp.int32)


def _means(comparison: Comparison, *sides: Any) -> tuple[jax.Array, ...]:
    """Return the means of sides, each ([m] sums, [m] counts), over all anchors."""
    if comparison.weights is not None:
        weighted = lambda a: a.astype(comparison.dtype) * comparison.weights  # noqa: E731
        sides = jax.tree.map(weighted, sides)
    sums = _rows.sum_rows(comparison, sides)
    return tuple(_numerics.quotient(total, count) for total, count in sums)
