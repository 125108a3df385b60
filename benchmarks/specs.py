"""Workloads and losses by name: what the benchmarks time and, smaller, the tests check.

A workload makes a batch of unit rows of any size. Rows of a class share a direction, so
that with the usual margins some triplets are active and some are not.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import jaxmetric as jm

# Share of the class's direction in a row: positives at 1.3, negatives at 1.4.
_CLASS_SHARE = 0.5

# A size at which every workload runs as a test, and the widths that are benchmarked.
REDUCED_BATCH, REDUCED_DIM = 24, 8
DIMS = (64, 128, 512)


class Batch(NamedTuple):
    """A batch in NumPy.

    Attributes:
      embeddings: [batch, dim] float32, unit rows.
      labels: [batch] int32.
    """

    embeddings: np.ndarray
    labels: np.ndarray

    def halves(self) -> tuple["Batch", "Batch"]:
        """Return every other row, as queries and references of the same classes."""
        odd, even = slice(1, None, 2), slice(0, None, 2)
        first = Batch(self.embeddings[even], self.labels[even])
        return first, Batch(self.embeddings[odd], self.labels[odd])

    @property
    def m_per_class(self) -> int:
        """Number of rows in the largest class."""
        return int(np.bincount(self.labels).max())

    @property
    def num_triplets(self) -> int:
        """Number of (anchor, positive, negative)."""
        counts = np.bincount(self.labels).astype(np.int64)
        return int(np.sum(counts * (counts - 1) * (len(self.labels) - counts)))

    @property
    def num_positives(self) -> int:
        """Number of (anchor, positive)."""
        counts = np.bincount(self.labels).astype(np.int64)
        return int(np.sum(counts * (counts - 1)))


@dataclass(frozen=True)
class Workload:
    """How the rows of a batch belong together.

    Attributes:
      name: as in results.
      labels: (rng, batch) -> [batch] integers.
      duplicates: share of the rows that are bitwise copies of other rows.
    """

    name: str
    labels: Callable[[np.random.Generator, int], np.ndarray]
    duplicates: float = 0.0

    def make(self, batch: int, dim: int, *, seed: int = 0) -> Batch:
        """Return a batch, a pure function of the arguments."""
        rng = np.random.default_rng([seed, batch, dim])
        labels = self.labels(rng, batch).astype(np.int32)
        rows = rng.standard_normal((batch, dim), np.float32)
        centres = rng.standard_normal((int(labels.max()) + 1, dim), np.float32)
        rows += np.float32(_CLASS_SHARE) * centres[labels]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        num_copies = int(self.duplicates * batch)
        if num_copies:
            order = rng.permutation(batch)
            rows[order[:num_copies]] = rows[order[-num_copies:]]
        return Batch(rows, labels)


def _groups(rng: np.random.Generator, batch: int, *, m_per_class: int) -> np.ndarray:
    """Classes of `m_per_class` rows that stand together, as a sampler makes them."""
    del rng
    return np.arange(batch) // m_per_class


def _classes(rng: np.random.Generator, batch: int, *, num_classes: int) -> np.ndarray:
    """A fixed number of equal classes, whatever the batch, in random order."""
    return rng.permutation(np.arange(batch) % num_classes)


def _long_tailed(rng: np.random.Generator, batch: int) -> np.ndarray:
    """Classes whose size falls like 1 / rank; many have one row."""
    weights = 1 / np.arange(1, max(batch // 4, 2) + 1)
    return rng.choice(weights.size, batch, p=weights / weights.sum())


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("pk2", partial(_groups, m_per_class=2)),
        Workload("pk4", partial(_groups, m_per_class=4)),
        Workload("pk8", partial(_groups, m_per_class=8)),
        Workload("pk64", partial(_groups, m_per_class=64)),
        Workload("long_tailed", _long_tailed),
        Workload("few_large", partial(_classes, num_classes=4)),
        Workload("ten_classes", partial(_classes, num_classes=10)),
        Workload("one_class", partial(_classes, num_classes=1)),
        Workload("duplicates", partial(_groups, m_per_class=4), duplicates=0.25),
    )
}

# The losses that have a target, first in every table.
HEADLINES = (
    "batch_hard_triplet_loss",
    "batch_all_triplet_loss",
    "semi_hard_triplet_loss",
    "supervised_contrastive_loss",
    "nt_xent_loss",
    "multi_similarity_loss",
    "contrastive_loss",
)

# Hyper-parameters that are fixed here, so that the peers are given the same.
OPTIONS: dict[str, dict[str, Any]] = {
    "batch_hard_triplet_loss": {"margin": 0.2},
    "batch_all_triplet_loss": {"margin": 0.2},
    "semi_hard_triplet_loss": {"margin": 0.2},
    "supervised_contrastive_loss": {"temperature": 0.1},
    "nt_xent_loss": {"temperature": 0.1},
    "contrastive_loss": {"margin": 1.0},
}


def row_losses() -> tuple[str, ...]:
    """Return the losses of the catalogue that are computed by blocks of rows."""
    names = [name for name in jm.losses.__all__ if _is_row_loss(name)]
    return tuple(sorted(names, key=lambda name: (_rank(name), name)))


def headlines() -> tuple[str, ...]:
    """Return the losses that have a target, as far as the catalogue has them."""
    return tuple(name for name in HEADLINES if name in jm.losses.__all__)


def gflop(function: str, batch: Batch, *, is_gradient: bool) -> float:
    """Return the arithmetic that the mathematics asks for, in 1e9 operations.

    One matrix product is F = 2 B^2 D. Batch-hard's gradient touches two pairs an
    anchor; counted losses add three operations a triplet (semi-hard: a positive and
    column) and one product for the gradient; the others two products. What is computed
    again to save memory does not count.
    """
    rows, dim = batch.embeddings.shape
    product = 2.0 * rows * rows * dim
    total = product
    if function == "batch_all_triplet_loss":
        total += 3.0 * batch.num_triplets
    elif function == "semi_hard_triplet_loss":
        total += 3.0 * batch.num_positives * rows
    if is_gradient and function not in ("matmul", "batch_hard_triplet_loss"):
        is_counted = function in ("batch_all_triplet_loss", "semi_hard_triplet_loss")
        total += product if is_counted else 2 * product
    return total / 1e9


def _rank(name: str) -> int:
    """Return the place of a loss among the headlines."""
    return HEADLINES.index(name) if name in HEADLINES else len(HEADLINES)


def _is_row_loss(name: str) -> bool:
    """Tell whether a name is a loss of embeddings and labels alone, with blocks."""
    function = getattr(jm.losses, name)
    if not inspect.isroutine(function):
        return False
    parameters = inspect.signature(function).parameters
    needed = [k for k, p in parameters.items() if p.default is inspect.Parameter.empty]
    return needed == ["embeddings", "labels"] and "block_size" in parameters
