"""The histograms of positive and negative similarities, and how far they overlap."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.relations import Labels

__all__ = ["histogram_loss"]


def histogram_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    num_bins: int = 100,
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
    """Make it unlikely that a negative pair is more similar than a positive one.

    L = sum_r h_n(r) sum_{q <= r} h_p(q)
    h(r) = mean over pairs of max(0, 1 - |s - t_r| / width),   s the cosine
    t_r = -1 + r width,   width = 2 / num_bins,   r = 0..num_bins

    The probability that a random negative is at least as similar as a random positive,
    up to the width of a bin; between 0 and 1. Without a positive or without a negative
    pair the loss is 0. The unordered pairs of the batch, or all pairs with references,
    are one sample of each kind; `weights` weigh the pairs of an anchor (of two rows of
    the batch, both count). PML leaves out negative pairs of two rows that are alone in
    their class, keeps float32 bins for float64 rows and fails at a cosine of 1.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      num_bins: intervals between -1 and 1, an int. The paper has 100 to 200.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider. It is no sum of terms per anchor: there is no
      `reduction`.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x (block + num_bins)), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]])
      >>> print(f"{histogram_loss(x, jnp.array([0, 0, 1, 1])):.4f}")
      0.6250

    Source: Ustinova, Lempitsky. Learning Deep Embeddings with Histogram Loss. NIPS
    2016. arXiv:1611.00822, equations 1 to 4.
    """
    function = "histogram_loss"
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
    _checks.block_size(function, block_size)
    return _histogram(comparison, (int(num_bins), block_size))


@partial(jax.jit, static_argnames="options")
def _histogram(comparison: Comparison, options: tuple) -> jax.Array:
    """Add the histograms of all rows, then compare the two kinds."""
    num_bins, block_size = options
    comparison = _rows.gather(comparison)
    geometry = _rows.prepare(comparison)
    body = partial(_row_histograms, num_bins=num_bins)
    histograms = _rows.map_rows(comparison, geometry, body, (), block_size)
    if comparison.weights is not None:
        histograms = histograms * comparison.weights[:, None, None]
    # Ordered pairs: those of a batch come twice, which no mean can tell.
    positive, negative = _rows.sum_rows(comparison, histograms)
    positive, negative = _sized(positive), _sized(negative)
    # The shares of a pair's two nodes add up to 1, so a histogram's sum is its count.
    count = jnp.sum(positive) * jnp.sum(negative)
    overlap = jnp.sum(negative * jnp.cumsum(positive))
    loss = _numerics.quotient(overlap, count)
    return jnp.where(_rows.is_finite(comparison), loss, jnp.nan)


def _sized(histogram: jax.Array) -> jax.Array:
    """Return a histogram with a sum between 1 and 2, rounding nothing; zeros stay."""
    # The product of two sums of tiny weights would vanish.
    return histogram / _numerics.power_of_two_above(jnp.sum(histogram))


def _row_histograms(block: Block, num_bins: int) -> jax.Array:
    """Return [b, 2, num_bins + 1]: what each row's pairs of each kind give the nodes.

    A similarity between two nodes is shared among them, by how near they are. So a
    pair touches two numbers that stand side by side, and adding them up is one scatter
    of windows: its derivative is a gather, and nothing of the size pairs x bins exists.
    """
    places = (block.similarities + 1) * (num_bins / 2)
    is_pair = block.positive | block.negative
    # Also for what is not finite, the lower node is one of 0..num_bins - 1: comparisons
    # with NaN are False. The last interval includes its end, a similarity of 1.
    lower = lax.stop_gradient(jnp.floor(places))
    lower = jnp.where(is_pair & (lower > 0), lower, 0)
    lower = jnp.where(lower < num_bins, lower, num_bins - 1)
    upper_share = places - lower
    shares = jnp.stack([1 - upper_share, upper_share], -1)
    shares = jnp.where(is_pair[..., None], shares, 0)
    side = num_bins + 1
    index = lower.astype(jnp.int32) + jnp.where(block.negative, side, 0)
    empty = _numerics.varying_like(jnp.zeros(2 * side, shares.dtype), shares)
    windows = lax.ScatterDimensionNumbers(
        update_window_dims=(1,),
        inserted_window_dims=(),
        scatter_dims_to_operand_dims=(0,),
    )
    add = lambda index, shares: lax.scatter_add(  # noqa: E731
        empty, index[:, None], shares, windows, mode="promise_in_bounds"
    )
    return jax.vmap(add)(index, shares).reshape(-1, 2, side)
