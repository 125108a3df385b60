"""Any encoder as a pure function: NNX modules with state, Linen models, functions."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxmetric.training import TrainState, as_functional, make_train_step

KEY = jax.random.key(7)
INPUTS = jax.random.normal(jax.random.key(1), (8, 3))
LABELS = jnp.arange(8) % 2


class Network(nnx.Module):
    """A shared layer, dropout and batch normalisation."""

    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs)])
        self.square = nnx.Linear(4, 4, rngs=rngs)
        self.again = self.square
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return self.dropout(self.norm(self.again(self.square(x))))


class Named(nnx.Module):
    """A network that is told by arguments what others are told by attributes."""

    def __init__(self, name: str):
        self.name = name
        self.weight = nnx.Param(jnp.ones(()))

    def __call__(self, x, train=None, deterministic=None, *, rngs):
        flag = train if self.name == "train" else not deterministic
        noise = jax.random.normal(rngs.noise(), x.shape)
        return self.weight[...] * x + (noise if flag else 0.0)


def pull_loss(loss_params, embeddings, labels):
    """Equal labels together, means of different labels apart."""
    is_first = (labels == 0)[:, None]
    first = jnp.mean(embeddings, axis=0, where=is_first)
    second = jnp.mean(embeddings, axis=0, where=~is_first)
    centre = jnp.where(is_first, first[None], second[None])
    spread = jnp.mean((embeddings - centre) ** 2)
    return spread + jnp.exp(-jnp.sum((first - second) ** 2))


def train(embed_fn, params, model_state, steps=25):
    """Return the state before, the state after, and the losses."""
    optimizer = optax.adam(0.03)
    state = TrainState.create(params, model_state, optimizer, key=jax.random.key(0))
    traces = []

    def traced_embed_fn(params, model_state, inputs, *, key, train):
        traces.append(train)
        return embed_fn(params, model_state, inputs, key=key, train=train)

    step = jax.jit(make_train_step(traced_embed_fn, pull_loss, optimizer))
    before, losses = state, []
    for _ in range(steps):
        state, metrics = step(state, (INPUTS, LABELS))
        losses.append(float(metrics["loss"]))
    assert traces == [True]  # One compilation.
    return before, state, losses


@functools.cache
def functional_network():
    return as_functional(Network(nnx.Rngs(0)))


def test_params_and_state_are_plain_dicts_keyed_by_attribute():
    _, params, model_state = functional_network()
    # `square` and `again` are one layer, under the name that sorts first.
    assert set(params) == {"layers", "again", "norm"}
    assert params["layers"][0]["kernel"].shape == (3, 4)
    assert set(model_state) == {"norm"}
    assert set(model_state["norm"]) == {"mean", "var"}


def test_nnx_module_with_dropout_and_batch_norm_trains():
    embed_fn, params, model_state = functional_network()
    before, after, losses = train(embed_fn, params, model_state)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    moved = after.model_state["norm"]["mean"] - before.model_state["norm"]["mean"]
    assert float(jnp.abs(moved).max()) > 0


def test_the_key_alone_decides_the_dropout():
    embed_fn, params, model_state = functional_network()

    def embed(seed):
        key = jax.random.key(seed)
        return embed_fn(params, model_state, INPUTS, key=key, train=True)[0]

    np.testing.assert_array_equal(embed(3), embed(3))
    assert not np.array_equal(embed(3), embed(4))


def test_every_random_stream_has_its_own_key():
    class Two(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Dropout(0.5, rngs=rngs)
            self.second = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.first(x), self.second(x)

    embed_fn, params, state = as_functional(Two(nnx.Rngs(0)))
    (a, b), _ = embed_fn(params, state, jnp.ones((8, 8)), key=KEY, train=True)
    assert not np.array_equal(a, b)


def test_evaluation_uses_the_averages_and_returns_the_state_it_was_given():
    embed_fn, params, model_state = functional_network()
    e1, same = embed_fn(params, model_state, INPUTS, key=None, train=False)
    e2, _ = embed_fn(params, model_state, INPUTS[:1], key=KEY, train=False)
    assert same is model_state
    np.testing.assert_allclose(e1[:1], e2, rtol=1e-6)
    np.testing.assert_array_equal(model_state["norm"]["mean"], np.zeros(4))


def test_nnx_states_are_taken_in_place_of_dicts_and_stay_as_they_were():
    embed_fn, params, model_state = functional_network()
    _, given, given_state, _ = nnx.split(
        Network(nnx.Rngs(0)), nnx.Param, nnx.BatchStat, ...
    )

    @jax.jit
    def embed(inputs, given_state):
        return embed_fn(given, given_state, inputs, key=KEY, train=True)

    embeddings, _ = embed(INPUTS, given_state)
    expected, _ = embed_fn(params, model_state, INPUTS, key=KEY, train=True)
    np.testing.assert_allclose(embeddings, expected, rtol=1e-5, atol=1e-6)
    embed_fn(given, given_state, INPUTS, key=KEY, train=True)
    np.testing.assert_array_equal(given_state["norm"]["mean"][...], np.zeros(4))


def test_module_is_left_as_it_was():
    module = Network(nnx.Rngs(0))
    module.eval()
    embed_fn, params, model_state = as_functional(module)
    embed_fn(params, model_state, INPUTS, key=KEY, train=True)
    assert module.dropout.deterministic
    assert module.norm.use_running_average
    np.testing.assert_array_equal(module.norm.mean[...], np.zeros(4))


def test_training_without_a_key_is_refused_where_it_matters():
    embed_fn, params, model_state = functional_network()
    with pytest.raises(ValueError, match=r"embed_fn: `key` must be a PRNG key") as e:
        embed_fn(params, model_state, INPUTS, key=None, train=True)
    assert "Pass key=jax.random.key(0)." in str(e.value)
    linear, weights, state = as_functional(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    assert linear(weights, state, INPUTS, key=None, train=True)[0].shape == (8, 2)


@pytest.mark.parametrize("name", ["train", "deterministic"])
def test_call_arguments_are_passed_where_the_module_names_them(name):
    embed_fn, params, state = as_functional(Named(name))
    quiet, _ = embed_fn(params, state, INPUTS, key=KEY, train=False)
    loud, _ = embed_fn(params, state, INPUTS, key=KEY, train=True)
    other, _ = embed_fn(params, state, INPUTS, key=jax.random.key(8), train=True)
    np.testing.assert_array_equal(quiet, INPUTS)
    assert not np.array_equal(loud, INPUTS)
    assert not np.array_equal(loud, other)


def test_a_tuple_of_inputs_becomes_positional_arguments():
    class Sum(nnx.Module):
        def __call__(self, x, y):
            return x + y

    embed_fn, params, state = as_functional(Sum())
    total, _ = embed_fn(params, state, (INPUTS, INPUTS), key=None, train=True)
    np.testing.assert_array_equal(total, 2 * INPUTS)


def test_what_is_kept_from_earlier_calls_does_not_enter_the_state():
    class Keeps(nnx.Module):
        def __init__(self):
            self.last = nnx.Intermediate(jnp.zeros(3))

        def __call__(self, x):
            self.last = nnx.Intermediate(x)
            return x

    embed_fn, params, state = as_functional(Keeps())
    assert state == {}
    assert embed_fn(params, state, INPUTS, key=None, train=True)[1] == {}


def test_abstract_modules_give_abstract_parameters():
    module = nnx.eval_shape(lambda: Network(nnx.Rngs(0)))
    embed_fn, params, model_state = as_functional(module)
    shapes = jax.tree.map(lambda x: x.shape, (params, model_state))
    _, real_params, real_state = functional_network()
    assert shapes == jax.tree.map(lambda x: x.shape, (real_params, real_state))
    embeddings, _ = embed_fn(real_params, real_state, INPUTS, key=None, train=False)
    expected, _ = functional_network()[0](
        real_params, real_state, INPUTS, key=None, train=False
    )
    np.testing.assert_array_equal(embeddings, expected)


def test_other_networks_are_refused_with_the_remedy():
    with pytest.raises(TypeError) as e:
        as_functional(nn.Dense(2))  # pyright: ignore (that is the test)
    assert str(e.value) == (
        "as_functional: `module` must be a Flax NNX module, got Dense. "
        "Write the function embed_fn itself: no other network needs this."
    )


def test_a_bare_function_trains():
    def embed_fn(params, model_state, inputs, *, key, train):
        return jnp.tanh(inputs @ params["w"]), model_state

    w = jax.random.normal(jax.random.key(2), (3, 2))
    _, _, losses = train(embed_fn, {"w": w}, {})
    assert losses[-1] < 0.7 * losses[0]


def test_a_linen_model_trains():
    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
            return nn.Dropout(0.1, deterministic=not train)(x)

    model = Linen()

    def embed_fn(params, model_state, inputs, *, key, train):
        variables, rngs = {"params": params, **model_state}, {"dropout": key}
        if not train:
            return model.apply(variables, inputs, train=False), model_state
        return model.apply(
            variables, inputs, train=True, rngs=rngs, mutable=["batch_stats"]
        )

    variables = model.init(jax.random.key(0), INPUTS, train=False)
    model_state = {"batch_stats": variables["batch_stats"]}
    before, after, losses = train(embed_fn, variables["params"], model_state)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert not np.array_equal(
        after.model_state["batch_stats"]["BatchNorm_0"]["mean"],
        before.model_state["batch_stats"]["BatchNorm_0"]["mean"],
    )
