"""From per-anchor statistics to a number: the five named reductions.

A reduction is a function of sums and counts per anchor, never of all terms at once.
So it works by blocks and across devices: the statistics of several blocks, batches or
devices are concatenated (or summed) first, and divided once at the end.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _checks, _numerics

__all__ = ["LossStats", "Reduction", "reduce"]

Reduction = Literal["mean", "mean_active", "mean_per_anchor", "sum", "none"]


class LossStats(NamedTuple):
    """What a loss knows of each anchor; what `reduction="none"` returns.

    Attributes:
      total: [batch] sum of the anchor's terms, float32 or wider.
      num_terms: [batch] how many valid terms it has, int32 (floating under `weights`).
      num_active: [batch] how many of them are strictly above 0, of the same dtype.
    """

    total: jax.Array
    num_terms: jax.Array
    num_active: jax.Array


def reduce(
    stats: LossStats,
    reduction: Reduction,
    *,
    weights: jax.Array | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Reduce per-anchor statistics to a scalar.

    "mean"            sum(w t) / sum(w c)             over all valid terms
    "mean_active"     sum(w t) / sum(w a)             over terms above 0
    "mean_per_anchor" sum(w t / c) / sum(w)           over anchors with c > 0
    "sum"             sum(w t)
    "none"            LossStats(w t, w c, w a)

    Nothing to average gives exactly 0, with an exactly zero gradient.

    Args:
      stats: of [n] arrays, possibly concatenated from several batches or devices.
      reduction: one of the five names.
      weights: [n] how much each anchor counts; None counts all alike. Statistics that
        a loss returned under its own `weights` already hold them; only
        "mean_per_anchor" cannot be had from those, as the quotient loses them.
      axis_name: sum over this mapped axis before dividing.

    Returns:
      A scalar of the dtype of `stats.total`; with "none" a `LossStats`.

    Raises:
      ValueError: `reduction` is not one of the five names, or `weights` does not fit.

    Memory: O(n).

    Example:
      >>> import jax.numpy as jnp
      >>> total, count = jnp.array([3.0, 0.0, 5.0]), jnp.array([2, 0, 2])
      >>> stats = LossStats(total, count, jnp.array([1, 0, 1]))
      >>> print(f"{reduce(stats, 'mean'):.2f} {reduce(stats, 'mean_active'):.2f}")
      2.00 4.00
    """
    check_reduction("reduce", reduction)
    if weights is not None:
        dtype = stats.total.dtype
        weights = _checks.weights("reduce", weights, stats.total.shape[0], dtype)
    if reduction == "none":
        return LossStats(*(_weighted(x, stats, weights) for x in stats))
    total = weighted_total(stats, reduction, weights)
    return mean_of(total, stats, reduction, weights, axis_name)


def weighted_total(
    stats: LossStats, reduction: Reduction, weights: jax.Array | None
) -> jax.Array:
    """Return the scalar that a reduction divides, the sum over these anchors.

    It is linear in `stats.total`.
    """
    total = stats.total
    if reduction == "mean_per_anchor":
        total = _numerics.quotient(total, stats.num_terms.astype(total.dtype))
    return jnp.sum(_weighted(total, stats, weights))


def mean_of(
    total: jax.Array,
    stats: LossStats,
    reduction: Reduction,
    weights: jax.Array | None,
    axis_name: str | None,
) -> jax.Array:
    """Divide a `weighted_total` by the count of a reduction, over all devices."""
    dtype = stats.total.dtype

    def sum_all(x: jax.Array) -> jax.Array:
        return x if axis_name is None else lax.psum(x, axis_name)

    if reduction == "sum":
        return sum_all(total)
    counts = {
        "mean": stats.num_terms,
        "mean_active": stats.num_active,
        "mean_per_anchor": (stats.num_terms > 0).astype(dtype),
    }[reduction]
    count = _numerics.sum_exactly(_weighted(counts, stats, weights), dtype)
    return _numerics.quotient(sum_all(total), sum_all(count))


def _weighted(x: jax.Array, stats: LossStats, weights: jax.Array | None) -> jax.Array:
    """Return [n] numbers times the weights of their anchors."""
    return x if weights is None else x.astype(stats.total.dtype) * weights


def check_reduction(function: str, reduction: str) -> None:
    """Refuse a name that is not one of the five reductions."""
    _checks.choice(function, "reduction", reduction, get_args(Reduction), usual="mean")
