"""Keys that are nearly the same: none of them is a negative of another's query."""

import numpy as np

from jaxmetric.cli.errors import UsageError

_ROWS = 512


def of_duplicates(
    keys: np.ndarray, cosine: float
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return [n] group numbers of pairs that are no negatives of each other; notes.

    A group is what near-duplicates hold together: keys of two groups are never as
    similar as `cosine`, though two of one group need not be.

    Args:
      keys: [n, ...] numbers, as they come.
      cosine: similarity from which on two keys are near-duplicates, in (0, 1].

    Raises:
      UsageError: the similarity is out of range, or leaves no negatives.

    Time: O(n^2 d). Memory: O(n d).
    """
    if not 0 < cosine <= 1:
        raise UsageError(
            f"--duplicates must be above 0 and at most 1, got {cosine:g}. Use 0.99."
        )
    rows = keys.reshape(len(keys), -1).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1)
    # Rounding must not tell a row from its copy.
    least = cosine - 1e-6
    parents = np.arange(len(rows))
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        found = np.argwhere(block @ rows[start:].T >= least) + start
        for i, j in found[found[:, 0] < found[:, 1]]:
            a, b = _root(parents, i), _root(parents, j)
            parents[max(a, b)] = min(a, b)
    roots = np.array([_root(parents, i) for i in range(len(rows))])
    _, numbers, sizes = np.unique(roots, return_inverse=True, return_counts=True)
    if len(sizes) == 1:
        raise UsageError(
            f"--duplicates {cosine:g} leaves no negatives: all pairs are one group. "
            "Use a number nearer to 1."
        )
    many = int((sizes > 1).sum())
    note = (
        f"{len(rows) - len(sizes):,} pairs are near-duplicates of others: {many:,} "
        f"groups of 2 to {sizes.max():,} are no negatives of each other"
    )
    return numbers.astype(np.int32), (note,) if many else ()


def _root(parents: np.ndarray, i: int) -> int:
    """Return the first of a group, and let its members point there."""
    root = i
    while parents[root] != root:
        root = parents[root]
    while parents[i] != root:
        parents[i], i = root, parents[i]
    return int(root)
