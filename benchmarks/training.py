"""The training step of a user, ours and PyTorch's, with everything else the same.

Encoder, initial parameters, optimiser (Adam) and batches are the same. Images wait as
bytes; a step is given the row ids of its batch. A recipe is a loss with its step size:
of batch-hard both compute the same number; of semi-hard each has its own reading, ours
one negative for each positive pair, theirs all triplets between the distances.
"""

# PyTorch is an extra: without it nothing here is imported.
# pyright: reportMissingImports=false

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmetric as jm
from benchmarks import environment, specs
from benchmarks.settings import Device

NUM_CLASSES, M_PER_CLASS = 32, 4


class Recipe(NamedTuple):
    """What is minimised, and how fast.

    Attributes:
      loss: of ours, by name; its options are those of `benchmarks.specs`.
      miner: options of PyTorch's miner for it.
      learning_rate: of Adam.
    """

    loss: str
    miner: str
    learning_rate: float


RECIPES = {
    recipe.loss: recipe
    for recipe in (
        # The default of `jaxmetric train` for images, with its step size.
        Recipe("semi_hard_triplet_loss", "semihard", 3e-3),
        # From a cold start a greater step pulls everything together.
        Recipe("batch_hard_triplet_loss", "hardest", 1e-3),
    )
}


class Trainer(Protocol):
    """Something that trains an encoder.

    Attributes:
      name: in results.
      compile_seconds: spent before the first step.
    """

    name: str
    compile_seconds: float

    def step(self, rows: np.ndarray) -> Any:
        """Take a step on the batch of these row ids; return a loss, maybe not ready."""

    def wait(self) -> None:
        """Return when all steps are done."""

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return the embeddings of images."""
        ...


class Ours:
    """The library's encoder, loss and step, compiled once.

    Args:
      images: [n, h, w, c] uint8. labels: [n].
      recipe: one of `RECIPES`.
      seed: of the parameters.
      device: where it runs.

    Memory: the images on the device.
    """

    name = "jaxmetric"

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        recipe: Recipe,
        seed: int,
        device: Device,
    ):
        self._device = device
        self.input_shape = images.shape[1:]
        config = {"kind": "conv", "input_shape": list(self.input_shape), "dim": 64}
        self._embed_fn, self.params, model_state = jm.training.build_encoder(
            config, seed=seed
        )
        optimizer = optax.adam(recipe.learning_rate)
        loss_fn = _loss_fn(recipe)
        take_step = jm.training.make_train_step(self._embed_fn, loss_fn, optimizer)
        state = jm.training.TrainState.create(
            self.params, model_state, optimizer, key=jax.random.key(seed)
        )
        # The parameters stay as they were for the other trainers: the state is donated.
        self._state = jax.device_put(jax.tree.map(jnp.copy, state), device)
        self._data = jax.device_put((images, labels.astype(np.int32)), device)

        def step(state: Any, images: Any, labels: Any, rows: Any) -> Any:
            return take_step(state, (images[rows], labels[rows], rows))

        start = time.perf_counter()
        rows = jax.ShapeDtypeStruct((NUM_CLASSES * M_PER_CLASS,), jnp.int32)
        lowered = jax.jit(step, donate_argnums=0).lower(self._state, *self._data, rows)
        self._step = lowered.compile()
        self.compile_seconds = time.perf_counter() - start
        self._embed = jax.jit(
            lambda state, images: self._embed_fn(
                state.params, state.model_state, images, key=None, train=False
            )[0]
        )

    def step(self, rows: np.ndarray) -> jax.Array:
        """Take a step; the loss is not waited for."""
        self._state, metrics = self._step(self._state, *self._data, rows)
        return metrics["loss"]

    def wait(self) -> None:
        """Return when all steps are done."""
        jax.block_until_ready(self._state)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return the embeddings of images."""
        return np.asarray(self._embed(self._state, images))


class Torch:
    """PyTorch with pytorch-metric-learning, from the parameters of ours.

    Args:
      images: [n, h, w, c] uint8. labels: [n].
      recipe: one of `RECIPES`.
      params: initial parameters, of `Ours`.
      is_channels_last: how its images lie in memory; which is faster depends.
    """

    compile_seconds = 0.0

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        recipe: Recipe,
        params: Any,
        is_channels_last: bool,
    ):
        import torch

        from benchmarks.torch_encoder import TorchConvEncoder

        torch.set_num_threads(environment.cores())
        self.name = "torch channels_last" if is_channels_last else "torch"
        self._torch = torch
        self._images = torch.from_numpy(np.ascontiguousarray(images))
        self._labels = torch.from_numpy(labels.astype(np.int64))
        self._encoder = TorchConvEncoder(params, images.shape[1:], is_channels_last)
        self._loss = _torch_loss(recipe)
        parameters = self._encoder.parameters()
        self._optimizer = torch.optim.Adam(parameters, lr=recipe.learning_rate)

    def step(self, rows: np.ndarray) -> Any:
        """Take a step and return the loss."""
        rows = self._torch.from_numpy(rows.astype(np.int64))
        labels = self._labels[rows]
        embeddings = self._encoder(self._images[rows])
        loss = self._loss(embeddings, labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def wait(self) -> None:
        """Nothing is ever under way."""

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return the embeddings of images."""
        with self._torch.no_grad():
            return self._encoder(self._torch.from_numpy(images)).numpy()


def _loss_fn(recipe: Recipe) -> Callable[..., Any]:
    """Return the loss of a step of ours."""
    loss, options = getattr(jm.losses, recipe.loss), specs.OPTIONS[recipe.loss]

    def loss_fn(loss_params: Any, embeddings: Any, labels: Any, *, ids: Any) -> Any:
        del loss_params
        stats = loss(embeddings, labels, ids=ids, reduction="none", **options)
        return jm.reduce(stats, "mean"), stats

    return loss_fn


def _torch_loss(recipe: Recipe) -> Callable[[Any, Any], Any]:
    """Return the loss of a step of PyTorch's, with its miner.

    The embeddings are of length 1, so nothing is normalised once more.
    """
    from pytorch_metric_learning import distances, losses, miners, reducers

    margin = specs.OPTIONS[recipe.loss]["margin"]
    distance = distances.LpDistance(normalize_embeddings=False)
    if recipe.miner == "hardest":
        miner: Any = miners.BatchHardMiner(distance=distance)
    else:
        miner = miners.TripletMarginMiner(
            margin=margin, type_of_triplets=recipe.miner, distance=distance
        )
    loss = losses.TripletMarginLoss(
        margin=margin, distance=distance, reducer=reducers.MeanReducer()
    )
    return lambda x, labels: loss(x, labels, miner(x, labels))
