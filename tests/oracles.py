"""Every loss and miner once more, as plain loops over Python floats.

Written from the formulas, not from the package, of which nothing is imported: the
distance of two rows is a sum over coordinates, the positives and negatives of a row
are lists, and a loss is nested loops over them, added with `math.fsum` in float64.

A loss enters as one function, registered under its name with what the tests need to
know of it (`Oracle`). It gets a `Row` and returns the list of that anchor's terms, or
`(total, num_terms, num_active)` where terms do not count 1 each. A loss over explicit
triplets or pairs yields one such list a slot.

Every oracle also tells its `clearance`: how far the batch is from the nearest kink or
tie. Finite differences and counts of active terms mean something only away from them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from oracle_rows import (  # noqa: F401  (the tests take all from here)
    DISTANCES,
    Batch,
    Row,
    Vector,
    batch_of,
    distance,
    is_list,
    logsumexp,
    softplus,
)

REDUCTIONS = ("mean", "mean_active", "mean_per_anchor", "sum")


class Hyper(NamedTuple):
    """A real hyper-parameter: the default of the sheet, and a range to draw from."""

    default: float | None
    low: float
    high: float
    per_class: bool = False


@dataclass(frozen=True)
class Oracle:
    """A loss and what the contract says of it in particular.

    `flags` gives the default and the other value of each option that is no number;
    `scales` how the loss grows when rows and the hyper-parameters of `scales_with`
    grow together, in powers of the distance; `bound` the largest Frobenius norm of
    its gradient under the default reduction and the Euclidean distance;
    `logit_scale` what multiplies a similarity, given the hyper-parameters.
    """

    function: Callable[..., Any]
    hyper: dict[str, Hyper]
    flags: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    distance: str | None = "euclidean"
    reduction: str | None = "mean"
    is_explicit: bool = False
    has_proxies: bool = False
    order_free: bool = True
    scales: float | None = None
    scales_with: tuple[str, ...] = ()
    bound: float | None = None
    per_anchor: tuple[str, ...] = ()
    logit_scale: Callable[[Mapping[str, Any]], float] = lambda hyper: 1.0

    def defaults(self) -> dict[str, Any]:
        """Return the default of every hyper-parameter and flag."""
        numbers = {name: h.default for name, h in self.hyper.items()}
        return numbers | {name: pair[0] for name, pair in self.flags.items()}


ORACLES: dict[str, Oracle] = {}


def oracle(name: str, **facts: Any) -> Callable[[Callable], Callable]:
    """Register a function as the oracle of a loss."""

    def register(function: Callable) -> Callable:
        ORACLES[name] = Oracle(function, **facts)
        return function

    return register


class Result(NamedTuple):
    """Per-anchor (per-slot) statistics before weights.

    `clearance` is the distance to the nearest kink, `magnitude` the largest distance
    between rows: a difference of distances is rounded as they are.
    """

    total: list[float]
    num_terms: list[float]
    num_active: list[float]
    weights: list[float]
    clearance: float
    magnitude: float

    def reduced(self, reduction: str) -> float:
        """Return the weighted reduction of the statistics."""
        w = self.weights
        total = math.fsum(a * t for a, t in zip(w, self.total, strict=True))
        if reduction == "sum":
            return total
        if reduction == "mean_per_anchor":
            rows = [
                (a, t / c)
                for a, t, c in zip(w, self.total, self.num_terms, strict=True)
                if c > 0
            ]
            total = math.fsum(a * mean for a, mean in rows)
            count = math.fsum(a for a, _ in rows)
        else:
            counts = self.num_active if reduction == "mean_active" else self.num_terms
            count = math.fsum(a * c for a, c in zip(w, counts, strict=True))
        if math.isnan(total):
            return math.nan
        return total / count if count > 0 else 0.0


def evaluate(
    name: str,
    case: Mapping[str, Any],
    *,
    distance: str | None = None,
    **hyper: Any,
) -> Result:
    """Evaluate the oracle of a loss.

    Args:
      name: of the loss.
      case: arrays or lists by keyword name: `embeddings`, `labels`, and optionally
        `where`, `weights`, `ids`, `proxies`, `ref_embeddings`, `ref_labels`,
        `ref_where`, `ref_ids`.
      distance: None for the default of the loss.
      hyper: hyper-parameters and flags; absent ones take their defaults. One in
        `per_anchor` may be a list.
    """
    entry = ORACLES[name]
    batch = batch_of(case, distance or entry.distance or "cosine")
    hyper = entry.defaults() | hyper
    if _is_poisoned(batch):
        slots = 1 if entry.is_explicit else len(batch.embeddings)
        zeros, weights = [0.0] * slots, [1.0] * slots
        return Result([math.nan] * slots, zeros, zeros, weights, 0.0, math.inf)
    if entry.is_explicit:
        slots = [_counted(terms) for terms in entry.function(batch, **hyper)]
        # Slots are in row-major order: each anchor has as many as any other.
        per_anchor = len(slots) // len(batch.weights)
        weights = [w for w in batch.weights for _ in range(per_anchor)]
    else:
        slots = []
        for i in range(len(batch.embeddings)):
            mine = {
                key: value[i] if key in entry.per_anchor and is_list(value) else value
                for key, value in hyper.items()
            }
            slots.append(_counted(entry.function(Row(batch, i), **mine)))
        weights = batch.weights
    total, num_terms, num_active = (list(column) for column in zip(*slots, strict=True))
    clearance, magnitude = batch.clearance, batch.magnitude
    return Result(total, num_terms, num_active, weights, clearance, magnitude)


def value(
    name: str, case: Mapping[str, Any], *, reduction: str | None = None, **kw: Any
) -> float:
    """Return the value of a loss under a reduction (None: its default)."""
    reduction = reduction or ORACLES[name].reduction or "sum"
    return evaluate(name, case, **kw).reduced(reduction)


def _counted(terms: Any) -> tuple[float, float, float]:
    if isinstance(terms, tuple):
        return terms
    return math.fsum(terms), len(terms), sum(t > 0 for t in terms)


def _is_poisoned(batch: Batch) -> bool:
    def is_bad(rows: Sequence[Vector], where: Sequence[bool]) -> bool:
        return any(
            e and not all(map(math.isfinite, x))
            for x, e in zip(rows, where, strict=True)
        )

    if is_bad(batch.embeddings, batch.where) or is_bad(batch.refs, batch.ref_where):
        return True
    if batch.proxies is None:
        return False
    existing = [y for y, e in zip(batch.labels, batch.where, strict=True) if e]
    num_classes = len(batch.proxies)
    return is_bad(batch.proxies, [True] * num_classes) or any(
        not 0 <= y < num_classes for y in existing
    )


# Triplets ----------------------------------------------------------------------------

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


# Pairs -------------------------------------------------------------------------------


def _pair_term(v: float, squared: bool) -> float:
    return v * v / 2 if squared else v


@oracle(
    "pair_loss",
    hyper={"margin": Hyper(1.0, 0.5, 2.0)},
    flags={"squared": (True, False)},
    is_explicit=True,
    scales=2,
    scales_with=("margin",),
    per_anchor=("margin",),
)
def pair_loss(batch: Batch, margin, squared):
    """Every ordered pair (i, j) of rows is a slot, in row-major order."""
    for i in range(len(batch.embeddings)):
        row = Row(batch, i)
        for j in range(len(batch.refs)):
            if j in row.positives:
                yield [_pair_term(row.d(j), squared)]
            elif j in row.negatives:
                m = margin[i] if is_list(margin) else margin
                yield [_pair_term(row.hinge(m - row.d(j)), squared)]
            else:
                yield []


@oracle(
    "contrastive_loss",
    hyper={
        "margin": Hyper(1.0, 0.5, 2.0),
        "positive_margin": Hyper(0.0, 0.1, 0.5),
        "positive_weight": Hyper(1.0, 0.5, 2.0),
        "negative_weight": Hyper(1.0, 0.5, 2.0),
    },
    flags={"squared": (True, False)},
    scales=2,
    scales_with=("margin", "positive_margin"),
    per_anchor=("margin",),
)
def contrastive_loss(
    row: Row, margin, positive_margin, positive_weight, negative_weight, squared
):
    """Every pair stands alone: positives pull, negatives inside the margin push."""
    pull = [row.hinge(row.d(p) - positive_margin) for p in row.positives]
    push = [row.hinge(margin - row.d(n)) for n in row.negatives]
    return [positive_weight * _pair_term(v, squared) for v in pull] + [
        negative_weight * _pair_term(v, squared) for v in push
    ]


# Softmax over references -------------------------------------------------------------


@oracle(
    "nt_xent_loss",
    hyper={"temperature": Hyper(0.07, 0.3, 1.0)},
    distance="cosine",
    logit_scale=lambda hyper: 1 / hyper["temperature"],
)
def nt_xent_loss(row: Row, temperature):
    """Each positive against the negatives; other positives are left out."""
    if not row.has_both:
        return []
    negatives = logsumexp([row.s(n) / temperature for n in row.negatives])
    return [softplus(negatives - row.s(p) / temperature) for p in row.positives]


@oracle(
    "supervised_contrastive_loss",
    hyper={"temperature": Hyper(0.1, 0.3, 1.0)},
    distance="cosine",
    logit_scale=lambda hyper: 1 / hyper["temperature"],
)
def supervised_contrastive_loss(row: Row, temperature):
    """All other rows in the denominator, the positives averaged outside the log."""
    if not row.has_both:
        return []
    others = logsumexp([row.s(j) / temperature for j in row.positives + row.negatives])
    pull = math.fsum(row.s(p) / temperature for p in row.positives)
    return [others - pull / len(row.positives)]


# Proxies and classes -----------------------------------------------------------------


def _cross_entropy(logits: Sequence[float], label: int) -> float:
    """Return log(sum over c of exp(z_c - z_label)), which loses no digits near 0."""
    if not 0 <= label < len(logits):
        return math.nan
    others = [z - logits[label] for c, z in enumerate(logits) if c != label]
    return softplus(logsumexp(others)) if others else 0.0


@oracle(
    "normalized_softmax_loss",
    hyper={"temperature": Hyper(0.05, 0.3, 1.0)},
    distance=None,
    has_proxies=True,
    logit_scale=lambda hyper: 1 / hyper["temperature"],
)
def normalized_softmax_loss(row: Row, temperature):
    """Cross-entropy over the cosines to all proxies."""
    if not row.exists:
        return []
    logits = [s / temperature for s in row.class_similarities()]
    return [_cross_entropy(logits, row.label)]


@oracle(
    "weighted_softmax_loss",
    hyper={
        "scale": Hyper(1.0, 0.5, 2.0),
        "class_weights": Hyper(None, 0.5, 2.0, per_class=True),
    },
    distance="dot",
    has_proxies=True,
    logit_scale=lambda hyper: hyper["scale"],
)
def weighted_softmax_loss(row: Row, scale, class_weights):
    """Cross-entropy over the proxies, a row counting as much as its class."""
    if not row.exists:
        return []
    term = _cross_entropy([scale * s for s in row.class_similarities()], row.label)
    if class_weights is None:
        return [term]
    if math.isnan(term):
        return term, 1.0, 0.0
    weight = class_weights[row.label]
    return weight * term, weight, weight * (term > 0)


# Miners ------------------------------------------------------------------------------


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
