"""Few-shot classification: can a few examples of a new class be told from others?"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _numerics

__all__ = ["FewShot", "few_shot"]

# Of a normal distribution, 95 % lies within this many standard deviations.
_NORMAL_95 = 1.959964


class FewShot(NamedTuple):
    """What `few_shot` returns.

    Attributes:
      accuracy: scalar, mean share of queries classified right.
      interval: scalar, half the width of its 95 % interval: accuracy +- interval.
    """

    accuracy: jax.Array
    interval: jax.Array


def few_shot(
    key: jax.Array,
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    ways: int = 20,
    shots: int = 1,
    episodes: int = 1000,
    queries: int = 15,
) -> FewShot:
    """Return the accuracy of nearest-class-mean classification from a few examples.

    An episode draws `ways` classes and of each `shots` rows, whose mean stands for the
    class, and up to `queries` other rows. A query is right if the mean of its own
    class is nearer (Euclidean) than any other; a tie counts against. Classes need at
    least shots + 1 rows to be drawn; where fewer than `ways` have them, the accuracy is
    NaN (an error if `labels` are NumPy or a list), and so it is when a row is not
    finite.

    Args:
      key: a PRNG key; the result is a function of the arguments alone.
      embeddings: [n, dim] floating.
      labels: [n] integer.
      ways: classes an episode, at least 2.
      shots: examples a class.
      episodes: how many are drawn.
      queries: the most rows a class that are classified in an episode.

    Returns:
      `FewShot(accuracy, interval)`, float32 or wider. The interval is that of the mean
      over episodes, 1.96 standard errors; NaN for a single episode.

    Raises:
      ValueError: shapes or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(n dim + ways queries (ways + dim) + episodes ways (shots + queries)).
    Time: O(episodes ways^2 queries dim).

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]])
      >>> labels = jnp.array([0, 0, 1, 1, 2, 2])
      >>> accuracy, interval = few_shot(
      ...     jax.random.key(0), x, labels, ways=2, episodes=20
      ... )
      >>> print(f"{accuracy:.2f} +- {interval:.2f}")
      1.00 +- 0.00

    Source: Snell, Swersky, Zemel. Prototypical Networks for Few-shot Learning. NIPS,
    2017. arXiv:1703.05175.
    """
    function = "few_shot"
    x = _checks.embeddings(function, "embeddings", embeddings)
    integers = _checks.integers(function, "labels", labels, x, "embeddings")
    sizes = dict(ways=ways, shots=shots, episodes=episodes, queries=queries)
    for name, value in sizes.items():
        least = 2 if name == "ways" else 1
        is_int = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not is_int or value < least:
            must, remedy = f"be an int >= {least}", f"Use {name}={least}."
            raise ValueError(_checks.text(function, name, must, repr(value), remedy))
    if not isinstance(labels, jax.Array):
        possible = int(np.sum(np.unique(labels, return_counts=True)[1] > shots))
        if possible < ways:
            must = f"be at most {possible}, the classes with {shots + 1} rows or more"
            remedy = f"Use ways={possible}." if possible > 1 else "Give more classes."
            raise ValueError(_checks.text(function, "ways", must, f"{ways}", remedy))
    options = (int(ways), int(shots), int(episodes), int(queries))
    return _few_shot(key, lax.stop_gradient(x), integers, options)


@partial(jax.jit, static_argnames="options")
def _few_shot(
    key: jax.Array, x: jax.Array, labels: jax.Array, options: tuple[int, ...]
) -> FewShot:
    """Draw all episodes, then classify one after the other."""
    ways, shots, episodes, queries = options
    x = x.astype(_numerics.accumulation_dtype(x))
    n = x.shape[0]
    # Every class is a segment of the rows sorted by label.
    labels, order = lax.sort((labels, jnp.arange(n, dtype=jnp.int32)), num_keys=1)
    is_first = jnp.concatenate([jnp.array([True]), labels[1:] != labels[:-1]])
    classes = jnp.cumsum(is_first, dtype=jnp.int32) - 1
    sizes = jnp.zeros(n, jnp.int32).at[classes].add(1)
    starts = jnp.cumsum(sizes, dtype=jnp.int32) - sizes
    can_be_drawn = sizes > shots
    num_possible = jnp.sum(can_be_drawn, dtype=jnp.int32)
    possible = jnp.argsort(~can_be_drawn)

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        class_key, row_key = jax.random.split(key)
        slots = draw_distinct(class_key, num_possible[None], ways)[0]
        chosen = possible[jnp.minimum(slots, n - 1)]
        slots = draw_distinct(row_key, sizes[chosen], shots + queries)
        exists = slots < sizes[chosen][:, None]
        places = jnp.minimum(starts[chosen][:, None] + slots, n - 1)
        return order[places], exists[:, shots:]

    def classify(episode: tuple[jax.Array, jax.Array]) -> jax.Array:
        rows, exists = episode
        means = jnp.mean(x[rows[:, :shots]], axis=1)
        differences = x[rows[:, shots:]][:, :, None, :] - means[None, None, :, :]
        squares = jnp.sum(differences**2, -1)
        is_own = jnp.eye(ways, dtype=bool)[:, None, :]
        own = jnp.min(jnp.where(is_own, squares, jnp.inf), -1)
        other = jnp.min(jnp.where(is_own, jnp.inf, squares), -1)
        num_right = jnp.sum((own < other) & exists, dtype=jnp.int32)
        return _numerics.quotient(
            num_right.astype(x.dtype), jnp.sum(exists, dtype=jnp.int32)
        )

    accuracies = lax.map(classify, jax.vmap(draw)(jax.random.split(key, episodes)))
    accuracy = jnp.mean(accuracies)
    is_good = (num_possible >= ways) & jnp.all(jnp.isfinite(x))
    squares = jnp.sum((accuracies - accuracy) ** 2)
    variance = (
        squares / (episodes - 1) if episodes > 1 else jnp.full_like(accuracy, jnp.nan)
    )
    interval = _NORMAL_95 * jnp.sqrt(variance / episodes)
    return FewShot(
        jnp.where(is_good, accuracy, jnp.nan), jnp.where(is_good, interval, jnp.nan)
    )


def draw_distinct(key: jax.Array, sizes: jax.Array, num: int) -> jax.Array:
    """Draw without replacement: [b, num] distinct numbers below `sizes`, [b].

    Every ordered choice is equally likely. From slot `sizes` on, where nothing is left
    to draw, the numbers are not below `sizes`.
    """

    def one(step: tuple[jax.Array, jax.Array], taken: jax.Array):
        slot, key = step
        left = jnp.maximum(sizes - slot, 1)
        drawn = jax.random.randint(key, sizes.shape, 0, left, jnp.int32)
        # The drawn one of those left: each taken number at or before it moves it on by
        # one. `taken` is sorted, so taken[j] - j numbers are left before taken[j].
        positions = jnp.arange(num, dtype=jnp.int32)[None, :]
        is_before = (positions < slot) & (taken - positions <= drawn[:, None])
        drawn += jnp.sum(is_before, -1, dtype=jnp.int32)
        # Insertion into a sorted list: the middle one of the number and both sides.
        previous = jnp.pad(taken[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
        taken = jnp.minimum(jnp.maximum(drawn[:, None], previous), taken)
        return taken, drawn

    none_taken = jnp.full((sizes.shape[0], num), jnp.iinfo(jnp.int32).max)
    steps = (jnp.arange(num, dtype=jnp.int32), jax.random.split(key, num))
    _, drawn = lax.scan(lambda taken, step: one(step, taken), none_taken, steps)
    return drawn.T
