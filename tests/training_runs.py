"""Training runs of every loss on digits and on a toy set, five seeds in one program.

One protocol for all. **Digits**: the 8 x 8 digits of scikit-learn, all ten classes; 600
images are held out, and what is told is MAP@R of these against each other by cosine.
Held-out images and not held-out classes, because 20 % of ten classes are two, which a
seed makes easy or hard: the choice of classes would be measured, not the loss.
**Toy**: ten classes that differ in 10 of 64 coordinates, below noise in the others, so
that neighbours of the untrained network are of any class; told is precision@1 of 600
fresh rows.

A batch is 5 rows of each class, or, for losses of two views, the views of 25 examples:
a digit is shifted by up to a pixel and gets noise, a toy row gets other noise in the
coordinates that say nothing. The encoder is a perceptron with 32 hidden units and 16
outputs, the optimiser Adam, the number of steps 200. Both sets have the same shapes:
seeds of both go through one compiled program, and a loss costs one compilation.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import jaxmetric as jm
from jaxmetric.training import TrainState, make_train_step
from tests.training_settings import DIM, NUM_CLASSES, objective, setting

NUM_STEPS, NUM_SEEDS = 200, 5
PER_CLASS, HIDDEN, FEATURES, NUM_HELD_OUT = 5, 32, 64, 600
BATCH = NUM_CLASSES * PER_CLASS


class Data(NamedTuple):
    """What seeds are trained and measured on; [seeds] first.

    inputs [seeds, steps, batch, features] and labels of the batches, then held-out rows
    [seeds, NUM_HELD_OUT, features] and their labels.
    """

    inputs: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray


def _balanced(rng: np.random.Generator, num_steps: int) -> np.ndarray:
    """Return [steps, batch] labels, every class equally often, shuffled."""
    labels = np.tile(np.repeat(np.arange(NUM_CLASSES), PER_CLASS), (num_steps, 1))
    return rng.permuted(labels, axis=1).astype(np.int32)


def _stack(seeds: list[tuple[np.ndarray, ...]]) -> Data:
    return Data(*(np.stack(arrays) for arrays in zip(*seeds, strict=True)))


@functools.cache
def digits(
    num_seeds: int = NUM_SEEDS, *, with_views: bool = False, num_steps: int = NUM_STEPS
) -> Data:
    """Return batches of digits; which images are held out differs between seeds."""
    source = jm.data.load_digits()
    images = source.inputs[..., 0].astype(np.float32) / 255
    classes = np.asarray(source.labels)
    return _stack(
        [
            _digits_of_seed(seed, images, classes, with_views, num_steps)
            for seed in range(num_seeds)
        ]
    )


def _digits_of_seed(
    seed: int, images: np.ndarray, labels: np.ndarray, with_views: bool, num_steps: int
) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(images))
    held_out, train = order[:NUM_HELD_OUT], order[NUM_HELD_OUT:]
    if with_views:
        rows = train[rng.integers(len(train), size=(num_steps, BATCH // 2))]
        rows = np.concatenate([rows, rows], axis=1)
        batches = _shifted(rng, images[rows])
        batches = batches + rng.normal(size=batches.shape) * 0.1
    else:
        drawn = _balanced(rng, num_steps)
        rows = np.zeros_like(drawn)
        for label in range(NUM_CLASSES):
            of_label = train[labels[train] == label]
            rows[drawn == label] = rng.choice(of_label, num_steps * PER_CLASS)
        batches = images[rows]
    flat = batches.reshape(num_steps, BATCH, FEATURES).astype(np.float32)
    held = images[held_out].reshape(NUM_HELD_OUT, FEATURES)
    return flat, labels[rows], held, labels[held_out]


def _shifted(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Return images [..., 8, 8], each shifted by -1, 0 or 1 pixel along both axes."""
    wide = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(1, 1), (1, 1)])
    moved = np.zeros_like(images)
    down, right = rng.integers(3, size=(2, *images.shape[:-2]))
    for i in range(3):
        for j in range(3):
            here = (down == i) & (right == j)
            moved[here] = wide[here][:, i : i + 8, j : j + 8]
    return moved


@functools.cache
def toy(num_seeds: int = NUM_SEEDS, *, with_views: bool = False) -> Data:
    """Return batches of the toy set."""
    return _stack([_toy_of_seed(seed, with_views) for seed in range(num_seeds)])


def _toy_of_seed(seed: int, with_views: bool) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng([seed, 2])
    labels = _balanced(rng, NUM_STEPS)
    if with_views:
        labels[:, BATCH // 2 :] = labels[:, : BATCH // 2]
    held_out_labels = np.resize(np.arange(NUM_CLASSES, dtype=np.int32), NUM_HELD_OUT)

    def rows(labels: np.ndarray) -> np.ndarray:
        noise = rng.normal(size=(*labels.shape, FEATURES))
        noise[..., :NUM_CLASSES] *= 0.2
        noise[..., :NUM_CLASSES] += 2 * np.eye(NUM_CLASSES)[labels]
        return noise.astype(np.float32)

    return rows(labels), labels, rows(held_out_labels), held_out_labels


def init_params(key: jax.Array) -> dict[str, jax.Array]:
    """Return the parameters of the encoder."""
    first, second = jax.random.split(key)
    return {
        "hidden": jax.random.normal(first, (FEATURES, HIDDEN)) * (2 / FEATURES) ** 0.5,
        "bias": jnp.zeros(HIDDEN),
        "out": jax.random.normal(second, (HIDDEN, DIM)) * (2 / HIDDEN) ** 0.5,
    }


def embed(params: dict[str, jax.Array], inputs: jax.Array, ending: str) -> jax.Array:
    """Return the embeddings of a perceptron that ends as a loss needs it."""
    hidden = jax.nn.relu(inputs @ params["hidden"] + params["bias"][None])
    rows = hidden @ params["out"]
    if ending == "unit":
        return jm.l2_normalize(rows)
    return jax.nn.sigmoid(rows) if ending == "sigmoid" else rows


@functools.cache
def _program(name: str, loss_fn: Any = None) -> Any:
    """Return the compiled training of a loss: (seeds, inputs, labels) -> params."""
    own = setting(name)
    optimizer = optax.adam(own.learning_rate)

    def embed_fn(params, model_state, inputs, *, key, train):
        return embed(params, inputs, own.ending), model_state

    step = make_train_step(embed_fn, loss_fn or objective(name), optimizer)

    def run(seed, inputs, labels):
        key, for_proxies, for_centers = jax.random.split(jax.random.key(seed), 3)
        loss_params = {}
        if own.proxies:
            proxies = jax.random.normal(for_proxies, own.proxies)
            loss_params["proxies"] = own.proxy_scale * proxies
        if name == "center_loss":
            loss_params["centers"] = jax.random.normal(for_centers, own.proxies)
        state = TrainState.create(
            init_params(key), {}, optimizer, key=key, loss_params=loss_params
        )
        state, metrics = lax.scan(step, state, (inputs, labels))
        return state.params, metrics["loss"], state.skipped

    return jax.jit(jax.vmap(run))


@functools.cache
def _measure(ending: str) -> Any:
    """Return (params, rows, labels) -> metrics of the held-out rows, [seeds] each."""

    def one(params, rows, labels):
        return jm.retrieval.evaluate(
            embed(params, rows, ending), labels, ks=(1,), distance="cosine"
        )

    return jax.jit(jax.vmap(one))


def untrained(data: Data, ending: str) -> dict[str, np.ndarray]:
    """Return the metrics [seeds] of the networks before the first step."""

    def init(seed):
        return init_params(jax.random.split(jax.random.key(seed), 3)[0])

    params = jax.vmap(init)(jnp.arange(len(data.inputs)))
    found = _measure(ending)(params, data.held_out, data.held_out_labels)
    return {key: np.asarray(value) for key, value in found.items()}


def train(name: str, data: Data, *, loss_fn: Any = None) -> tuple[Any, np.ndarray]:
    """Return the parameters [seeds, ...] after all batches, and losses [seeds, steps].

    `loss_fn` is trained in place of the loss itself, with all else as the loss has it.
    """
    seeds = jnp.arange(len(data.inputs))
    params, losses, skipped = _program(name, loss_fn)(seeds, data.inputs, data.labels)
    assert not np.any(skipped), f"{name}: a loss or gradient was not finite"
    return params, np.asarray(losses)


def measure(name: str, params: Any, data: Data) -> dict[str, np.ndarray]:
    """Return the metrics [seeds] of trained networks."""
    measure = _measure(setting(name).ending)
    found = measure(params, data.held_out, data.held_out_labels)
    return {key: np.asarray(value) for key, value in found.items()}
