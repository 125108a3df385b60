"""Oracles of the miners."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from oracle_rows import Row, batch_of
from oracle_rows import distance as distance_of
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


def mined_easy_hard(
    case: Mapping[str, Any],
    *,
    positive: str = "easy",
    negative: str = "semihard",
    positive_range: tuple[float, float] = (-math.inf, math.inf),
    negative_range: tuple[float, float] = (-math.inf, math.inf),
    distance: str = "euclidean",
) -> list[tuple[int, int, int]]:
    """Return the chosen (anchor, positive, negative), at most one an anchor."""
    batch = batch_of(case, distance)
    found = []

    def within(row: Row, columns: list[int], limits: tuple[float, float]) -> list[int]:
        return [j for j in columns if limits[0] <= row.d(j) <= limits[1]]

    for i in range(len(batch.embeddings)):
        row = Row(batch, i)
        positives = within(row, row.positives, positive_range)
        negatives = within(row, row.negatives, negative_range)
        if not positives or not negatives:
            continue
        if positive == "semihard":
            nearest = batch.argmin if negative == "hard" else batch.argmax
            n = nearest(negatives, row.d)
            nearer = [j for j in positives if row.d(j) < row.d(n)]
            if nearer:
                found.append((i, batch.argmax(nearer, row.d), n))
            continue
        p = (batch.argmin if positive == "easy" else batch.argmax)(positives, row.d)
        if negative == "semihard":
            negatives = [j for j in negatives if row.d(j) > row.d(p)]
        if negatives:
            choose = batch.argmax if negative == "easy" else batch.argmin
            found.append((i, p, choose(negatives, row.d)))
    return found


def mined_triplet_margin(
    case: Mapping[str, Any],
    *,
    margin: float = 0.2,
    kind: str = "all",
    distance: str = "euclidean",
) -> list[tuple[int, int, int]]:
    """Return (anchor, positive, negative) of every triplet of a kind, in order."""
    batch = batch_of(case, distance)

    def is_chosen(g: float) -> bool:
        if kind == "hard":
            return g <= 0
        if kind == "semihard":
            return 0 < g <= margin
        return g > margin if kind == "easy" else g <= margin

    return [
        (row.i, p, n)
        for row in (Row(batch, i) for i in range(len(batch.embeddings)))
        for p in row.positives
        for n in row.negatives
        if is_chosen(row.d(n) - row.d(p))
    ]


def mined_angular(
    case: Mapping[str, Any], *, angle: float = 20.0
) -> list[tuple[int, int, int]]:
    """Return (anchor, positive, negative) of every wide angle, in order."""
    batch = batch_of(case, "euclidean")
    found = []
    for i, a in enumerate(batch.embeddings):
        row = Row(batch, i)
        for p in row.positives:
            centre = [(u + v) / 2 for u, v in zip(a, batch.refs[p], strict=True)]
            for n in row.negatives:
                rest = 2 * distance_of(batch.refs[n], centre)
                seen = math.atan(row.d(p) / rest) if rest > 0 else math.pi / 2
                if batch.near(math.degrees(seen) - angle) > 0:
                    found.append((i, p, n))
    return found


def mined_pair_margin(
    case: Mapping[str, Any],
    *,
    positive_margin: float = 0.2,
    negative_margin: float = 0.8,
    distance: str = "euclidean",
) -> list[tuple[int, int, bool]]:
    """Return (anchor, other, is_positive) of every pair beyond its margin."""
    batch = batch_of(case, distance)
    found = []
    for i in range(len(batch.embeddings)):
        row = Row(batch, i)
        found += [(i, j, True) for j in row.positives if row.d(j) > positive_margin]
        found += [(i, j, False) for j in row.negatives if row.d(j) < negative_margin]
    return sorted(found)


def mined_multi_similarity(
    case: Mapping[str, Any], *, epsilon: float = 0.1, distance: str = "cosine"
) -> list[tuple[int, int, bool]]:
    """Return (anchor, other, is_positive) of the pairs that are not outdone by far."""
    batch = batch_of(case, distance)
    found = []
    for i in range(len(batch.embeddings)):
        row = Row(batch, i)
        if not row.has_both:
            continue
        nearest = max(row.s(j) for j in row.negatives)
        farthest = min(row.s(j) for j in row.positives)
        for j in row.positives:
            if batch.near(nearest - (row.s(j) - epsilon)) > 0:
                found.append((i, j, True))
        for j in row.negatives:
            if batch.near(row.s(j) + epsilon - farthest) > 0:
                found.append((i, j, False))
    return sorted(found)


def mined_hard_pairs(
    case: Mapping[str, Any], *, fraction: Fraction, distance: str = "euclidean"
) -> list[tuple[int, int, bool]]:
    """Return (anchor, other, is_positive) of the hardest share of each kind."""
    batch = batch_of(case, distance)
    rows = [Row(batch, i) for i in range(len(batch.embeddings))]
    far = sorted((-row.d(j), row.i, j) for row in rows for j in row.positives)
    near = sorted((row.d(j), row.i, j) for row in rows for j in row.negatives)
    found = []
    for ranked, is_positive in ((far, True), (near, False)):
        count = math.ceil(fraction * len(ranked))
        found += [(i, j, is_positive) for _, i, j in ranked[:count]]
    return sorted(found)


def weights_of_negatives(
    case: Mapping[str, Any], *, cutoff: float = 0.5, limit: float = 1.4
) -> dict[tuple[int, int], dict[int, float]]:
    """Return how probable `distance_weighted` makes each negative of each pair."""
    batch = batch_of(case, "cosine")
    dim = len(batch.embeddings[0])
    found = {}
    for i in range(len(batch.embeddings)):
        row, log_weights = Row(batch, i), {}
        for n in row.negatives:
            d = max(math.sqrt(2 * row.d(n)), cutoff)
            if batch.near(d - limit) < 0:
                rest = (dim - 3) / 2 * math.log(1 - d * d / 4)
                log_weights[n] = (2 - dim) * math.log(d) - rest
        if log_weights:
            top = max(log_weights.values())
            weights = {n: math.exp(w - top) for n, w in log_weights.items()}
            total = math.fsum(weights.values())
            shares = {n: w / total for n, w in weights.items()}
            found |= {(i, p): shares for p in row.positives}
    return found


def bins_of_pairs(
    case: Mapping[str, Any], *, num_bins: int, distance: str = "euclidean"
) -> dict[bool, list[list[tuple[int, int]]]]:
    """Return the pairs in each bin of `uniform_histogram`, for both kinds."""
    batch = batch_of(case, distance)
    rows = [Row(batch, i) for i in range(len(batch.embeddings))]
    found = {}
    for is_positive in (True, False):
        measured = [
            (row.d(j), row.i, j)
            for row in rows
            for j in (row.positives if is_positive else row.negatives)
        ]
        bins: list[list[tuple[int, int]]] = [[] for _ in range(num_bins)]
        if measured:
            least, greatest = min(measured)[0], max(measured)[0]
            for d, i, j in measured:
                k = num_bins - 1
                if d < greatest:
                    k = math.floor((d - least) / (greatest - least) * num_bins)
                bins[k].append((i, j))
        found[is_positive] = bins
    return found


def mined_dataset(
    case: Mapping[str, Any], *, num_negatives: int, max_similarity: float = math.inf
) -> list[list[int]]:
    """Return the ids of the hardest negatives of every example, hardest first."""
    batch = batch_of(case, "cosine")
    found = []
    for i in range(len(batch.embeddings)):
        row = Row(batch, i)
        family = [
            p
            for p in range(len(batch.refs))
            if batch.where[p] and batch.labels[p] == batch.labels[i]
        ]
        kept = [
            n
            for n in row.negatives
            if all(batch.near(1 - batch.d(p, n) - max_similarity) <= 0 for p in family)
        ]
        found.append(sorted(kept, key=lambda n: (row.d(n), n))[:num_negatives])
    return found
