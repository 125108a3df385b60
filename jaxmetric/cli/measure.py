"""Embeddings of data sets and how well they retrieve; every command does it so."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxmetric as jm
from jaxmetric import retrieval
from jaxmetric.training import EmbedFn

# Rows that are embedded together. One number for all commands: a matrix product may
# round a row differently in another company, and their results are to be equal.
_ROWS = 512

Metrics = dict[str, float | int]


def embedder(embed_fn: EmbedFn) -> Callable[[Any, Any, np.ndarray], np.ndarray]:
    """Return a function (params, model_state, inputs [n, ...]) -> [n, dim] float32.

    It compiles once, whatever n, and holds 512 examples on the device at a time.
    """

    @jax.jit
    def embed_rows(params: Any, model_state: Any, inputs: jax.Array) -> jax.Array:
        return embed_fn(params, model_state, inputs, key=None, train=False)[0]

    def embed(params: Any, model_state: Any, inputs: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(inputs), _ROWS):
            part = inputs[start : start + _ROWS]
            # The last block is filled up with zeros: one shape, one program.
            missing = [(0, _ROWS - len(part))] + [(0, 0)] * (part.ndim - 1)
            rows = embed_rows(params, model_state, np.pad(part, missing))
            parts.append(np.asarray(rows)[: len(part)])
        return np.concatenate(parts).astype(np.float32)

    return embed


def evaluate(
    query: np.ndarray,
    query_labels: np.ndarray,
    reference: np.ndarray | None = None,
    reference_labels: np.ndarray | None = None,
) -> Metrics:
    """Return `jaxmetric.retrieval.evaluate` as Python numbers."""
    metrics = retrieval.evaluate(query, query_labels, reference, reference_labels)
    return {name: np.asarray(value).item() for name, value in metrics.items()}


def evaluate_pixels(data: jm.data.Dataset) -> Metrics:
    """Return the metrics of raw inputs as they are, flattened: what is to be beaten."""
    assert data.labels is not None
    rows = np.asarray(jm.data.to_float(data.inputs)).reshape(len(data), -1)
    return evaluate(rows, data.labels)


def neighbors_of(
    embeddings: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return row ids and distances, [len(rows), k] each, of the nearest other rows.

    k is at most the number of other rows.
    """
    found = retrieval.nearest_neighbors(embeddings[rows], embeddings, k=k + 1)
    indices, distances = (np.asarray(array) for array in found)
    is_other = indices != rows[:, None]
    # Of k + 1 rows the row itself is one, unless k + 1 others are as near as itself.
    is_other[is_other.all(axis=1), -1] = False
    shape = (len(rows), k)
    return indices[is_other].reshape(shape), distances[is_other].reshape(shape)
