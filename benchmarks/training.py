"""The training step of a user, ours and PyTorch's, with everything else the same.

Encoder, initial parameters, loss (batch-hard), optimiser (Adam) and batches are the
same. Images wait as bytes; a step is given the row ids of its batch. The margin is that
of `benchmarks.specs`.
"""

# PyTorch is an extra: without it nothing here is imported.
# pyright: reportMissingImports=false

import time
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmetric as jm
from benchmarks import environment, specs
from benchmarks.settings import Device

_OPTIONS = specs.OPTIONS["batch_hard_triplet_loss"]
NUM_CLASSES, M_PER_CLASS = 32, 4
LEARNING_RATE = 1e-3


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
      seed: of the parameters.
      device: where it runs.

    Memory: the images on the device.
    """

    name = "jaxmetric"

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, *, seed: int, device: Device
    ):
        self._device = device
        self.input_shape = images.shape[1:]
        config = {"kind": "conv", "input_shape": list(self.input_shape), "dim": 64}
        self._embed_fn, self.params, model_state = jm.training.build_encoder(
            config, seed=seed
        )
        optimizer = optax.adam(LEARNING_RATE)
        take_step = jm.training.make_train_step(self._embed_fn, _loss, optimizer)
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
      params: initial parameters, of `Ours`.
      is_channels_last: how its images lie in memory; which is faster depends.
    """

    compile_seconds = 0.0

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        params: Any,
        is_channels_last: bool,
    ):
        import torch
        from pytorch_metric_learning import losses, miners, reducers

        from benchmarks.torch_encoder import TorchConvEncoder

        torch.set_num_threads(environment.cores())
        self.name = "torch channels_last" if is_channels_last else "torch"
        self._torch = torch
        self._images = torch.from_numpy(np.ascontiguousarray(images))
        self._labels = torch.from_numpy(labels.astype(np.int64))
        self._encoder = TorchConvEncoder(params, images.shape[1:], is_channels_last)
        self._miner = miners.BatchHardMiner()
        self._loss = losses.TripletMarginLoss(
            margin=_OPTIONS["margin"], reducer=reducers.MeanReducer()
        )
        parameters = self._encoder.parameters()
        self._optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)

    def step(self, rows: np.ndarray) -> Any:
        """Take a step and return the loss."""
        rows = self._torch.from_numpy(rows.astype(np.int64))
        labels = self._labels[rows]
        embeddings = self._encoder(self._images[rows])
        loss = self._loss(embeddings, labels, self._miner(embeddings, labels))
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


def _loss(loss_params: Any, embeddings: Any, labels: Any, *, ids: Any = None) -> Any:
    """The default loss for small images."""
    del loss_params
    stats: Any = jm.losses.batch_hard_triplet_loss(
        embeddings, labels, ids=ids, reduction="none", **_OPTIONS
    )
    return jm.reduce(stats, "mean"), stats
