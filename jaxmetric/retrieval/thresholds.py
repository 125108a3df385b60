"""Verification: are two rows of the same class? Every threshold at once, by sorting."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _numerics
from jaxmetric.retrieval import fixed_point

__all__ = ["verification"]


def verification(
    distances: ArrayLike,
    is_same: ArrayLike,
    *,
    far: Sequence[float] | float = (1e-3, 1e-2),
    where: ArrayLike | None = None,
) -> dict[str, jax.Array]:
    """Return how well a threshold on the distance tells same from different pairs.

    A pair is accepted when its distance is at most the threshold t. FAR(t) is the share
    of different pairs that are accepted, TAR(t) that of same pairs. Thresholds are the
    distances that occur, and one below all of them, which accepts nothing.

    tar_at_far_{f}   the largest TAR with FAR <= f
    eer              FAR where it equals 1 - TAR, linear between neighbouring thresholds
    auc              P(same < different) + P(same = different) / 2
    accuracy         the largest share of pairs that are told right
    threshold        the smallest t with that accuracy; -inf to accept nothing

    Where a kind of pair is missing, or a distance is NaN, all of them are NaN.

    Args:
      distances: [pairs] real numbers, of any sign. Infinite ones have their place in
        the order.
      is_same: [pairs] bool, which pairs are of the same class.
      far: the rates f in [0, 1] of `tar_at_far_{f:g}`.
      where: [pairs] bool, which pairs exist.

    Returns:
      A dict of scalars, float32 or wider.

    Raises:
      ValueError: shapes or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(pairs). Time: O(pairs log pairs); for up to 2^31 pairs. In float32 a rate
    is compared with f after rounding to 24 bits.

    Example:
      >>> import jax.numpy as jnp
      >>> distances = jnp.array([1.0, 2.0, 3.0, 4.0])
      >>> is_same = jnp.array([True, False, True, False])
      >>> for name, value in verification(distances, is_same, far=0.5).items():
      ...     print(f"{name} {value:.2f}")
      tar_at_far_0.5 1.00
      eer 0.50
      auc 0.75
      accuracy 0.75
      threshold 1.00

    Source: Phillips, Moon, Rizvi, Rauss. The FERET evaluation methodology for
    face-recognition algorithms. IEEE TPAMI, 2000.
    """
    function = "verification"
    d = _check_distances(function, distances)
    exists = _checks.mask(function, "where", where, d, "distances")
    is_same = is_same if isinstance(is_same, jax.Array) else np.asarray(is_same)
    if is_same.dtype != bool:
        must, got, remedy = "be bool", str(is_same.dtype), "Use is_same > 0."
        raise TypeError(_checks.text(function, "is_same", must, got, remedy))
    is_same = _checks.mask(function, "is_same", is_same, d, "distances")
    rates = _check_rates(function, far)
    at_rates, metrics = _verification(d, is_same, exists, np.array(rates))
    metrics |= dict(zip(map(_name, rates), at_rates, strict=True))
    names = (*map(_name, rates), "eer", "auc", "accuracy", "threshold")
    return {name: metrics[name] for name in names}


@jax.jit
def _verification(
    distances: jax.Array, is_same: jax.Array, exists: jax.Array, far: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sort the pairs, count both kinds up to each distance, and read off the rest.

    Returns:
      The true accept rates at the false accept rates `far`, [rates], and the metrics.
    """
    d = distances.astype(_numerics.accumulation_dtype(distances))
    dtype = d.dtype
    is_good = ~jnp.any(jnp.isnan(d) & exists)
    keys = _numerics.order_keys(d)
    # Pairs that do not exist come last, as neither kind, whatever their distance.
    keys = jnp.where(exists, keys, jnp.iinfo(keys.dtype).max)
    kind = jnp.where(exists, jnp.where(is_same, 1, 2), 0).astype(jnp.int8)
    keys, kind = lax.sort((keys, kind), num_keys=1)
    is_true, is_false = kind == 1, kind == 2
    accepted = jnp.cumsum(is_true, dtype=jnp.int32)
    mistaken = jnp.cumsum(is_false, dtype=jnp.int32)
    num_same, num_different = accepted[-1], mistaken[-1]
    # Equal distances are accepted together: only the last of them is a threshold. The
    # pairs that do not exist make one more at the end, where all are accepted anyway.
    is_threshold = jnp.append(keys[1:] != keys[:-1], True)
    is_good &= (num_same > 0) & (num_different > 0)

    def share(count: jax.Array, of: jax.Array) -> jax.Array:
        return count.astype(dtype) / jnp.where(of > 0, of, 1).astype(dtype)

    tar, rate = share(accepted, num_same), share(mistaken, num_different)
    far = far.astype(dtype)
    best_at = lambda f: jnp.max(jnp.where(is_threshold & (rate <= f), tar, 0))  # noqa: E731
    at_rates = lax.map(best_at, far)
    metrics = {"eer": _equal_error_rate(rate, tar, is_threshold)}
    # A different pair is beaten by the same pairs before it, and by half of its equals.
    closer = lax.cummax(jnp.where(is_threshold, accepted, 0))
    closer = jnp.pad(closer[:-1], (1, 0))
    up_to = lax.cummin(jnp.where(is_threshold, accepted, num_same), reverse=True)
    beaten = (share(closer, num_same) + share(up_to, num_same)) / 2
    metrics["auc"] = fixed_point.mean(beaten, is_false)
    # Right: the same pairs that are accepted and the different ones that are not.
    gained = jnp.where(is_threshold, accepted - mistaken, jnp.iinfo(jnp.int32).min)
    best = jnp.max(gained, initial=0)
    metrics["accuracy"] = share(best + num_different, num_same + num_different)
    smallest = _numerics.from_order_keys(keys[jnp.argmax(gained)], dtype)
    # Accepting nothing is the smallest threshold of all.
    metrics["threshold"] = jnp.where(best > 0, smallest, -jnp.inf)
    poison = lambda x: jnp.where(is_good, x, jnp.nan)  # noqa: E731
    return jax.tree.map(poison, (at_rates, metrics))


def _equal_error_rate(
    rate: jax.Array, tar: jax.Array, is_threshold: jax.Array
) -> jax.Array:
    """Return where FAR meets 1 - TAR, both [pairs] and ascending, at thresholds."""
    # FAR - (1 - TAR) ascends from -1, where nothing is accepted, to 1.
    gap = (rate - 1) + tar
    is_before, is_after = is_threshold & (gap < 0), is_threshold & (gap >= 0)
    before = [jnp.max(jnp.where(is_before, a, 0)) for a in (rate, tar)]
    after = [jnp.min(jnp.where(is_after, a, 1)) for a in (rate, tar)]
    low = (before[0] - 1) + before[1]
    high = (after[0] - 1) + after[1]
    # high >= 0 > low: never divided by 0.
    part = -low / (high - low)
    return before[0] + part * (after[0] - before[0])


def _check_distances(function: str, values: ArrayLike) -> jax.Array:
    """Return [pairs] distances as floating point."""
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    is_integer = jnp.issubdtype(array.dtype, jnp.integer)
    if not is_integer and not jnp.issubdtype(array.dtype, jnp.floating):
        must, remedy = "be real numbers", "Give one distance a pair."
        text = _checks.text(function, "distances", must, str(array.dtype), remedy)
        raise TypeError(text)
    if array.ndim != 1 or array.size == 0:
        must, remedy = "have shape (pairs,) with at least one pair", "Use .ravel()."
        text = _checks.text(function, "distances", must, str(array.shape), remedy)
        raise ValueError(text)
    return jnp.asarray(array, jnp.float32) if is_integer else jnp.asarray(array)


def _check_rates(function: str, values: Sequence[float] | float) -> tuple[float, ...]:
    """Return the false accept rates as a tuple."""
    is_many = isinstance(values, Sequence | np.ndarray)
    rates = tuple(values) if is_many else (values,)  # pyright: ignore (a sequence)
    for rate in rates:
        is_number = isinstance(rate, int | float | np.number)
        if not is_number or not 0 <= rate <= 1:  # pyright: ignore (a number)
            must, remedy = "hold rates between 0 and 1", "Use far=(1e-3, 1e-2)."
            raise ValueError(_checks.text(function, "far", must, repr(rate), remedy))
    return tuple(float(rate) for rate in rates)  # pyright: ignore (numbers)


def _name(rate: float) -> str:
    """Return the name of the true accept rate at a false accept rate."""
    return f"tar_at_far_{rate:g}"
