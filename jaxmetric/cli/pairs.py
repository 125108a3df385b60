"""Pairs of rows and their distances: all of two sets, a share drawn of them, or a list.

The matrix of all pairs is never held. Up to `MOST` pairs are all taken; else half as
many of each kind, drawn where there are more. The rates of verification are shares of
one kind of pairs, so they do not depend on the balance of the two.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmetric.cli.errors import UsageError

# All pairs up to so many; of more, at most half as many of each kind.
MOST = 2**22

_BLOCK = 2**16


class Rows(NamedTuple):
    """The rows whose pairs are wanted.

    Attributes:
      labels, groups: [n] integers; groups may be None.
      ref_labels, ref_groups: [m] of the other side, None for the rows with each other.
    """

    labels: np.ndarray
    groups: np.ndarray | None = None
    ref_labels: np.ndarray | None = None
    ref_groups: np.ndarray | None = None


class Pairs(NamedTuple):
    """Pairs of rows.

    Attributes:
      left, right: [pairs] int64 row ids of either side.
      is_same: [pairs] bool.
      are_all: whether no pair of the two sets is missing.
    """

    left: np.ndarray
    right: np.ndarray
    is_same: np.ndarray
    are_all: bool


def choose(rows: Rows, *, most: int = MOST, seed: int = 0) -> Pairs:
    """Return all pairs, or, of more than `most`, at most half as many of each kind.

    A kind that has more is drawn from uniformly, with replacement. Pairs of one label
    and one group are left out, as in `jaxmetric.retrieval.cmc`.

    Memory: O(most). Time: O(most + n log n).
    """
    is_self = rows.ref_labels is None
    others = rows.labels if rows.ref_labels is None else rows.ref_labels
    n, m = len(rows.labels), len(others)
    if (n * (n - 1) // 2 if is_self else n * m) <= most:
        if is_self:
            left, right = np.triu_indices(n, 1)
        else:
            left, right = (a.ravel() for a in np.indices((n, m)))
        pairs = Pairs(left, right, rows.labels[left] == others[right], True)
        return _between_groups(pairs, rows)
    random = np.random.default_rng(seed)
    same = _draw_same(rows.labels, others, is_self, most // 2, random)
    different = _draw_different(rows.labels, others, most // 2, random)
    left, right = (np.concatenate(ends) for ends in zip(same, different, strict=True))
    is_same = np.arange(len(left)) < len(same[0])
    return _between_groups(Pairs(left, right, is_same, False), rows)


def distances(pairs: Pairs, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    """Return [pairs] float32 Euclidean distances of rows of x and y (x itself).

    Memory: O(pairs), and the rows of a block.
    """
    y = x if y is None else y
    found = np.empty(len(pairs.left), np.float32)
    for start in range(0, len(found), _BLOCK):
        block = slice(start, start + _BLOCK)
        differences = x[pairs.left[block]] - y[pairs.right[block]]
        squares = np.einsum("ij,ij->i", differences, differences)
        found[block] = np.sqrt(squares)
    return found


def read_pairs(file: str, num_left: int, num_right: int) -> Pairs:
    """Return the pairs that a file lists: two row ids from 0, and 1 for same, else 0.

    Args:
      file: lines of three numbers between tabs; blank lines are passed over.
      num_left, num_right: rows of either side.

    Raises:
      UsageError: the file cannot be read, or a line is no such pair.
    """
    found: list[tuple[int, int, bool]] = []
    try:
        with Path(file).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    found.append(_pair(line, num_left, num_right, f"{file}:{number}"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(
            f"--pairs {file}: cannot be read ({reason}). Give a file of lines "
            "ROW<tab>ROW<tab>0 or 1."
        ) from error
    kinds = {is_same for _, _, is_same in found}
    if len(kinds) < 2:
        what = "holds no pair" if not found else f"holds only pairs of {int(*kinds)}"
        raise UsageError(
            f"--pairs {file}: {what}. Give pairs of the same class (1) and of "
            "different ones (0)."
        )
    left, right, is_same = (np.array(column) for column in zip(*found, strict=True))
    return Pairs(left, right, is_same, False)


def _pair(line: str, num_left: int, num_right: int, place: str) -> tuple:
    """Return what one line says."""
    fields = line.rstrip("\r\n").split("\t")
    is_pair = len(fields) == 3 and fields[2].strip() in ("0", "1")
    if not is_pair or not all(field.strip().isdecimal() for field in fields[:2]):
        shown = line.strip()[:40]
        raise UsageError(
            f"--pairs {place}: must be ROW<tab>ROW<tab>0 or 1, got {shown!r}. "
            "Number the rows from 0."
        )
    ends = int(fields[0]), int(fields[1])
    for row, limit in zip(ends, (num_left, num_right), strict=True):
        if row >= limit:
            raise UsageError(
                f"--pairs {place}: there is no row {row}, only 0 to {limit - 1}. "
                "Number the rows from 0."
            )
    return *ends, fields[2].strip() == "1"


def _draw_same(
    labels: np.ndarray,
    others: np.ndarray,
    is_self: bool,
    most: int,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return row ids of pairs of one label, each as likely as any other."""
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    start = np.searchsorted(ordered, labels, "left")
    size = np.searchsorted(ordered, labels, "right") - start - is_self
    left, slot = _partners(size, (1 + is_self) * most, most, random)
    slot += start[left]
    if is_self:
        # Past its own place, so that a row is no partner of itself.
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        slot += slot >= place[left]
    right = order[slot]
    if is_self and len(left) == size.sum():
        # Every pair has come twice, from either end.
        return left[left < right], right[left < right]
    return left, right


def _draw_different(
    labels: np.ndarray, others: np.ndarray, most: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return row ids of pairs of two labels, each as likely as any other."""
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    start = np.searchsorted(ordered, labels, "left")
    stop = np.searchsorted(ordered, labels, "right")
    size = len(others) - (stop - start)
    left, slot = _partners(size, most, most, random)
    # Past the rows of the own label, which stand together.
    slot += np.where(slot >= start[left], (stop - start)[left], 0)
    return left, order[slot]


def _partners(
    size: np.ndarray, limit: int, most: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and which of their partners: all there are, or `most` drawn.

    Args:
      size: [n] number of partners of each row.
      limit: up to so many in all, none is left out.
    """
    total = np.cumsum(size)
    if total[-1] <= limit:
        left = np.repeat(np.arange(len(size)), size)
        return left, np.arange(total[-1]) - (total - size)[left]
    # A row is drawn as often as it has partners, then one of these.
    left = np.searchsorted(total, random.integers(total[-1], size=most), "right")
    return left, random.integers(size[left])


def _between_groups(pairs: Pairs, rows: Rows) -> Pairs:
    """Return the pairs without those of one label and one group."""
    if rows.groups is None:
        return pairs
    others = rows.groups if rows.ref_groups is None else rows.ref_groups
    keep = ~pairs.is_same | (rows.groups[pairs.left] != others[pairs.right])
    left, right, is_same = (column[keep] for column in pairs[:3])
    return Pairs(left, right, is_same, pairs.are_all)
