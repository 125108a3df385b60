"""Cumulative matching of neighbours after re-ranking."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxmetric import retrieval
from jaxmetric.cli.errors import UsageError

if TYPE_CHECKING:
    from jaxmetric.cli.identification import Sides

# All references of every query are ordered: an index and a distance for each.
_MOST = 2**27


def measure(sides: "Sides", ranks: Sequence[int]) -> dict[str, float]:
    """Return `reranked_cmc_{rank}` and `reranked_mean_average_precision`.

    They are defined as in `jaxmetric.retrieval.cmc`, over the order of
    `jaxmetric.retrieval.rerank`.

    Raises:
      UsageError: there are too many rows to order all of them, or too few.
    """
    assert sides.labels is not None
    others = sides.query if sides.reference is None else sides.reference
    num_pairs = len(sides.query) * len(others)
    if num_pairs > _MOST:
        raise UsageError(
            f"--rerank: of {len(sides.query):,} queries and {len(others):,} rows all "
            f"{num_pairs:,} pairs are ordered, at most {_MOST:,} can be. Give fewer."
        )
    k = len(others) - sides.is_one_set
    if k < 1:
        raise UsageError("--rerank: there is a single row. Give two.")
    found = retrieval.rerank(sides.query, sides.reference, k=k)
    columns, distances = (np.asarray(array) for array in found)
    return score(sides, columns, distances, ranks)


def score(
    sides: "Sides", columns: np.ndarray, distances: np.ndarray, ranks: Sequence[int]
) -> dict[str, float]:
    """Return the metrics of all references, [q, k] each, in order for each query."""
    assert sides.labels is not None
    ref_labels = sides.labels if sides.ref_labels is None else sides.ref_labels
    ref_groups = sides.groups if sides.ref_groups is None else sides.ref_groups
    hits = {rank: [] for rank in ranks}
    precisions = []
    for q, (found, far) in enumerate(zip(columns, distances, strict=True)):
        is_right = ref_labels[found] == sides.labels[q]
        if sides.groups is not None and ref_groups is not None:
            keep = ~is_right | (ref_groups[found] != sides.groups[q])
            is_right, far = is_right[keep], far[keep]
        if not is_right.any():
            continue
        # Among equal distances the wrong ones come first.
        is_right = is_right[np.lexsort((is_right, far))]
        places = np.flatnonzero(is_right) + 1
        precisions.append(np.mean(np.arange(1, len(places) + 1) / places))
        for rank in ranks:
            hits[rank].append(places[0] <= rank)
    mean = lambda values: float(np.mean(values)) if values else float("nan")  # noqa: E731
    metrics = {f"reranked_cmc_{rank}": mean(hits[rank]) for rank in ranks}
    return metrics | {"reranked_mean_average_precision": mean(precisions)}
