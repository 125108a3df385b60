"""Gradients by chunks of a batch: those of the whole batch, in less memory."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmetric as jm
from jaxmetric.models import ConvEncoder, MLPEncoder, TwoTowers
from jaxmetric.training import (
    TrainState,
    as_functional,
    embed_by_chunks,
    grad_cache,
    make_train_step,
)

losses: Any = jm.losses
ROWS = 24
KEY = jax.random.key(3)
LABELS = jnp.asarray(np.random.default_rng(1).integers(0, 4, ROWS), jnp.int32)


def rows(*shape: int, seed: int = 0) -> jax.Array:
    values = np.random.default_rng(seed).normal(size=(ROWS, *shape))
    return jnp.asarray(values, jnp.float32)


def of_all_pairs(loss_params, x, y, is_positive):
    """A loss that is quick to compile and no sum over parts of the batch."""
    logits = x @ y.T / jnp.exp(loss_params["log_temperature"])
    chosen = jnp.sum(jax.nn.softmax(logits, -1), -1, where=is_positive)
    return -jnp.mean(jnp.log(chosen))


def labelled(loss_params, embeddings, labels):
    is_positive = labels[:, None] == labels[None, :]
    return of_all_pairs(loss_params, embeddings, embeddings, is_positive)


def paired(loss_params, embeddings, labels):
    x, y = embeddings
    return of_all_pairs(loss_params, x, y, jnp.eye(ROWS, dtype=bool))


def mlp(rate: float = 0.0) -> nnx.Module:
    rngs = nnx.Rngs(0)
    encoder = MLPEncoder(5, hidden=(8,), dim=4, rngs=rngs)
    if rate:
        return nnx.Sequential(nnx.Dropout(rate, rngs=rngs), encoder)
    return encoder


def conv() -> nnx.Module:
    return ConvEncoder((8, 8, 1), widths=(4,), dim=4, rngs=nnx.Rngs(0))


def towers() -> nnx.Module:
    left = MLPEncoder(5, hidden=(8,), dim=4, rngs=nnx.Rngs(0))
    return TwoTowers(left, MLPEncoder(3, hidden=(), dim=4, rngs=nnx.Rngs(1)))


ENCODERS: dict[str, Any] = {
    "mlp": (mlp, rows(5), labelled),
    "conv": (conv, rows(8, 8, 1), labelled),
    "two towers": (towers, (rows(5), rows(3, seed=2)), paired),
}
LOSS_PARAMS = {"log_temperature": jnp.float32(-1)}


def plain(embed_fn, loss_fn):
    """Value and gradient as anybody would write them, by which chunks are judged."""

    def value_and_grad(params, model_state, inputs, labels, *, key, loss_params):
        def objective(trained):
            embeddings, _ = embed_fn(
                trained["params"], model_state, inputs, key=key, train=True
            )
            return loss_fn(trained["loss_params"], embeddings, labels)

        return jax.value_and_grad(objective)(
            {"params": params, "loss_params": loss_params}
        )

    return value_and_grad


def assert_same(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    (value, grads), (expected, other) = got, want
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    largest = max(np.abs(a).max() for a in jax.tree.leaves(other))
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize(
    ("name", "chunk_size"),
    [
        *[(name, 10) for name in ENCODERS],
        *[pytest.param(name, 6, marks=pytest.mark.slow) for name in ENCODERS],
        ("mlp", 1),
        ("mlp", ROWS),
    ],
)
def test_the_gradient_is_that_of_the_whole_batch(name, chunk_size):
    make, inputs, loss_fn = ENCODERS[name]
    embed_fn, params, model_state = as_functional(make())
    arguments = params, model_state, inputs, LABELS
    run = {"key": KEY, "loss_params": LOSS_PARAMS}
    cached = grad_cache(embed_fn, loss_fn, chunk_size=chunk_size)
    got = jax.jit(cached)(*arguments, **run)
    assert_same(got, jax.jit(plain(embed_fn, loss_fn))(*arguments, **run))


@pytest.mark.parametrize("chunk_size", [pytest.param(6, marks=pytest.mark.slow), 10])
def test_each_chunk_has_random_numbers_of_its_own_in_both_directions(chunk_size):
    embed_fn, params, model_state = as_functional(mlp(rate=0.5))
    num_chunks = -(-ROWS // chunk_size)

    def by_hand(params, model_state, inputs, *, key, train):
        """Chunk i has the rows i, i + n, ... and fold i of the key; all is kept."""
        size = -(-ROWS // num_chunks)
        missing = num_chunks * size - ROWS
        inputs = jnp.concatenate([inputs, jnp.tile(inputs[-1:], (missing, 1))])
        chunks = [
            embed_fn(
                params,
                model_state,
                inputs[i::num_chunks],
                key=jax.random.fold_in(key, i),
                train=train,
            )[0]
            for i in range(num_chunks)
        ]
        together = jnp.stack(chunks, 1).reshape(num_chunks * size, -1)
        return together[:ROWS], model_state

    arguments = params, model_state, rows(5), LABELS
    run = {"key": KEY, "loss_params": LOSS_PARAMS}
    got = jax.jit(grad_cache(embed_fn, labelled, chunk_size=chunk_size))(
        *arguments, **run
    )
    assert_same(got, jax.jit(plain(by_hand, labelled))(*arguments, **run))
    # Chunks do not share their noise, and another key is another gradient.
    x = jnp.ones((ROWS, 5))
    embed = embed_by_chunks(embed_fn, chunk_size=chunk_size)
    embeddings, _ = embed(params, model_state, x, key=KEY, train=True)
    assert len(np.unique(np.asarray(embeddings), axis=0)) > ROWS / 2
    # In evaluation no key is needed, and nothing is random.
    embeddings, _ = embed(params, model_state, x, key=None, train=False)
    np.testing.assert_allclose(embeddings, embeddings[:1].repeat(ROWS, 0), rtol=1e-6)


def linear(params, model_state, inputs, *, key, train):
    return inputs @ params["w"], model_state


def test_a_train_step_by_chunks_is_the_step():
    def loss_fn(loss_params, embeddings, labels, ids=None) -> Any:
        stats = losses.contrastive_loss(embeddings, labels, ids=ids, reduction="none")
        return jm.reduce(stats, "mean"), stats

    optimizer = optax.adam(0.1)
    params = {"w": jnp.eye(5, 4)}
    state = TrainState.create(params, {}, optimizer, key=KEY)
    batch = (rows(5), LABELS, jnp.arange(ROWS))
    by_chunks = embed_by_chunks(linear, chunk_size=7)
    got, want = (
        jax.jit(make_train_step(embed_fn, loss_fn, optimizer))(state, batch)
        for embed_fn in (by_chunks, linear)
    )
    for a, b in zip(jax.tree.leaves(got[1]), jax.tree.leaves(want[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose(got[0].params["w"], want[0].params["w"], rtol=1e-5)
    # The same from `grad_cache`, with statistics and ids.
    (loss, stats), grads = grad_cache(linear, loss_fn, chunk_size=7)(
        params, {}, batch[0], LABELS, ids=batch[2]
    )
    np.testing.assert_allclose(loss, want[1]["loss"], rtol=1e-6)
    assert isinstance(stats, jm.LossStats)
    assert grads["loss_params"] == {}
    norm = jnp.linalg.norm(grads["params"]["w"])
    np.testing.assert_allclose(norm, want[1]["grad_norm"], rtol=1e-5)


def test_padding_of_the_last_chunk_cannot_spoil_the_gradient():
    def direction(params, model_state, inputs, *, key, train):
        """Without guard: a row of zeros would have a gradient that is not finite."""
        z = inputs @ params["w"]
        return z / jnp.linalg.norm(z, axis=-1, keepdims=True), model_state

    def loss_fn(loss_params, embeddings, labels):
        return losses.contrastive_loss(embeddings, labels)

    x, params = rows(5)[:5], {"w": jnp.eye(5, 4)}
    got = grad_cache(direction, loss_fn, chunk_size=2)(params, {}, x, LABELS[:5])
    want = plain(direction, loss_fn)(
        params, {}, x, LABELS[:5], key=None, loss_params={}
    )
    assert np.isfinite(got[0])
    assert_same(got, want)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("chunk_size", [8, 11])
def test_chunks_of_a_batch_on_many_devices(kind, chunk_size):
    """Each chunk is spread over the devices, and so is the loss of all of them."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,), devices=jax.devices()[:4])
    loss = jm.sharding.data_parallel(losses.contrastive_loss, mesh=mesh)

    def value_and_grad(loss):
        def loss_fn(loss_params, embeddings, labels):
            return loss(embeddings, labels)

        return jax.jit(grad_cache(linear, loss_fn, chunk_size=chunk_size))

    params, x = {"w": jnp.eye(5, 4)}, rows(5)
    want = value_and_grad(losses.contrastive_loss)(params, {}, x, LABELS)
    by_rows = NamedSharding(mesh, PartitionSpec("data"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        x, labels = jax.device_put((x, LABELS), by_rows)
        params = jax.device_put(params, everywhere)
        got = value_and_grad(loss)(params, {}, x, labels)
    assert_same(jax.tree.map(np.asarray, got), want)


def test_memory_is_that_of_a_chunk():
    batch, width = 512, 128

    def deep(params, model_state, inputs, *, key, train):
        x = inputs
        for w in params["w"]:
            x = jnp.tanh(x @ w)
        return x[:, :8], model_state

    def loss_fn(loss_params, embeddings, labels):
        return losses.contrastive_loss(embeddings, labels)

    def temporary_bytes(chunk_size: int) -> int:
        function = jax.jit(grad_cache(deep, loss_fn, chunk_size=chunk_size))
        shape = jax.ShapeDtypeStruct
        params = {"w": [shape((width, width), jnp.float32)] * 6}
        x = shape((batch, width), jnp.float32)
        y = shape((batch,), jnp.int32)
        compiled = function.lower(params, {}, x, y).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    whole, parts = temporary_bytes(batch), temporary_bytes(32)
    activations = 6 * batch * width * 4
    assert whole > activations
    assert parts < whole - activations / 2


class Normalised(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(5, 4, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.norm(self.linear(x))


class WithConstant(nnx.Module):
    """An encoder that carries a state which no batch changes."""

    def __init__(self):
        self.linear = nnx.Linear(5, 4, rngs=nnx.Rngs(0))
        self.mean = nnx.BatchStat(jnp.ones(5))

    def __call__(self, x):
        return self.linear(x - self.mean[...][None, :])


def test_a_state_that_changes_with_the_batch_is_refused():
    embed_fn, params, model_state = as_functional(Normalised())
    cached = grad_cache(embed_fn, labelled, chunk_size=6)
    with pytest.raises(ValueError, match="model_state") as e:
        jax.eval_shape(
            functools.partial(cached, key=KEY, loss_params=LOSS_PARAMS),
            *(params, model_state, rows(5), LABELS),
        )
    assert str(e.value) == (
        "embed_by_chunks: `embed_fn` must return the model_state that it was given, "
        "got a new value of model_state['norm']['mean']. Running averages over chunks "
        "are not those of the batch: normalise each example by itself (nnx.LayerNorm, "
        "nnx.GroupNorm)."
    )
    # It is refused whatever the size: not only once a batch is too large.
    with pytest.raises(ValueError, match="model_state"):
        embed_by_chunks(embed_fn, chunk_size=99)(
            params, model_state, rows(5), key=KEY, train=True
        )
    # In evaluation the averages are not touched.
    embed = embed_by_chunks(embed_fn, chunk_size=6)
    got, after = embed(params, model_state, rows(5), key=None, train=False)
    want, _ = embed_fn(params, model_state, rows(5), key=None, train=False)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    assert after is model_state

    def grows(params, model_state, inputs, *, key, train):
        return inputs, {"count": jnp.zeros(())}

    with pytest.raises(ValueError, match="got another structure"):
        embed_by_chunks(grows, chunk_size=2)({}, {}, rows(5), key=None, train=True)


def test_a_state_that_stays_is_none_of_its_business():
    embed_fn, params, model_state = as_functional(WithConstant())
    embed = embed_by_chunks(embed_fn, chunk_size=6)
    want, _ = embed_fn(params, model_state, rows(5), key=KEY, train=True)
    run = jax.jit(functools.partial(embed, key=KEY, train=True))
    got, after = run(params, model_state, rows(5))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after["mean"], model_state["mean"])


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="chunk_size") as e:
        grad_cache(linear, labelled, chunk_size=0)
    assert str(e.value) == (
        "embed_by_chunks: `chunk_size` must be a positive int, got 0. Use as many rows "
        "as fit in memory."
    )
    embed = embed_by_chunks(linear, chunk_size=2)
    with pytest.raises(ValueError, match="inputs") as e:
        embed({}, {}, (rows(5), rows(5)[:3]), key=None, train=True)
    assert str(e.value).startswith(
        "embed_by_chunks: `inputs` must be arrays with one number of rows, got "
        "(24, 5), (3, 5)."
    )
