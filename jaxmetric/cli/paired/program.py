"""The computations of a run of pairs."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxmetric as jm
from jaxmetric.cli.collapse import CollapseWatch
from jaxmetric.cli.devices import ONE, Devices
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.paired.losses import PairedLoss
from jaxmetric.cli.program import Phase, Program

_ADVICE = (
    "The embedding has collapsed: all rows are one point, and the loss is what it is "
    "there. Try a lower --learning-rate, --loss info_nce, or --no-hardest."
)


class PairedProgram(Program):
    """States and compiled functions of a run of pairs; see `Program`.

    Args:
      options: filled in.
      loss: the one of the options, resolved.
      train: what is trained on.
      sampler: which rows make a batch.
      rows: [n, ...] arrays that the loss is given, by name.
      start: a function (params, model_state) -> the same with which training begins.
      devices: what it is computed on.

    Attributes:
      data: the inputs of both sides, and `rows`, on each device.
    """

    def __init__(
        self,
        options: TrainOptions,
        loss: PairedLoss,
        train: jm.data.PairedDataset,
        sampler: jm.data.PairSampler,
        *,
        rows: Mapping[str, np.ndarray],
        start: Callable[[Any, Any], tuple[Any, Any]],
        devices: Devices = ONE,
    ):
        self._rows = dict(rows)
        super().__init__(options, loss, train, sampler, devices=devices)
        self._params, self._model_state = start(self._params, self._model_state)

    def watch(self, phase: Phase) -> CollapseWatch:
        """Return what notices a collapse in a phase."""
        rows = self.batch(0)
        batch = {name: array[rows] for name, array in self._rows.items()}
        return _PairedWatch(phase.loss, batch, rows, self.num_classes, self.model)

    def _placed(self, train: Any) -> Any:
        """Return the training data on each device."""
        data = ((train.query, train.key), self._rows)
        if self.devices.mesh is not None:
            return self.devices.copied(data)
        (query, key), rows = data
        placed = {name: jnp.asarray(array) for name, array in rows.items()}
        return (jnp.asarray(query), jnp.asarray(key)), placed


class _PairedWatch(CollapseWatch):
    """Tells of the collapse of both sides into one point."""

    advice = _ADVICE

    def __init__(
        self,
        loss: Any,
        batch: Mapping[str, np.ndarray],
        ids: np.ndarray,
        num_classes: int,
        model: Mapping[str, Any],
    ):
        super().__init__(loss, ids, num_classes, model["dim"])
        self._batch = batch

    def _value_of(self, rows: Any) -> Any:
        """Return what the loss gives where all rows of both sides are equal."""
        batch = {name: jnp.asarray(array) for name, array in self._batch.items()}
        loss_fn, learned = self._loss.loss_fn(), self._loss.learned()
        return loss_fn(learned, (rows, rows), batch, jnp.asarray(self._labels))
