"""Collapse: all embeddings have become one point, and the loss shows it."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmetric.cli.losses import Loss

# Distances below which rows are one point, and how near the loss is to its value there.
# Collapsed networks were seen to keep distances of 0.001 for good.
_DISTANCE, _LOSS = 1e-2, 1e-3
_STEPS = 50

ADVICE = (
    "The embedding has collapsed: all rows are one point, and the loss is what it is "
    "there. Try a lower --learning-rate, --loss semi_hard or batch_all in place of "
    "batch_hard, or --warmup-epochs 5."
)


class CollapseWatch:
    """Tell once when training has been at a collapsed embedding for 50 steps.

    Args:
      loss: what is minimised.
      labels: [batch] integer labels of one batch, which all have one class layout.
      num_classes: classes that proxies stand for.
      dim: width of the embeddings.
    """

    advice = ADVICE

    def __init__(self, loss: Loss, labels: np.ndarray, num_classes: int, dim: int):
        self._loss, self._labels = loss, labels
        self._num_classes, self._dim = num_classes, dim
        self._collapsed: float | None = None
        self._count = 0
        self._is_told = False

    def notice(self, metrics: dict[str, float]) -> bool:
        """Take the metrics of a step; return whether to tell of a collapse, once."""
        distances = [metrics["positive_distance"], metrics["negative_distance"]]
        is_point = (
            max((d for d in distances if not math.isnan(d)), default=1) < _DISTANCE
        )
        if self._is_told or not is_point or not self._is_at_value(metrics["loss"]):
            self._count = 0
            return False
        self._count += 1
        self._is_told = self._count >= _STEPS
        return self._is_told

    def _is_at_value(self, loss: float) -> bool:
        """Return whether a loss is the one of a single point."""
        if self._loss.has_proxies:
            # Where the proxies lie is not known: no better than guessing is enough.
            return loss > math.log(self._num_classes) - _LOSS
        if self._collapsed is None:
            self._collapsed = self._value_of_a_point()
        return abs(loss - self._collapsed) < _LOSS

    def _value_of_a_point(self) -> float:
        """Return the loss of equal embeddings: the margin, the log of candidates."""
        row = np.zeros((1, self._dim), np.float32)
        row[0, 0] = 1
        rows = jnp.asarray(np.repeat(row, len(self._labels), axis=0))
        value: Any = self._value_of(rows)
        return float(value[0] if isinstance(value, tuple) else value)

    def _value_of(self, rows: jnp.ndarray) -> Any:
        """Return what the loss gives for [batch, dim] equal rows."""
        return self._loss.loss_fn()({}, rows, jnp.asarray(self._labels))
