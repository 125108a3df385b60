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

from oracle_rows import Batch, Row, Vector, batch_of, is_list

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
    With `is_scalar` the function gets the whole `Batch` and returns the value itself,
    as a loss does that is no sum of terms per anchor, or None where there is nothing
    to compute (the loss is exactly 0 then, without gradient); `has_frozen_factors`
    says that the loss holds factors without gradient (`Batch.frozen`), so that its
    gradient is not that of its value; `num_centers` how many rows of `proxies`
    [C, K, dim] a class has, None for `proxies` [C, dim]. With `is_paired` row i of the
    embeddings belongs to row i of the references, which exists by default where its
    partner does; `has_self` says that without references an anchor is one of its own
    positives. `is_additive` is False where an anchor's terms depend on the other
    anchors, so that parts of a batch do not add up to it; `own_reductions` are those
    that add something to the mean of the terms, and are tested beside the loss.
    """

    function: Callable[..., Any]
    hyper: dict[str, Hyper]
    flags: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    distance: str | None = "euclidean"
    reduction: str | None = "mean"
    is_explicit: bool = False
    is_scalar: bool = False
    has_frozen_factors: bool = False
    is_paired: bool = False
    has_self: bool = False
    has_proxies: bool = False
    num_centers: int | None = None
    order_free: bool = True
    scales: float | None = None
    scales_with: tuple[str, ...] = ()
    bound: float | None = None
    per_anchor: tuple[str, ...] = ()
    is_additive: bool = True
    own_reductions: tuple[str, ...] = ()
    logit_scale: Callable[[Mapping[str, Any]], float] = lambda hyper: 1.0

    def proxies_shape(self, num_classes: int, dim: int) -> tuple[int, ...]:
        """Return the shape of the proxies, [C, dim] or [C, K, dim]."""
        centers = () if self.num_centers is None else (self.num_centers,)
        return (num_classes, *centers, dim)

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
    factors: dict[Any, float] | None = None,
    **hyper: Any,
) -> Result:
    """Evaluate the oracle of a loss.

    Args:
      name: of the loss.
      case: arrays or lists by keyword name: `embeddings`, `labels`, and optionally
        `where`, `weights`, `ids`, `proxies`, `ref_embeddings`, `ref_labels`,
        `ref_where`, `ref_ids`.
      distance: None for the default of the loss.
      factors: those without gradient, see `Batch.frozen`; filled in if it is empty.
      hyper: hyper-parameters and flags; absent ones take their defaults. One in
        `per_anchor` may be a list.
    """
    entry = ORACLES[name]
    case = _with_keys(case) if entry.is_paired else case
    batch = batch_of(case, distance or entry.distance or "cosine")
    batch.factors = {} if factors is None else factors
    hyper = entry.defaults() | hyper
    if _is_poisoned(batch):
        slots = 1 if entry.is_explicit else len(batch.embeddings)
        zeros, weights = [0.0] * slots, [1.0] * slots
        return Result([math.nan] * slots, zeros, zeros, weights, 0.0, math.inf)
    if entry.is_scalar:
        value = entry.function(batch, **hyper)
        count, value = (0.0, 0.0) if value is None else (1.0, value)
        active = float(value > 0)
        clearance, magnitude = batch.clearance, batch.magnitude
        return Result([value], [count], [active], [1.0], clearance, magnitude)
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


def _with_keys(case: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let keys exist where their queries do, and all further keys, unless told."""
    where, keys = case.get("where"), case.get("ref_embeddings")
    if where is None or keys is None or case.get("ref_where") is not None:
        return case
    further = [True] * (len(keys) - len(where))
    return {**case, "ref_where": [*where, *further]}


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
    num_classes, rows = len(batch.proxies), batch.proxies
    if is_list(rows[0][0]):
        rows = [row for centers in rows for row in centers]
    return is_bad(rows, [True] * len(rows)) or any(
        not 0 <= y < num_classes for y in existing
    )
