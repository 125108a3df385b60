"""Few-shot classification, against an exhaustive count where that is possible."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmetric import retrieval
from jaxmetric.retrieval import episodes

KEY = jax.random.key(0)


def test_draws_without_replacement_are_uniform():
    sizes = jnp.array([4, 3, 1])
    keys = jax.random.split(KEY, 6000)
    draw = jax.jit(jax.vmap(lambda key: episodes.draw_distinct(key, sizes, 3)))
    drawn = np.asarray(draw(keys))
    # All 24 ordered choices of 3 of 4, each 250 times give or take 5 deviations.
    _, counts = np.unique(drawn[:, 0], axis=0, return_counts=True)
    assert counts.size == 24
    assert np.abs(counts - 250).max() < 80
    orders, counts = np.unique(drawn[:, 1], axis=0, return_counts=True)
    assert orders.tolist() == sorted(map(list, itertools.permutations(range(3))))
    assert np.abs(counts - 1000).max() < 145
    # Of a size of 1 the other two slots are beyond it.
    assert (drawn[:, 2, 0] == 0).all()
    assert (drawn[:, 2, 1:] >= 1).all()


def test_accuracy_equals_the_exhaustive_count():
    # Two classes of three rows: 9 pairs of examples and 4 queries each.
    x, labels = np.array([0.0, 1.0, 4.0, 3.0, 6.0, 7.0]), np.repeat([0, 1], 3)
    right = []
    for a, b in itertools.product(range(3), range(3, 6)):
        for q in set(range(6)) - {a, b}:
            own, other = (a, b) if q < 3 else (b, a)
            right.append(abs(x[q] - x[own]) < abs(x[q] - x[other]))
    embeddings = jnp.asarray(x[:, None], jnp.float32)
    found = retrieval.few_shot(KEY, embeddings, labels, ways=2, episodes=3000)
    assert 0.3 < np.mean(right) < 0.95
    assert abs(found.accuracy - np.mean(right)) < 2 * found.interval
    # The interval is that of a mean of 3000 numbers in [0, 1].
    assert 0 < found.interval < 1.96 * 0.5 / 3000**0.5


def test_the_interval_is_that_of_a_mean_of_so_many_episodes():
    # With one query of two classes an episode has 0, 1/2 or 1: where two of them have
    # a mean of 3/4, these are 1/2 and 1. Both are 1/4 off; n - 1 is 1.
    x = jax.random.normal(jax.random.key(2), (12, 1))
    labels = jnp.arange(12) % 2
    draw = jax.vmap(
        lambda key: retrieval.few_shot(key, x, labels, ways=2, queries=1, episodes=2)
    )
    accuracy, interval = map(np.asarray, draw(jax.random.split(KEY, 40)))
    is_known = accuracy == 0.75
    assert is_known.any()
    deviation = (2 * 0.25**2 / 1) ** 0.5
    expected = 1.959964 * deviation / 2**0.5
    np.testing.assert_allclose(interval[is_known], expected, rtol=1e-6)
    one = retrieval.few_shot(KEY, x, labels, ways=2, episodes=1)
    assert jnp.isnan(one.interval)
    assert not jnp.isnan(one.accuracy)


def test_more_shots_use_the_mean():
    # Row by row the classes overlap; their means do not.
    x = jnp.array([[-3.0, 0.0], [3.0, 0.0], [0.0, 0.1], [-3.0, 9.0], [3.0, 9.0]])
    x = jnp.concatenate([x, jnp.array([[0.0, 8.9]])])
    labels = jnp.array([5, 5, 5, -7, -7, -7])
    two = retrieval.few_shot(KEY, x, labels, ways=2, shots=2, episodes=50)
    assert two.accuracy == 1


def test_a_collapsed_model_scores_nothing():
    found = retrieval.few_shot(
        KEY, jnp.ones((6, 2)), jnp.array([0, 0, 1, 1, 2, 2]), ways=2, episodes=10
    )
    assert found.accuracy == 0


def test_small_classes_are_not_drawn():
    # The lone row would be classified wrong; no episode has it.
    x = jnp.array([[0.0], [0.1], [5.0], [5.1], [0.05]])
    labels = jnp.array([0, 0, 1, 1, 2])
    found = retrieval.few_shot(KEY, x, labels, ways=2, episodes=50)
    assert found.accuracy == 1
    undefined = retrieval.few_shot(KEY, x, labels, ways=3, episodes=50)
    assert jnp.isnan(undefined.accuracy)


def test_same_key_same_number_and_the_order_of_labels_does_not_matter():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(20, 3)).astype(np.float32))
    labels = jnp.asarray(np.repeat(np.arange(5), 4).astype(np.int32))
    options = dict(ways=3, episodes=40, queries=2)
    first = retrieval.few_shot(KEY, x, labels, **options)
    again = jax.jit(lambda *a: retrieval.few_shot(*a, **options))(KEY, x, labels)
    assert first == again
    other = retrieval.few_shot(jax.random.key(1), x, labels, **options)
    assert other.accuracy != first.accuracy


def test_a_non_finite_row_makes_the_accuracy_nan():
    x = jnp.array([[0.0], [0.1], [5.0], [jnp.inf]])
    found = retrieval.few_shot(KEY, x, jnp.array([0, 0, 1, 1]), ways=2, episodes=5)
    assert jnp.isnan(found.accuracy)
    assert jnp.isnan(found.interval)


BAD_CALLS = {
    "ways": (
        dict(ways=3),
        "few_shot: `ways` must be at most 2, the classes with 2 rows or more, got 3. "
        "Use ways=2.",
    ),
    "one": (dict(ways=1), "few_shot: `ways` must be an int >= 2, got 1. Use ways=2."),
    "shots": (
        dict(ways=2, shots=2),
        "few_shot: `ways` must be at most 1, the classes with 3 rows or more, got 2. "
        "Give more classes.",
    ),
    "episodes": (
        dict(ways=2, episodes=0),
        "few_shot: `episodes` must be an int >= 1, got 0. Use episodes=1.",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_name_the_argument_and_the_remedy(case):
    changes, text = BAD_CALLS[case]
    x, labels = jnp.arange(5.0)[:, None], np.array([0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="few_shot") as error:
        retrieval.few_shot(KEY, x, labels, **changes)
    assert str(error.value) == text
