"""Numbers in [0, 1] as integers: sums that no order of the terms can change.

So a mean over queries is the same to the last bit however they are split into blocks
or spread over devices.
"""

import jax
import jax.numpy as jnp
from jax import lax

# Three parts of so many terms are added without an overflow.
_MOST_TERMS = 2**20


def encode(x: jax.Array) -> jax.Array:
    """Return numbers in [0, 1] as integers, in units of the last place of 1."""
    kind = jnp.int32 if x.dtype == jnp.float32 else jnp.int64
    return jnp.round(x * _one(x.dtype)).astype(kind)


def total(x: jax.Array, dtype: jnp.dtype, axis_name: str | None = None) -> jax.Array:
    """Return the sum of [n] fixed-point numbers, over all devices of the axis.

    The whole numbers are added, in three parts that do not overflow for n up to 2^23
    over all devices, so neither the order nor the split over devices matters. Of more
    numbers on one device, stretches of 2^20 are added so, and then in floating point.
    """
    if axis_name is None and x.shape[0] > 8 * _MOST_TERMS:
        stretches = jnp.pad(x, (0, -x.shape[0] % _MOST_TERMS)).reshape(-1, _MOST_TERMS)
        return jnp.sum(lax.map(lambda stretch: total(stretch, dtype), stretches))
    parts = (x & 255, (x >> 8) & 255, x >> 16)
    low, middle, high = (add(jnp.sum(a), axis_name).astype(dtype) for a in parts)
    return (low + middle * 2**8 + high * 2**16) / _one(dtype)


def mean(
    x: jax.Array, is_counted: jax.Array, axis_name: str | None = None
) -> jax.Array:
    """Return the mean of the counted of [n] numbers in [0, 1]; NaN without any."""
    count = add(jnp.sum(is_counted, dtype=jnp.int32), axis_name)
    numbers = encode(jnp.where(is_counted, x, 0))
    # Two wheres: without terms the mean is NaN, but nothing is divided by 0.
    safe = jnp.where(count > 0, count, 1).astype(x.dtype)
    return jnp.where(count > 0, total(numbers, x.dtype, axis_name) / safe, jnp.nan)


def add(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Add a scalar over the devices of the axis."""
    return x if axis_name is None else lax.psum(x, axis_name)


def _one(dtype: jnp.dtype) -> float:
    """Return what 1 is in fixed point: 2^24, or 2^40 for wider than float32."""
    return 2.0**24 if dtype == jnp.float32 else 2.0**40
