"""Oracles of the triplet losses."""

import math
from collections.abc import Sequence
from typing import Any

from oracle_registry import Hyper, oracle
from oracle_rows import Batch, Row, distance, is_list, softplus

_MARGIN = Hyper(0.2, 0.1, 1.0)
_SQRT6 = math.sqrt(6)


def _triplet_terms(
    batch: Batch, slots: Sequence[tuple[int, int, int]], margin, swap: bool, soft: bool
):
    """Yield the terms of every slot (a, p, n); an invalid slot has none."""
    valid = set(all_triplets(batch))
    for a, p, n in slots:
        if (a, p, n) not in valid:
            yield []
            continue
        d_ap, d_n = batch.d(a, p), batch.d(a, n)
        if swap:
            other = distance(batch.refs[p], batch.refs[n], batch.distance)
            batch.near(other - d_n)
            d_n = min(d_n, other)
        m = margin[a] if is_list(margin) else margin
        yield [softplus(d_ap - d_n) if soft else batch.hinge((d_ap + m) - d_n)]


def all_triplets(batch: Batch) -> list[tuple[int, int, int]]:
    """Return every valid triplet of a batch, in row-major order."""
    rows = [Row(batch, i) for i in range(len(batch.embeddings))]
    return [(r.i, p, n) for r in rows for p in r.positives for n in r.negatives]


_TRIPLET_FACTS: dict[str, Any] = {
    "hyper": {"margin": _MARGIN},
    "scales": 1,
    "scales_with": ("margin",),
    "bound": _SQRT6,
    "per_anchor": ("margin",),
}


@oracle(
    "triplet_margin_loss",
    **_TRIPLET_FACTS,
    flags={"swap": (False, True), "soft": (False, True)},
    is_explicit=True,
)
@oracle(
    "triplet_loss",
    **_TRIPLET_FACTS,
    flags={"swap": (False, True), "soft": (False, True)},
    is_explicit=True,
)
def triplets_over_slots(batch: Batch, margin, swap, soft):
    """Every triplet (a, p, n) of indices is a slot, in row-major order."""
    n, m = len(batch.embeddings), len(batch.refs)
    slots = [(a, p, k) for a in range(n) for p in range(m) for k in range(m)]
    yield from _triplet_terms(batch, slots, margin, swap, soft)


@oracle(
    "batch_all_triplet_loss",
    **_TRIPLET_FACTS,
    flags={"soft": (False, True)},
    reduction="mean_active",
)
def batch_all_triplet_loss(row: Row, margin, soft):
    """Every valid triplet."""
    return [
        softplus(row.d(p) - row.d(n))
        if soft
        else row.hinge(row.d(p) + margin - row.d(n))
        for p in row.positives
        for n in row.negatives
    ]


@oracle(
    "batch_hard_triplet_loss",
    **_TRIPLET_FACTS,
    flags={"soft": (False, True)},
)
def batch_hard_triplet_loss(row: Row, margin, soft):
    """Farthest positive against nearest negative."""
    if not row.has_both:
        return []
    d_ap = row.d(row.batch.argmax(row.positives, row.d))
    d_an = row.d(row.batch.argmin(row.negatives, row.d))
    return [softplus(d_ap - d_an) if soft else row.hinge(d_ap + margin - d_an)]


def semi_hard_negative(row: Row, p: int) -> int:
    """Return the nearest negative strictly beyond p, else the farthest negative."""
    for n in row.negatives:
        row.batch.near(row.d(n) - row.d(p))
    beyond = [n for n in row.negatives if row.d(n) > row.d(p)]
    if beyond:
        return row.batch.argmin(beyond, row.d)
    return row.batch.argmax(row.negatives, row.d)


@oracle("semi_hard_triplet_loss", **_TRIPLET_FACTS)
def semi_hard_triplet_loss(row: Row, margin):
    """One term a positive pair, against its semi-hard negative."""
    if not row.has_both:
        return []
    return [
        row.hinge(row.d(p) + margin - row.d(semi_hard_negative(row, p)))
        for p in row.positives
    ]
