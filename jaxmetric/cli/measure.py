"""Embeddings of data sets and how well they retrieve; every command does it so."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

import jaxmetric as jm
from jaxmetric import retrieval
from jaxmetric.cli.devices import ONE, Devices
from jaxmetric.training import EmbedFn

# Rows that are embedded together. One number for all commands: a matrix product may
# round a row differently in another company, and their results are to be equal.
_ROWS = 512
# From so many rows on, ranking them takes longer than compiling it for many devices.
_SPREAD_FROM = 8192

Metrics = dict[str, float | int]


def embedder(
    embed_fn: EmbedFn, devices: Devices = ONE
) -> Callable[[Any, Any, np.ndarray], np.ndarray]:
    """Return a function (params, model_state, inputs [n, ...]) -> [n, dim] float32.

    It compiles once, whatever n, and holds 512 examples on each device at a time. Of
    several processes all call it, and get the same rows.
    """

    def embed_rows(params: Any, model_state: Any, inputs: Any) -> jax.Array:
        return embed_fn(params, model_state, inputs, key=None, train=False)[0]

    num_rows = _ROWS * devices.count
    placed: Callable[[np.ndarray], Any] = np.asarray
    if devices.mesh is None:
        embed_rows = jax.jit(embed_rows)
    else:
        alike, by_rows, placed = devices.alike(), devices.by_rows(), devices.spread
        mapped = jax.shard_map(
            embed_rows,
            mesh=devices.mesh,
            in_specs=(alike.spec, alike.spec, by_rows.spec),
            out_specs=by_rows.spec,
        )
        embed_rows = jax.jit(mapped, out_shardings=alike)

    def embed(params: Any, model_state: Any, inputs: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(inputs), num_rows):
            part = inputs[start : start + num_rows]
            # The last block is filled up with zeros: one shape, one program.
            missing = [(0, num_rows - len(part))] + [(0, 0)] * (part.ndim - 1)
            rows = embed_rows(params, model_state, placed(np.pad(part, missing)))
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


def evaluate_spread(
    devices: Devices, query: np.ndarray, query_labels: np.ndarray
) -> Metrics:
    """Return what `evaluate` returns of one set; if large, each device ranks its share.

    Of several processes all call it, with the same rows.
    """
    if devices.mesh is None or len(query) < _SPREAD_FROM:
        return evaluate(query, query_labels)
    missing = -len(query) % devices.count
    rows = devices.spread(np.pad(query, [(0, missing), (0, 0)]))
    labels = devices.spread(np.pad(query_labels, (0, missing)).astype(np.int32))
    where = devices.spread(np.arange(len(query) + missing) < len(query))
    metrics = _ranking(devices.mesh)(rows, labels, where=where)
    return {name: np.asarray(value).item() for name, value in metrics.items()}


@functools.cache
def _ranking(mesh: Mesh) -> Any:
    """Return the evaluation of rows that are spread over a mesh, compiled once."""
    return jax.jit(jm.sharding.data_parallel(retrieval.evaluate, mesh=mesh))


def evaluate_pixels(data: jm.data.Dataset, devices: Devices = ONE) -> Metrics:
    """Return the metrics of raw inputs as they are, flattened: what is to be beaten."""
    assert data.labels is not None
    rows = np.asarray(jm.data.to_float(data.inputs)).reshape(len(data), -1)
    return evaluate_spread(devices, rows, data.labels)


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
