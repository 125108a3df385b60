"""Random batches of one shape, away from kinks, each with what its oracle says."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import oracles
from degenerate import DIM, NUM_CLASSES, ROWS
from subjects import Subject
from tolerances import CLEARANCE

# References of a case with two sides; not the number of anchors, so that an axis
# taken for another shows.
REFERENCES = ROWS + 2

Case = dict[str, Any]


def random_case(rng: np.random.Generator, subject: Subject, *, mode: str) -> Case:
    """Return one random batch, float32 numbers in NumPy arrays.

    In "self" mode the batch is compared with itself (or, row by row, with as many
    keys), in "ref" mode with other rows (and a margin is one number an anchor). Which
    rows exist, how many classes there are, whether ids repeat and weights differ
    varies from case to case.
    """
    oracle = subject.oracle
    num_classes = int(rng.integers(1, 5))

    def side(rows: int) -> tuple[np.ndarray, ...]:
        embeddings = rng.normal(size=(rows, DIM)) * 0.5
        labels = rng.integers(0, num_classes, rows)
        where = rng.random(rows) < rng.choice([0.5, 0.8, 1.0])
        return embeddings.astype(np.float32), labels.astype(np.int32), where

    embeddings, labels, where = side(ROWS)
    ids = np.arange(ROWS + REFERENCES, dtype=np.int32)
    if rng.random() < 0.25:
        ids = rng.integers(0, ROWS, ids.size).astype(np.int32)
    weights = np.ones(ROWS, np.float32)
    if rng.random() < 0.5:
        weights = np.round(rng.uniform(0, 2, ROWS), 1).astype(np.float32)
        weights[rng.integers(ROWS)] = 0
    case: Case = {"embeddings": embeddings, "labels": labels, "where": where}
    if "weights" in subject.parameters:
        case["weights"] = weights
    if oracle.has_proxies:
        shape = oracle.proxies_shape(NUM_CLASSES, DIM)
        case["proxies"] = rng.normal(size=shape).astype(np.float32)
    if subject.has_references:
        case["ids"] = ids[:ROWS]
    if mode == "ref" or subject.is_paired:
        refs, ref_labels, ref_where = side(REFERENCES if mode == "ref" else ROWS)
        case |= {"ref_embeddings": refs, "ref_labels": ref_labels}
    if mode == "ref":
        case |= {"ref_where": ref_where, "ref_ids": ids[ROWS:]}
    case["hyper"] = {
        name: _draw(rng, hyper, mode == "ref" and name in oracle.per_anchor)
        for name, hyper in oracle.hyper.items()
    }
    return case


def _draw(rng: np.random.Generator, hyper: oracles.Hyper, per_anchor: bool) -> Any:
    size = NUM_CLASSES if hyper.per_class else ROWS if per_anchor else None
    return np.asarray(rng.uniform(hyper.low, hyper.high, size), np.float32)


def expected(
    subject: Subject, case: Mapping[str, Any], *, distance: str | None = None, **flags
) -> oracles.Result:
    """Return the oracle's statistics of a case."""
    hyper = {key: value.tolist() for key, value in case["hyper"].items()}
    arrays = {key: value for key, value in case.items() if key != "hyper"}
    return oracles.evaluate(subject.name, arrays, distance=distance, **hyper, **flags)


@functools.cache
def random_cases(
    subject: Subject,
    count: int,
    *,
    mode: str = "self",
    seed: int = 0,
    distance: str | None = None,
    flags: tuple[tuple[str, Any], ...] = (),
    clearance: float = CLEARANCE["float32"],
) -> list[tuple[Case, oracles.Result]]:
    """Return random cases with their oracle's answers, none of them near a kink."""
    rng = np.random.default_rng([seed, sum(map(ord, subject.name))])
    found: list[tuple[Case, oracles.Result]] = []
    for _ in range(20 * count):
        case = random_case(rng, subject, mode=mode)
        result = expected(subject, case, distance=distance, **dict(flags))
        if result.clearance > clearance:
            found.append((case, result))
        if len(found) == count:
            return found
    raise AssertionError(f"{subject.name}: too few cases away from kinks")


def full_case(subject: Subject, seed: int = 0, *, mode: str = "self") -> Case:
    """Return a case in which every row exists and has partners of both kinds."""
    rng = np.random.default_rng([seed, 7])
    case = random_case(rng, subject, mode=mode)
    case["labels"] = np.arange(ROWS, dtype=np.int32) % 3
    case["where"] = np.ones(ROWS, bool)
    case["embeddings"] = rng.normal(size=(ROWS, DIM)).astype(np.float32)
    if "weights" in case:
        case["weights"] = np.ones(ROWS, np.float32)
    if "ids" in case:
        case["ids"] = np.arange(ROWS, dtype=np.int32)
    if subject.is_paired:
        case["ref_labels"] = case["labels"].copy()
    if mode == "ref":
        case["ref_labels"] = np.arange(REFERENCES, dtype=np.int32) % 3
        case["ref_where"] = np.ones(REFERENCES, bool)
        case["ref_ids"] = ROWS + np.arange(REFERENCES, dtype=np.int32)
    return case
