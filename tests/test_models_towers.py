"""Each wrapper trains: shared towers on pairs and triplets, two towers on matches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxmetric.models import SharedTowers, TripletTowers, TwoTowers
from jaxmetric.training import TrainState, as_functional, make_train_step


class Encoder(nnx.Module):
    """A small network ending in unit rows."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.first = nnx.Linear(width, 16, rngs=rngs)
        self.last = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.last(nnx.relu(self.first(x)))
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def examples(seed, num_classes=4, width=6):
    """Return [n, width] noisy examples of classes on a common offset, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), 16)
    centres = np.random.default_rng(99).normal(size=(num_classes, width))
    x = centres[labels] + 0.4 * rng.normal(size=(len(labels), width)) + 2.0
    return x.astype(np.float32), labels


def squared(x, y):
    return jnp.sum((x - y) ** 2, axis=-1)


def distance(x, y):
    return jnp.sqrt(squared(x, y) + 1e-6)


def train(module, loss_fn, batch, steps=150):
    """Return the trained state, the embed_fn, and the first and last loss."""
    embed_fn, params, model_state = as_functional(module)
    optimizer = optax.adam(0.01)
    state = TrainState.create(params, model_state, optimizer, key=jax.random.key(0))
    step = jax.jit(make_train_step(embed_fn, loss_fn, optimizer))
    losses = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert int(state.skipped) == 0
    return state, embed_fn, losses[0], losses[-1]


def accuracy(embed, seed=5):
    """Return how often the nearest other example is of the same class."""
    x, labels = examples(seed)
    e = embed(x)
    d = squared(e[:, None], e[None]) + 9.0 * jnp.eye(len(x))
    return float(np.mean(labels[np.argmin(d, axis=1)] == labels))


def test_shared_towers_train_on_pairs():
    x, labels = examples(0)
    rng = np.random.default_rng(1)
    left, right = rng.integers(len(x), size=(2, 256))
    left[:128] = right[:128] // 16 * 16 + left[:128] % 16  # The same class.
    is_same = labels[left] == labels[right]

    def loss_fn(loss_params, embeddings, is_same):
        d = distance(*embeddings)
        apart = jnp.maximum(1.0 - d, 0.0)
        return jnp.mean(jnp.where(is_same, d**2, apart**2))

    towers = SharedTowers(Encoder(6, nnx.Rngs(0)))
    state, _, first, last = train(towers, loss_fn, ((x[left], x[right]), is_same))
    assert last < 0.3 * first
    # The parameters of the encoder are a branch, so it works without the towers.
    embed_fn, _, _ = as_functional(Encoder(6, nnx.Rngs(1)))
    params = state.params["encoder"]
    got = accuracy(lambda x: embed_fn(params, {}, x, key=None, train=False)[0])
    assert got > 0.9


def test_triplet_towers_train():
    x, labels = examples(0)
    rng = np.random.default_rng(2)
    anchor = rng.integers(len(x), size=256)
    positive = labels[anchor] * 16 + rng.integers(16, size=256)
    negative = (labels[anchor] + rng.integers(1, 4, size=256)) % 4 * 16
    triplets = (x[anchor], x[positive], x[negative])

    def loss_fn(loss_params, embeddings, labels):
        a, p, n = embeddings
        hinge = distance(a, p) - distance(a, n) + 0.5
        return jnp.mean(jnp.where(hinge > 0, hinge, 0.0))

    towers = TripletTowers(Encoder(6, nnx.Rngs(0)))
    state, _, first, last = train(towers, loss_fn, (triplets, None))
    assert last < 0.3 * first
    embed_fn, _, _ = as_functional(Encoder(6, nnx.Rngs(1)))
    params = state.params["encoder"]
    got = accuracy(lambda x: embed_fn(params, {}, x, key=None, train=False)[0])
    assert got > 0.9


def test_two_towers_train_to_find_each_other():
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(64, 3))
    left = np.tanh(hidden @ rng.normal(size=(3, 6))).astype(np.float32)
    right = (hidden @ rng.normal(size=(3, 9)) + 1.0).astype(np.float32)

    def loss_fn(loss_params, embeddings, labels):
        queries, keys = embeddings
        logits = queries @ keys.T / 0.1
        return -jnp.mean(jnp.diag(jax.nn.log_softmax(logits)))

    towers = TwoTowers(Encoder(6, nnx.Rngs(0)), Encoder(9, nnx.Rngs(1)))
    state, embed_fn, first, last = train(towers, loss_fn, ((left, right), None))
    assert last < 0.3 * first
    assert set(state.params) == {"left", "right"}
    (queries, keys), _ = embed_fn(
        state.params, {}, (left, right), key=None, train=False
    )
    found = jnp.argmax(queries @ keys.T, axis=1)
    assert float(jnp.mean(found == jnp.arange(64))) > 0.8


def test_shared_towers_have_one_set_of_weights_and_two_towers_have_two():
    def count(module):
        _, params, _ = as_functional(module)
        return len(jax.tree.leaves(params))

    encoder = Encoder(6, nnx.Rngs(0))
    assert count(SharedTowers(encoder)) == count(TripletTowers(encoder)) == 4
    assert count(TwoTowers(encoder, Encoder(6, nnx.Rngs(1)))) == 8
    assert count(TwoTowers(encoder, encoder)) == 4


def test_each_side_gets_the_embeddings_of_its_own_rows():
    encoder = Encoder(6, nnx.Rngs(0))
    x = jnp.asarray(examples(0)[0])
    first, second = SharedTowers(encoder)(x[:5], x[5:12])
    np.testing.assert_allclose(first, encoder(x[:5]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(second, encoder(x[5:12]), rtol=1e-5, atol=1e-6)
    a, p, n = TripletTowers(encoder)(x[:4], x[4:8], x[8:12])
    np.testing.assert_allclose(p, encoder(x[4:8]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(n, encoder(x[8:12]), rtol=1e-5, atol=1e-6)
    assert a.shape == (4, 4)


def test_batch_normalisation_sees_both_sides_as_one_batch():
    class Norm(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(1, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.norm(x)

    low, high = SharedTowers(Norm())(jnp.zeros((4, 1)), jnp.ones((4, 1)))
    np.testing.assert_allclose(low, -1.0, rtol=1e-3)
    np.testing.assert_allclose(high, 1.0, rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda e: SharedTowers(e)(jnp.ones((2, 6)), jnp.ones((2, 5))),
            ValueError,
            "SharedTowers: `inputs` must have examples of shape (6,) and dtype float32 "
            "in every entry, got shape (5,) and dtype float32. "
            "Use TwoTowers for inputs of two kinds.",
        ),
        (
            lambda e: TwoTowers(e, nnx.Linear(6, 5, rngs=nnx.Rngs(0)))(
                jnp.ones((2, 6)), jnp.ones((2, 6))
            ),
            ValueError,
            "TwoTowers: `right` must embed to 4 columns like `left`, got 5. "
            "Build both with one `dim`.",
        ),
        (
            lambda e: SharedTowers(nnx.Module())(jnp.ones((2, 6)), jnp.ones((2, 6))),
            TypeError,
            "SharedTowers: `encoder` must be callable, got Module. "
            "Give it a method __call__(self, x).",
        ),
    ],
)
def test_towers_that_do_not_fit_are_refused_with_the_remedy(call, error, text):
    with pytest.raises(error) as e:
        call(Encoder(6, nnx.Rngs(0)))
    assert str(e.value) == text
