"""Triplets that weigh as much as they are wrong, compared with all others.

The histogram of violations is a sum over all triplets, and so is the loss: two passes,
each of which visits the positives of a row one by one.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import (
    _checks,
    _comparison,
    _numerics,
    _rows,
    _selection,
    reductions,
)
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["dynamic_soft_margin_loss"]


def dynamic_soft_margin_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    min_value: ArrayLike = -2.0,
    num_bins: int = 10,
    momentum: ArrayLike = 0.01,
    histogram: ArrayLike | None = None,
    return_histogram: bool = False,
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
) -> jax.Array | LossStats | tuple[jax.Array | LossStats, jax.Array]:
    """Weigh each triplet by the share of all triplets that are less wrong than it.

    L = mean over (a, p, n) of CDF[bin(v)] v    with v = d(a, p) - d(a, n)

    The CDF is that of a histogram of v, which forgets slowly from batch to batch. Bins
    are 2 |min_value| / num_bins wide and start at `min_value`; a v between two bins is
    shared by them, one beyond the ends counts at the end. With h the counts of the
    batch the histogram becomes (1 - momentum) histogram + momentum h, divided by its
    sum; without a histogram, or with one of zeros, it becomes h over its sum. Weights
    are constants of the gradient, as in the authors' code (PML differentiates them).
    The loss may be negative. Without a valid triplet it is 0, and the histogram stays
    what it was; so it does where the loss is NaN.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised; the paper does.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      min_value: < 0, where the bins start, in units of `distance`; -2 is the least that
        unit rows have.
      num_bins: how many bins; 512 in the authors' code.
      momentum: how much the batch counts in the histogram.
      histogram: [num_bins] of the batches before, or None.
      return_histogram: return the histogram with this batch in it as well.
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`; every triplet counts
        once in the histogram, whatever the `weights`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.
      With `return_histogram` a pair of that and the histogram [num_bins].

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch (block + num_bins)), forward and backward. Time: O(batch^2 (dim +
    largest class)).

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [4.0]]), jnp.array([0, 0, 1, 1])
      >>> loss, state = dynamic_soft_margin_loss(x, y, return_histogram=True)
      >>> loss, state = dynamic_soft_margin_loss(
      ...     x, y, histogram=state, return_histogram=True
      ... )
      >>> print(f"{loss:.4f}")
      -1.5312

    Source: Zhang, Rusinkiewicz. Learning Local Descriptors with a CDF-Based Dynamic
    Soft Margin. ICCV 2019, section 3.
    """
    function = "dynamic_soft_margin_loss"
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
    _checks.positive_int(function, "num_bins", num_bins)
    dtype = comparison.dtype
    number = partial(_checks.number, function, dtype=dtype)
    hyper = (
        number("min_value", min_value, below=0),
        number("momentum", momentum, at_least=0),
    )
    state = jnp.zeros(num_bins, dtype)
    if histogram is not None:
        state = _checks.weights(function, histogram, num_bins, dtype, "histogram")
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    loss, state = _dynamic(comparison, hyper, state, (reduction, block_size))
    return (loss, state) if return_histogram else loss


@partial(jax.jit, static_argnames="options")
def _dynamic(
    comparison: Comparison,
    hyper: tuple[jax.Array, ...],
    histogram: jax.Array,
    options: tuple,
) -> tuple[jax.Array | LossStats, jax.Array]:
    """Count the violations of all triplets, then weigh each by how many are below."""
    reduction, block_size = options
    (min_value, momentum), old = lax.stop_gradient((hyper, histogram))
    num_bins, dtype = old.size, comparison.dtype
    comparison = _rows.gather(comparison)
    geometry = _rows.prepare(comparison)

    def bins(v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return [...] the bin of each violation, and the share of the next bin."""
        place = (v - min_value) * (num_bins / (-2 * min_value))
        place = jnp.minimum(_numerics.relu(place), num_bins)
        first = jnp.minimum(place.astype(jnp.int32), num_bins - 1)
        return first, place - first.astype(dtype)

    counts = _rows.map_rows(
        comparison,
        lax.stop_gradient(geometry),
        lambda block: _counts(block, bins, num_bins),
        (),
        block_size,
        by_class=True,
    )
    counts = _rows.sum_rows(comparison, counts)
    is_first = jnp.sum(old) == 0
    rate = jnp.where(is_first, 1, momentum)
    new = (1 - rate) * old + rate * counts
    new = _numerics.quotient(new, jnp.broadcast_to(jnp.sum(new), new.shape))
    distribution = jnp.cumsum(new)
    stats = _rows.map_rows(
        comparison,
        geometry,
        lambda block: _weighted(block, lambda v: distribution[bins(v)[0]]),
        (),
        block_size,
        by_class=True,
    )
    loss = _rows.finish(comparison, stats, reduction)
    is_known = (jnp.sum(counts) > 0) & _rows.is_finite(comparison)
    return loss, jnp.where(is_known, new, old)


def _counts(block: Block, bins, num_bins: int) -> jax.Array:
    """Return [b, num_bins] how many violations of a row are in each bin."""
    d, segments, rows = block.distances, block.segments, jnp.arange(block.where.size)
    assert segments is not None

    def count(slot: jax.Array, state: tuple) -> tuple:
        p, exists = segments.candidate(slot)
        exists &= block.positive[rows, p]
        first, share = bins(d[rows, p][:, None] - d)
        one = (exists[:, None] & block.negative).astype(d.dtype)
        row = jnp.broadcast_to(rows[:, None], first.shape)
        second = jnp.minimum(first + 1, num_bins - 1)
        # Apart from the sum so far, whose digits a single count would not reach.
        found = jnp.zeros_like(state[0]).at[row, first].add(one * (1 - share))
        return (state[0] + found.at[row, second].add(one * share),)

    none = jnp.zeros((block.where.size, num_bins), d.dtype)
    return _selection.visit_positives(count, (none,), block)[0]


def _weighted(block: Block, weigh) -> LossStats:
    """Sum over p, n of w(d_p - d_n) (d_p - d_n) for [b, n] distances, w constant."""
    d, segments = lax.stop_gradient(block.distances), block.segments
    rows = jnp.arange(block.where.size)
    assert segments is not None

    def add(slot: jax.Array, state: tuple) -> tuple:
        total, num_active, slope = state
        p, exists = segments.candidate(slot)
        exists &= block.positive[rows, p]
        violation = d[rows, p][:, None] - d
        is_term = exists[:, None] & block.negative
        weight = jnp.where(is_term, weigh(violation), 0)
        terms = jnp.where(is_term, weight * violation, 0)
        total += jnp.sum(terms, -1)
        num_active += jnp.sum(terms > 0, -1, dtype=jnp.int32)
        slope = (slope - weight).at[rows, p].add(jnp.sum(weight, -1))
        return total, num_active, slope

    zero = jnp.zeros(block.where.size, d.dtype)
    start = (zero, zero.astype(jnp.int32), jnp.zeros_like(d))
    total, num_active, slope = _selection.visit_positives(add, start, block)
    # With constant weights w_pn the sum is linear in the distances,
    #   total = sum_p d_p sum_n w_pn - sum_n d_n sum_p w_pn = sum_j slope_j d_j,
    # so the bracket is exactly 0 and carries the derivatives of every order.
    linear = jnp.sum(jnp.where(slope != 0, slope * block.distances, 0), -1)
    total += linear - lax.stop_gradient(linear)
    num_positives = jnp.sum(block.positive, -1, dtype=jnp.int32)
    num_terms = num_positives * jnp.sum(block.negative, -1, dtype=jnp.int32)
    return LossStats(total, num_terms, num_active)
