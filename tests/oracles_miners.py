"""Oracles of the miners."""

from collections.abc import Mapping
from typing import Any

from oracle_rows import Row, batch_of
from oracles_triplets import semi_hard_negative


def mined_batch_hard(
    case: Mapping[str, Any], *, distance: str = "euclidean"
) -> list[tuple[int, int, int, bool]]:
    """Return (anchor, positive, negative, valid) of every anchor."""
    batch = batch_of(case, distance)
    slots = []
    for i in range(len(batch.embeddings)):
        row = Row(batch, i)
        if row.has_both:
            p = batch.argmax(row.positives, row.d)
            slots.append((i, p, batch.argmin(row.negatives, row.d), True))
        else:
            slots.append((0, 0, 0, False))
    return slots


def mined_semi_hard(
    case: Mapping[str, Any], *, distance: str = "euclidean"
) -> list[tuple[int, int, int, bool]]:
    """Return (anchor, positive, negative, valid) of every ordered pair, row-major."""
    batch = batch_of(case, distance)
    slots = []
    for i in range(len(batch.embeddings)):
        row = Row(batch, i)
        for j in range(len(batch.refs)):
            if row.has_both and j in row.positives:
                slots.append((i, j, semi_hard_negative(row, j), True))
            else:
                slots.append((0, 0, 0, False))
    return slots


def triplet_probabilities(case: Mapping[str, Any]) -> dict[tuple[int, int, int], float]:
    """Return how probable `random_triplets` makes each valid triplet.

    The anchor is uniform among those with both kinds of partners, then the positive
    and the negative are uniform among the anchor's.
    """
    batch = batch_of(case, "euclidean")
    rows = [Row(batch, i) for i in range(len(batch.embeddings))]
    rows = [row for row in rows if row.has_both]
    return {
        (row.i, p, n): 1 / (len(rows) * len(row.positives) * len(row.negatives))
        for row in rows
        for p in row.positives
        for n in row.negatives
    }
