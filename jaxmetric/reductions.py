"""From per-anchor statistics to a number: the five named reductions.

A reduction is a function of sums and counts per anchor, never of all terms at once.
So it works by blocks and across devices: the statistics of several blocks, batches or
devices are concatenated (or summed) first, and divided once at the end.
"""

from typing import Literal, NamedTuple, get_args

import jax
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
    total, num_terms, num_active = stats
    dtype = total.dtype
    if weights is not None:
        weights = _checks.weights("reduce", weights, total.shape[0], dtype)

    def weighted(x: jax.Array) -> jax.Array:
        return x if weights is None else x.astype(dtype) * weights

    def sum_all(x: jax.Array) -> jax.Array:
        x = _numerics.sum_exactly(x, dtype)
        return x if axis_name is None else lax.psum(x, axis_name)

    if reduction == "none":
        return LossStats(*(weighted(x) for x in stats))
    if reduction == "sum":
        return sum_all(weighted(total))
    if reduction == "mean":
        return _numerics.quotient(
            sum_all(weighted(total)), sum_all(weighted(num_terms))
        )
    if reduction == "mean_active":
        return _numerics.quotient(
            sum_all(weighted(total)), sum_all(weighted(num_active))
        )
    is_counted = num_terms > 0
    mean = _numerics.quotient(total, num_terms.astype(dtype))
    return _numerics.quotient(
        sum_all(weighted(mean)), sum_all(weighted(is_counted.astype(dtype)))
    )


def check_reduction(function: str, reduction: str) -> None:
    """Refuse a name that is not one of the five reductions."""
    _checks.choice(function, "reduction", reduction, get_args(Reduction), usual="mean")
