"""Populations: each model as it would be alone, whatever the others do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmetric as jm
from jaxmetric.training import (
    TrainState,
    make_train_step,
    population,
    stack_states,
    take_state,
)

NUM_STEPS = 4
HYPER = {
    "margin": jnp.array([0.1, 0.4, 0.4]),
    "learning_rate": jnp.array([0.05, 0.01, 0.05]),
}
X = jax.random.normal(jax.random.key(1), (6, 3))
Y = jnp.array([0, 0, 1, 1, 2, 2])
BATCH = (X, Y, jnp.arange(6))


def embed_fn(params, model_state, inputs, *, key, train):
    """A linear map of noisy inputs, and how often it was trained as its state."""
    noise = 0.1 * jax.random.normal(key, inputs.shape)
    return (inputs + noise) @ params["w"], {"count": model_state["count"] + 1}


def loss_fn(loss_params, embeddings, labels, hyper, ids=None):
    """Batch-hard at the model's margin; the loss learns a scale."""
    stats: Any = jm.losses.batch_hard_triplet_loss(
        embeddings * loss_params["scale"],
        labels,
        ids=ids,
        margin=hyper["margin"],
        reduction="none",
    )
    loss: Any = jm.reduce(stats, "mean")
    return loss, stats


def make_optimizer(hyper):
    """Adam on a falling learning rate."""
    return optax.adam(optax.cosine_decay_schedule(hyper["learning_rate"], 10))


def alone(seed):
    return TrainState.create(
        {"w": jax.random.normal(jax.random.key(seed), (3, 2))},
        {"count": jnp.zeros(())},
        make_optimizer({"learning_rate": 0.1}),
        key=jax.random.key(10 + seed),
        loss_params={"scale": jnp.ones(())},
    )


def numbers(tree):
    """Return all leaves as NumPy arrays, keys as their data."""
    return [
        np.asarray(jax.random.key_data(x) if x.dtype == jax.random.key(0).dtype else x)
        for x in jax.tree.leaves(tree)
    ]


def assert_close(a, b):
    for x, y in zip(numbers(a), numbers(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)


def trained(states, hyper=HYPER, group_size=None):
    """Return the states and metrics of a population after some steps."""
    step: Any = jax.jit(
        population(embed_fn, loss_fn, make_optimizer, group_size=group_size),
        donate_argnums=0,
    )
    metrics = {}
    for _ in range(NUM_STEPS):
        states, metrics = step(states, BATCH, hyper)
    assert step._cache_size() == 1
    return states, metrics


@pytest.fixture(scope="module")
def each_alone():
    """Return the states and metrics of each model, trained by itself."""

    @jax.jit
    def step(state, hyper):
        def of_model(loss_params, embeddings, labels, ids=None):
            return loss_fn(loss_params, embeddings, labels, hyper, ids=ids)

        optimizer = make_optimizer(hyper)
        return make_train_step(embed_fn, of_model, optimizer)(state, BATCH)

    def train(state, i):
        metrics = {}
        for _ in range(NUM_STEPS):
            state, metrics = step(state, jax.tree.map(lambda x: x[i], HYPER))
        return state, metrics

    key = alone(0).key
    own = [train(alone(i), i) for i in range(3)]
    return {False: own, True: [train(alone(i)._replace(key=key), i) for i in range(3)]}


@pytest.mark.parametrize(
    ("shared_key", "group_size"),
    [
        (False, None),
        pytest.param(True, None, marks=pytest.mark.slow),
        (True, 1),
        pytest.param(False, 2, marks=pytest.mark.slow),
    ],
)
def test_each_model_ends_where_it_would_alone(each_alone, shared_key, group_size):
    states = stack_states([alone(i) for i in range(3)], shared_key=shared_key)
    states, metrics = trained(states, group_size=group_size)
    assert states.key.shape == (() if shared_key else (3,))
    for i, (state, alone_metrics) in enumerate(each_alone[shared_key]):
        assert_close(take_state(states, i), state)
        assert_close({k: v[i] for k, v in metrics.items()}, alone_metrics)


def test_a_model_that_diverges_is_held_and_hurts_nobody():
    good, _ = trained(stack_states([alone(i) for i in range(3)], shared_key=True))
    states = stack_states([alone(i) for i in range(3)], shared_key=True)
    # Infinite parameters after the first step: every one after it is skipped.
    hyper = HYPER | {"learning_rate": HYPER["learning_rate"].at[1].set(3e38)}
    states, metrics = trained(states, hyper)
    assert states.skipped.tolist() == [0, NUM_STEPS - 1, 0]
    assert metrics["skipped"].tolist() == [0, 1, 0]
    for i in (0, 2):
        for x, y in zip(
            numbers(take_state(states, i)), numbers(take_state(good, i)), strict=True
        ):
            np.testing.assert_array_equal(x, y)


def test_other_hyper_parameters_are_the_same_program():
    step: Any = jax.jit(population(embed_fn, loss_fn, make_optimizer))
    states = stack_states([alone(i) for i in range(3)])
    first, _ = step(states, BATCH, HYPER)
    other, _ = step(states, BATCH, jax.tree.map(lambda x: 2 * x, HYPER))
    assert step._cache_size() == 1
    assert not np.array_equal(first.params["w"], other.params["w"])


@pytest.mark.parametrize(("shared_key", "times"), [(True, 1), (False, 3)])
def test_what_hangs_on_the_key_alone_is_computed_once(shared_key, times):
    states = stack_states([alone(i) for i in range(3)], shared_key=shared_key)
    step = population(embed_fn, loss_fn, make_optimizer)
    text = str(jax.make_jaxpr(step)(states, BATCH, HYPER))
    noise = "u32[6,3] = random_bits" if times == 1 else "u32[3,6,3] = random_bits"
    assert noise in text


def test_taking_a_state_out_of_a_stack():
    states = [alone(i) for i in range(3)]
    stacked = stack_states(states)
    for i in (0, 2, -1):
        for x, y in zip(
            numbers(take_state(stacked, i)), numbers(states[i]), strict=True
        ):
            np.testing.assert_array_equal(x, y)
    with pytest.raises(IndexError, match="`model` must be an index into 3 models"):
        take_state(stacked, 3)


def test_mistakes_name_what_does_not_fit():
    with pytest.raises(ValueError, match="`group_size` must be a positive int"):
        population(embed_fn, loss_fn, make_optimizer, group_size=0)
    with pytest.raises(ValueError, match="`states` must hold at least one state"):
        stack_states([])
    other = alone(0)._replace(params={"w": jnp.ones((4, 2))})
    with pytest.raises(ValueError, match=r"another in states\[1\]"):
        stack_states([alone(0), other])
    step = population(embed_fn, loss_fn, make_optimizer)
    with pytest.raises(ValueError, match="`states` must be of a population"):
        step(alone(0), BATCH, HYPER)
    states = stack_states([alone(0), alone(1)])
    with pytest.raises(ValueError, match="one entry for each of the 2 models"):
        step(states, BATCH, HYPER)
