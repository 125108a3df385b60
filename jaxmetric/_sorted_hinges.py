"""Sums of hinges over all triplets of a row, by sorting its negatives once.

With s the sorted negatives of a row, S their prefix sums and t_p = d_p + margin,

  k_p = #{s < t_p}    total = sum_p k_p t_p - S[k_p]    c_n = #{p: t_p > d_n}

so a positive costs a binary search in place of a pass over the row. See `_hinges`.
Sources: Joachims. Training Linear SVMs in Linear Time. KDD 2006; Airola, Pahikkala,
Salakoski. 2011. arXiv:1005.0928.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _numerics, _selection

# Numbers that are summed one after the other in a prefix sum.
_STRETCH = 64


def sums(
    d: jax.Array, margin: jax.Array, count: jax.Array, masks: tuple, *, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """Return [b] totals and numbers of active triplets.

    Args:
      d: [b, n] distances.
      margin: [b].
      count: [b] integer zeros.
      masks: positive [b, n], negative [b, n], and the `ClassSegments` of the rows.
      chunk: positives that are searched for together.

    Memory: O(b n). Time: O(b n log n).
    """
    ordered = _sorted(jnp.where(masks[1], d, jnp.inf))
    # Prefix sums of numbers near 0 lose the fewest digits.
    origin = jnp.where(jnp.isfinite(ordered[:, :1]), ordered[:, :1], 0)
    above = jnp.where(jnp.isfinite(ordered), ordered - origin, 0)
    sums_below = jnp.pad(_prefix_sums(above), ((0, 0), (1, 0)))

    def step(state: tuple, p: jax.Array, t: jax.Array, k: jax.Array) -> tuple:
        total, num_active = state
        violation = k.astype(d.dtype) * (t - origin) - _at(sums_below, k)
        total += jnp.sum(jnp.where(k > 0, violation, 0), -1)
        return total, num_active + jnp.sum(k, -1, dtype=jnp.int32)

    start = (jnp.zeros_like(margin), count)
    return _visit_chunks(step, start, ordered, d, margin, masks, chunk)


def slopes(
    d: jax.Array, margin: jax.Array, count: jax.Array, masks: tuple, *, chunk: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return [b] numbers of active triplets, [b, n] k_p of positives or -c_n, and [b].

    The last is the distance of one positive of each row. Arguments, memory and time
    are those of `sums`.
    """
    negative, rows = masks[1], jnp.arange(d.shape[0])[:, None]
    ordered = _sorted(jnp.where(negative, d, jnp.inf))

    def step(state: tuple, p: jax.Array, t: jax.Array, k: jax.Array) -> tuple:
        num_active, slope, origin = state
        at_most = _count_below(_sorted(t), d, inclusive=True)
        slope -= jnp.where(negative, t.shape[1] - at_most, 0).astype(d.dtype)
        slope = slope.at[rows, p].add(k.astype(d.dtype))
        farthest = jnp.max(t, -1) - margin
        origin = jnp.where(farthest > -jnp.inf, farthest, origin)
        return num_active + jnp.sum(k, -1, dtype=jnp.int32), slope, origin

    start = (count, jnp.zeros_like(d), jnp.zeros_like(margin))
    return _visit_chunks(step, start, ordered, d, margin, masks, chunk)


def _visit_chunks(
    step: Callable[..., tuple],
    start: tuple,
    ordered: jax.Array,
    d: jax.Array,
    margin: jax.Array,
    masks: tuple,
    chunk: int,
) -> tuple:
    """Return the state after `state = step(state, p, t, k)` for all positives.

    They come `chunk` at a time: [b, chunk] indices, t_p (minus infinity where there is
    none) and k_p.
    """
    positive, _, segments = masks
    rows, chunk = jnp.arange(d.shape[0])[:, None], min(d.shape[1], chunk)

    def visit(number: jax.Array, state: tuple) -> tuple:
        slots = number * chunk + jnp.arange(chunk, dtype=jnp.int32)
        p, exists = jax.vmap(segments.candidate, out_axes=1)(slots)
        exists &= positive[rows, p]
        t = jnp.where(exists, d[rows, p] + margin[:, None], -jnp.inf)
        return step(state, p, t, _count_below(ordered, t, inclusive=False))

    start = _numerics.varying_like(start, d, margin, positive)
    chunks = segments._replace(size=-(-segments.size // chunk))
    return _selection.visit_slots(visit, start, chunks, d)


def _sorted(x: jax.Array) -> jax.Array:
    """Return [b, n] numbers in ascending order along the rows."""
    half = x.shape[0] // 2
    # Integers sort five times faster than floats, and two sorts run side by side.
    keys = _numerics.order_keys(x)
    parts = (keys[:half], keys[half:]) if half else (keys,)
    keys = jnp.concatenate([lax.sort(part, dimension=1) for part in parts])
    return _numerics.from_order_keys(keys, x.dtype)


def _prefix_sums(x: jax.Array) -> jax.Array:
    """Return inclusive prefix sums along the rows of [b, n].

    Sums of stretches are added to sums within a stretch: faster than one long sum, and
    closer to the truth.
    """
    b, n = x.shape
    stretches = jnp.pad(x, ((0, 0), (0, -n % _STRETCH))).reshape(b, -1, _STRETCH)
    within = jnp.cumsum(stretches, -1)
    before = jnp.cumsum(within[..., -1], -1) - within[..., -1]
    return (within + before[..., None]).reshape(b, -1)[:, :n]


def _count_below(
    ordered: jax.Array, values: jax.Array, *, inclusive: bool
) -> jax.Array:
    """Return [b, q] int32 how many of a row's ordered numbers are below (or at) each.

    A binary search without branches; the row is filled up to a power of two.
    """
    b, n = ordered.shape
    width = 1 << n.bit_length()
    ordered = jnp.pad(ordered, ((0, 0), (0, width - n)), constant_values=jnp.inf)
    low = jnp.zeros_like(values, jnp.int32)
    step = width // 2
    while step:
        found = _at(ordered, low + (step - 1))
        is_before = found <= values if inclusive else found < values
        low = jnp.where(is_before, low + step, low)
        step //= 2
    return low


def _at(x: jax.Array, columns: jax.Array) -> jax.Array:
    """Return x[i, columns[i, j]], for columns that are known to be in range."""
    b, n = x.shape
    if b * n > jnp.iinfo(jnp.int32).max:
        return jnp.take_along_axis(x, columns, 1, mode="promise_in_bounds")
    flat = jnp.arange(b, dtype=jnp.int32)[:, None] * n + columns
    return x.reshape(-1).at[flat].get(mode="promise_in_bounds")
