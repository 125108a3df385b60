"""Arithmetic that stays right at the edges: zero, empty, huge and masked.

Every guard here replaces the *argument* of the dangerous operation, not only its
result: where an unsafe value is selected away afterwards, the backward pass still
multiplies its infinite derivative by zero and gets NaN.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# A row shorter than this has no direction: normalised, it stays zero.
MIN_NORM = 1e-6


def accumulation_dtype(*arrays: jax.Array) -> jnp.dtype:
    """Return float32, or the widest dtype of the arrays where that is wider."""
    # By width, not by promotion: strict promotion refuses to mix half with single.
    dtypes = (jnp.dtype(jnp.float32), *(x.dtype for x in arrays))
    return max(dtypes, key=lambda dtype: dtype.itemsize)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Return sqrt(x) for x > 0, else 0; the derivative at 0 is 0, to any order."""
    # Two wheres: sqrt(0) has an infinite derivative, and 0 * inf is NaN. The inner
    # one feeds sqrt a 1.
    is_positive = x > 0
    return jnp.where(is_positive, jnp.sqrt(jnp.where(is_positive, x, 1)), 0)


def relu(x: jax.Array) -> jax.Array:
    """Return max(x, 0) with derivative 0 at 0."""
    return jnp.where(x > 0, x, 0)


def absolute(x: jax.Array) -> jax.Array:
    """Return |x| with derivative 0 at 0."""
    return jnp.where(x > 0, x, jnp.where(x < 0, -x, 0))


def quotient(total: jax.Array, count: jax.Array) -> jax.Array:
    """Return total / count where count > 0, else exactly 0 with gradient 0."""
    is_counted = count > 0
    safe = jnp.where(is_counted, count, 1).astype(total.dtype)
    return jnp.where(is_counted, total / safe, 0)


def sum_exactly(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Sum [n] floats, or [n] non-negative int32 counts of any total, to a scalar."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.sum(x)
    # Counts of triplets pass 2**31 in sum, and a float32 running sum sticks at 2**24.
    # Three parts of 11 bits are summed as integers, exactly for n up to 2**20.
    low, middle, high = (
        jnp.sum(part).astype(dtype) for part in (x & 2047, (x >> 11) & 2047, x >> 22)
    )
    return low + middle * 2**11 + high * 2**22


def power_of_two_above(x: jax.Array) -> jax.Array:
    """Return a power of two p with p <= |x| < 2 p, for a positive normal x, else 1.

    Dividing by a power of two is exact, so scaling by it changes no digit.
    """
    _, exponent = jnp.frexp(lax.stop_gradient(x))
    # Kept two steps inside the range of the format: neither p nor 1/p overflows.
    limit = jnp.finfo(x.dtype).maxexp - 2
    exponent = jnp.clip(exponent - 1, -limit, limit)
    power = jnp.ldexp(jnp.ones_like(x), exponent)
    return lax.stop_gradient(jnp.where((x > 0) & jnp.isfinite(x), power, 1))


def unit_rows(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Normalise the last axis; return the rows and which of them are not zero.

    A row of norm at most 1e-6 becomes exactly zero with gradient exactly zero: its
    direction is noise, and the Jacobian 1/|x| would wreck a model in one step.
    """
    # The scaled rows have norms between 1 and sqrt(dim) and squares that neither
    # overflow nor underflow, whatever the scale of the input.
    scale = power_of_two_above(
        jnp.max(lax.stop_gradient(jnp.abs(x)), -1, keepdims=True)
    )
    scaled = x / scale
    squares = jnp.sum(scaled * scaled, -1, keepdims=True)
    has_norm = lax.stop_gradient(jnp.sqrt(squares) * scale) > MIN_NORM
    squares = jnp.where(has_norm, squares, 1)
    unit = jnp.where(has_norm, scaled * lax.rsqrt(squares), 0)
    return unit, has_norm[..., 0]


def masked_max(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the maximum of the last axis over the mask; -inf where it is empty."""
    return jnp.max(jnp.where(mask, x, -jnp.inf), -1)


def masked_argmax(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the lowest index of the masked maximum; 0 where the mask is empty."""
    # Maximum, then the first index that attains it: XLA's argmax is not vectorised
    # on CPU and costs several times as much.
    best = masked_max(x, mask)[..., None]
    columns = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    first = jnp.min(jnp.where(mask & (x == best), columns, x.shape[-1]), -1)
    return jnp.where(first < x.shape[-1], first, 0)


def masked_argmin(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the lowest index of the masked minimum; 0 where the mask is empty."""
    return masked_argmax(-x, mask)


def masked_logsumexp(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return log(sum(exp(x))) of the last axis over the mask, and where it exists.

    Where the mask is empty the value is 0 with gradient 0 and the flag False: minus
    infinity is told by the flag, not by a number that later arithmetic trips over.
    """
    largest = lax.stop_gradient(masked_max(x, mask))
    exists = largest != -jnp.inf
    shift = jnp.where(exists, largest, 0)
    # The argument of exp is selected: an unmasked overflow would leave inf * 0.
    terms = jnp.exp(jnp.where(mask, x - shift[..., None], -jnp.inf))
    total = jnp.where(exists, jnp.sum(terms, -1), 1)
    return jnp.where(exists, jnp.log(total) + shift, 0), exists


def order_keys(distances: jax.Array) -> jax.Array:
    """Return integers that have the order of the distances, of the same width.

    On CPU integers sort five times faster than floats. Not negative where the
    distances are not. The largest integer is no key of a number.
    """
    kind = jnp.int32 if distances.dtype == jnp.float32 else jnp.int64
    # Minus zero equals zero, but its bits do not.
    bits = lax.bitcast_convert_type(jnp.where(distances == 0, 0, distances), kind)
    largest = jnp.iinfo(kind).max
    # Bits of negative numbers ascend with their size: all but the sign are flipped.
    return jnp.where(bits < 0, bits ^ largest, bits)


def from_order_keys(keys: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Return the numbers that `order_keys` made these of."""
    bits = jnp.where(keys < 0, keys ^ jnp.iinfo(keys.dtype).max, keys)
    return lax.bitcast_convert_type(bits, dtype)


def varying_like(values: Any, *examples: jax.Array) -> Any:
    """Mark a pytree of constants as varying over the mapped axes of the examples.

    The carry of a loop that starts as a constant and ends as data of one device would
    otherwise change its type inside `jax.shard_map`. Outside it, nothing happens.
    """
    axes = frozenset().union(*(varying_axes(example) for example in examples))

    def mark(value: jax.Array) -> jax.Array:
        missing = tuple(sorted(axes - varying_axes(value)))
        return lax.pcast(value, missing, to="varying") if missing else value

    return jax.tree.map(mark, values)


def varying_axes(x: jax.Array) -> frozenset[str]:
    """Return the mapped axes over which an array differs from device to device."""
    kind = getattr(jax.typeof(x), "manual_axis_type", None)
    return jax.typeof(x).vma if kind is None else kind.varying  # before JAX 0.10.1


def is_finite(x: jax.Array, exists: jax.Array) -> jax.Array:
    """Return whether all entries of the existing rows of [n, ...] are finite."""
    mask = exists.reshape(exists.shape + (1,) * (x.ndim - 1))
    return jnp.all(jnp.isfinite(x) | ~mask)
