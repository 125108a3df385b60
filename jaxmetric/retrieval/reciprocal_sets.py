"""Sparse sets of neighbours, on the host: who holds whom for a neighbour, and shares.

Their sizes differ from row to row, so they are kept as lists of members, not as rows
of a matrix.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Numbers in the arrays of one stretch of rows.
_ELEMENTS = 2**22


class Sets(NamedTuple):
    """A set of weighted members for each of n rows, one after the other.

    Attributes:
      starts: [n + 1] where the members of each row start, and where the last ends.
      members: [all] int64, ascending within a row.
      weights: [all] float64.
    """

    starts: np.ndarray
    members: np.ndarray
    weights: np.ndarray

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (which of `rows`, member, weight) for all members of these rows."""
        sizes = self.starts[rows + 1] - self.starts[rows]
        which = np.repeat(np.arange(rows.size), sizes)
        before = np.cumsum(sizes) - sizes
        places = np.arange(which.size) + (self.starts[rows] - before)[which]
        return which, self.members[places], self.weights[places]


def expanded(neighbors: np.ndarray, k1: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (row, member) of each row's extended set of reciprocal neighbours.

    Args:
      neighbors: [n, at least min(k1 + 1, n)], nearest first, each row itself at first.
      k1: neighbours that must be reciprocal.
    """
    n = neighbors.shape[0]
    # As the paper's code rounds: halves to even.
    whole, half = neighbors[:, : k1 + 1], neighbors[:, : round(k1 / 2) + 1]
    is_reciprocal, is_half_reciprocal = _reciprocal(whole), _reciprocal(half)
    found = []
    for rows in _stretches(n, whole.shape[1] ** 2 * half.shape[1]):
        near, is_near = whole[rows], is_reciprocal[rows]
        theirs, is_theirs = half[near], is_half_reciprocal[near]
        own = np.where(is_near, near, -1)
        is_shared = (theirs[..., None] == own[:, None, None, :]).any(-1) & is_theirs
        # More than two thirds, in whole numbers.
        is_added = 3 * is_shared.sum(-1) > 2 * is_theirs.sum(-1)
        is_added = is_theirs & (is_added & is_near)[..., None]
        row = np.broadcast_to(np.arange(n)[rows][:, None], near.shape)
        far_row = np.broadcast_to(row[..., None], theirs.shape)
        rows_of = np.concatenate([row[is_near], far_row[is_added]])
        members = np.concatenate([near[is_near], theirs[is_added]])
        found.append(np.unique(rows_of.astype(np.int64) * n + members))
    pairs = np.concatenate(found)
    return pairs // n, pairs % n


def weighted(
    rows: np.ndarray, members: np.ndarray, weights: np.ndarray, n: int
) -> Sets:
    """Return the sets of n rows, their weights divided by each row's sum.

    Args:
      rows, members: [all], in the order of both.
      weights: [all] positive.
      n: how many rows there are, each with a member.
    """
    totals = np.bincount(rows, weights, minlength=n)
    return Sets(_starts(rows, n), members, weights / totals[rows])


def averaged(sets: Sets, neighbors: np.ndarray) -> Sets:
    """Return each row's mean set over its neighbours, [n, k2]."""
    n, k2 = neighbors.shape
    keys, weights = [], []
    largest = int(np.diff(sets.starts).max())
    for rows in _stretches(n, k2 * largest):
        which, members, weight = sets.of(neighbors[rows].ravel())
        row = np.arange(n)[rows][which // k2]
        key, place = np.unique(row.astype(np.int64) * n + members, return_inverse=True)
        keys.append(key)
        weights.append(np.bincount(place.ravel(), weight) / k2)
    key = np.concatenate(keys)
    return Sets(_starts(key // n, n), key % n, np.concatenate(weights))


def inverted(sets: Sets, first: int) -> Sets:
    """Return, for each row, in whose sets it is: of those from `first` on, from 0."""
    n = sets.starts.size - 1
    owners = np.repeat(np.arange(n), np.diff(sets.starts))
    kept = np.flatnonzero(owners >= first)
    kept = kept[np.argsort(sets.members[kept], kind="stable")]
    starts = _starts(sets.members[kept], n)
    return Sets(starts, owners[kept] - first, sets.weights[kept])


def jaccard(sets: Sets, owners: Sets, rows: np.ndarray, n: int) -> np.ndarray:
    """Return [b, n] Jaccard distances of rows to those whose sets were inverted."""
    which, members, weights = sets.of(rows)
    entry, other, theirs = owners.of(members)
    cells = which[entry] * n + other
    shared = np.bincount(cells, np.minimum(weights[entry], theirs), rows.size * n)
    shared = shared.reshape(rows.size, n)
    # All weights of a set sum to 1, so the sum of maxima is 2 - that of minima.
    return 1 - shared / (2 - shared)


def _reciprocal(neighbors: np.ndarray) -> np.ndarray:
    """Return [n, k] bool, which neighbours have the row among their own."""
    is_reciprocal = np.empty(neighbors.shape, bool)
    n, k = neighbors.shape
    for rows in _stretches(n, k * k):
        own = np.arange(n)[rows][:, None, None]
        is_reciprocal[rows] = (neighbors[neighbors[rows]] == own).any(-1)
    return is_reciprocal


def _starts(rows: np.ndarray, n: int) -> np.ndarray:
    """Return [n + 1] where each of n rows starts in an ascending list of rows."""
    return np.searchsorted(rows, np.arange(n + 1))


def _stretches(n: int, width: int) -> Iterator[slice]:
    """Cut n rows into stretches whose arrays of so many numbers a row stay small."""
    step = max(1, _ELEMENTS // width)
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))
