"""Rows and batches as lists: what the oracles of losses, miners and retrieval stand on.

Plain Python floats, added with `math.fsum`; nothing of the package is imported.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Vector = Sequence[float]

DISTANCES = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")

# A shorter row has no direction (contract, rule 7).
MIN_NORM = 1e-6


def norm(x: Vector) -> float:
    """Return the Euclidean norm of a row."""
    return math.sqrt(math.fsum(a * a for a in x))


def unit(x: Vector) -> list[float]:
    """Return the row divided by its norm; zeros for a row without direction."""
    length = norm(x)
    return [a / length if length > MIN_NORM else 0.0 for a in x]


def distance(x: Vector, y: Vector, name: str = "euclidean") -> float:
    """Return the named distance of two rows."""
    if name == "sqeuclidean":
        return math.fsum((a - b) * (a - b) for a, b in zip(x, y, strict=True))
    if name == "euclidean":
        return math.sqrt(distance(x, y, "sqeuclidean"))
    if name == "manhattan":
        return math.fsum(abs(a - b) for a, b in zip(x, y, strict=True))
    if name == "dot":
        return -math.fsum(a * b for a, b in zip(x, y, strict=True))
    assert name == "cosine"
    u, v = unit(x), unit(y)
    if not any(u) or not any(v):
        return 1.0
    # |u - v|^2 / 2 = 1 - <u, v> on unit rows, and exactly 0 for equal ones.
    return distance(u, v, "sqeuclidean") / 2


def softplus(v: float) -> float:
    """Return log(1 + exp(v))."""
    return max(v, 0.0) + math.log1p(math.exp(-abs(v)))


def logsumexp(values: Sequence[float]) -> float:
    """Return log(sum(exp(v))) of a list that is not empty."""
    top = max(values)
    return top + math.log(math.fsum(math.exp(v - top) for v in values))


@dataclass
class Batch:
    """Anchors and references as lists; without `ref_embeddings` the batch itself."""

    embeddings: list[list[float]]
    labels: list[int]
    where: list[bool]
    weights: list[float]
    ids: list[int] | None
    refs: list[list[float]]
    ref_labels: list[int]
    ref_where: list[bool]
    ref_ids: list[int] | None
    is_self: bool
    distance: str
    proxies: list[Any] | None = None  # rows of classes, or lists of such rows
    clearance: float = math.inf
    magnitude: float = 0.0
    cache: dict[tuple[int, int], float] = field(default_factory=dict)
    factors: dict[Any, float] = field(default_factory=dict)

    def d(self, i: int, j: int) -> float:
        """Return the distance of anchor i and reference j."""
        if (i, j) not in self.cache:
            x, y = self.embeddings[i], self.refs[j]
            d = self.cache[i, j] = distance(x, y, self.distance)
            self.magnitude = max(self.magnitude, abs(d))
            # Where two rows (two coordinates) meet, the distance has a kink itself.
            if self.distance == "euclidean":
                self.near(d)
            if self.distance == "manhattan":
                self.near(min(abs(a - b) for a, b in zip(x, y, strict=True)))
        return self.cache[i, j]

    def same_sample(self, i: int, j: int) -> bool:
        """Return whether anchor i and reference j are one sample: by index or id."""
        if self.is_self and i == j:
            return True
        if self.ids is None or self.ref_ids is None:
            return False
        return self.ids[i] == self.ref_ids[j]

    def partners(self, i: int, *, same_class: bool) -> list[int]:
        """Return the references that are positives (or negatives) of anchor i."""
        if not self.where[i]:
            return []
        return [
            j
            for j in range(len(self.refs))
            if self.ref_where[j]
            and not self.same_sample(i, j)
            and (self.labels[i] == self.ref_labels[j]) == same_class
        ]

    def near(self, v: float) -> float:
        """Note how far v is from 0, where the formula has a kink, and return it."""
        self.clearance = min(self.clearance, abs(v))
        return v

    def frozen(self, key: Any, value: float) -> float:
        """Return a factor without gradient: the first value that came under the key.

        Batches that share their `factors` keep those of the first, so that differences
        between them are those of a formula whose factors are constants.
        """
        return self.factors.setdefault(key, value)

    def hinge(self, v: float) -> float:
        """Return max(v, 0)."""
        return max(self.near(v), 0.0)

    def argmax(self, columns: Sequence[int], key: Callable[[int], float]) -> int:
        """Return the column of the largest key, the lowest among equals."""
        best = max(columns, key=lambda j: (key(j), -j))
        for j in columns:
            if j != best:
                self.near(key(best) - key(j))
        return best

    def argmin(self, columns: Sequence[int], key: Callable[[int], float]) -> int:
        """Return the column of the smallest key, the lowest among equals."""
        return self.argmax(columns, lambda j: -key(j))


class Row:
    """One anchor: what it is compared with, and how far that is."""

    def __init__(self, batch: Batch, i: int):
        self.batch, self.i = batch, i
        self.exists = batch.where[i]
        self.label = batch.labels[i]
        self.positives = batch.partners(i, same_class=True)
        self.negatives = batch.partners(i, same_class=False)
        self.has_both = bool(self.positives and self.negatives)
        self.hinge = batch.hinge

    def d(self, j: int) -> float:
        """Return the distance to reference j."""
        return self.batch.d(self.i, j)

    def s(self, j: int) -> float:
        """Return the similarity to reference j."""
        return 1 - self.d(j) if self.batch.distance == "cosine" else -self.d(j)

    def class_similarities(self) -> list[float]:
        """Return the similarity to every proxy."""
        return self._similarities(self.batch.proxies or [])

    def center_similarities(self) -> list[list[float]]:
        """Return the similarities to the proxies of every class, which has several."""
        return [self._similarities(centers) for centers in self.batch.proxies or []]

    def _similarities(self, proxies: Sequence[Vector]) -> list[float]:
        x, name = self.batch.embeddings[self.i], self.batch.distance
        shift = 1 if name == "cosine" else 0
        return [shift - distance(x, w, name) for w in proxies]


def batch_of(case: Mapping[str, Any], name: str) -> Batch:
    """Return a case of arrays (see `evaluate`) as lists."""

    def listed(key: str, default: Any) -> Any:
        value = case.get(key)
        return default if value is None else _as_list(value)

    x = listed("embeddings", None)
    n = len(x)
    is_self = case.get("ref_embeddings") is None
    labels, ids = listed("labels", None), listed("ids", None)
    where = listed("where", [True] * n)
    m = n if is_self else len(case["ref_embeddings"])
    return Batch(
        embeddings=x,
        labels=labels,
        where=where,
        weights=listed("weights", [1.0] * n),
        ids=ids,
        refs=x if is_self else listed("ref_embeddings", None),
        ref_labels=labels if is_self else listed("ref_labels", None),
        ref_where=where if is_self else listed("ref_where", [True] * m),
        ref_ids=ids if is_self else listed("ref_ids", None),
        is_self=is_self,
        distance=name,
        proxies=listed("proxies", None),
    )


def is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _as_list(value: Any) -> Any:
    """Return an array of any dtype, or nested lists, as lists of Python numbers."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if is_list(value):
        return [_as_list(v) for v in value]
    return float(value) if not isinstance(value, bool | int) else value
