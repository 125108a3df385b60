"""The nearest rows of a large gallery, by blocks of both sides or by an index library.

Both ways give the same neighbours: distances are measured in difference form, and of
equal ones the lowest row comes first.
"""

import importlib
from typing import Any

import numpy as np

from jaxmetric import retrieval
from jaxmetric.cli.errors import UsageError

# Rows of the gallery and queries that are compared at once.
_ROWS, _QUERIES = 2**16, 256

Found = tuple[np.ndarray, np.ndarray]


def nearest(
    query: np.ndarray, gallery: np.ndarray, k: int, *, rows: int = _ROWS
) -> Found:
    """Return row ids and Euclidean distances, [q, k] each, nearest first.

    Args:
      query: [q, dim] float32.
      gallery: [n, dim] float32, n >= k.
      rows: of the gallery that are searched at once, at least k.

    Memory: O(rows dim + q k) beyond the arguments, and a block of distances.
    """
    rows = min(max(rows, k), len(gallery))
    # One shape, one program: the last block of either side is filled up.
    step = min(_QUERIES, max(8, 1 << (len(query) - 1).bit_length()))
    missing = -len(query) % step
    padded = np.pad(query, [(0, missing), (0, 0)])
    best_rows = np.full((len(padded), 0), 0, np.int64)
    best = np.full((len(padded), 0), 0, np.float32)
    for start in range(0, len(gallery), rows):
        block = gallery[start : start + rows]
        exists = np.arange(rows) < len(block)
        block = np.pad(block, [(0, rows - len(block)), (0, 0)])
        found = [
            retrieval.nearest_neighbors(
                padded[first : first + step],
                block,
                k=k,
                where=np.arange(first, first + step) < len(query),
                ref_where=exists,
            )
            for first in range(0, len(padded), step)
        ]
        indices, distances = (np.concatenate(part) for part in zip(*found, strict=True))
        candidates = np.concatenate([best_rows, indices + start], axis=1)
        measured = np.concatenate([best, distances], axis=1)
        best_rows, best = _first(candidates, measured, k)
    return best_rows[: len(query)], best[: len(query)]


def nearest_by_faiss(query: np.ndarray, gallery: np.ndarray, k: int) -> Found:
    """Return what `nearest` returns, found by an exact index of faiss.

    Memory: the gallery once more.
    """
    faiss = find_faiss()
    index = faiss.IndexFlatL2(gallery.shape[1])
    for start in range(0, len(gallery), _ROWS):
        index.add(np.ascontiguousarray(gallery[start : start + _ROWS]))
    # It squares in the product form, which confuses near rows: some more are asked for
    # than wanted, and measured afresh.
    num_found = min(k + 16, len(gallery))
    parts = []
    for start in range(0, len(query), _QUERIES):
        block = np.ascontiguousarray(query[start : start + _QUERIES])
        _, rows = index.search(block, num_found)
        differences = block[:, None, :] - gallery[rows]
        squares = np.einsum("qkd,qkd->qk", differences, differences)
        parts.append(_first(rows, np.sqrt(squares), k))
    found, distances = (np.concatenate(part) for part in zip(*parts, strict=True))
    return found, distances


def find_faiss() -> Any:
    """Return the library faiss.

    Raises:
      UsageError: it is not installed.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise UsageError(
            "--backend faiss: the library faiss is not installed. "
            "Use pip install 'jaxmetric[index]', or --backend blocks."
        ) from error


def _first(rows: np.ndarray, distances: np.ndarray, k: int) -> Found:
    """Return the k nearest of candidates, [q, k] each, the lowest row among equals."""
    order = np.lexsort((rows, distances), axis=-1)[:, :k]
    return (
        np.take_along_axis(rows, order, axis=1),
        np.take_along_axis(distances, order, axis=1),
    )
