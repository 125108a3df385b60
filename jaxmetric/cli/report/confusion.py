"""Which classes are mistaken for which, by the nearest row of every query."""

import numpy as np

from jaxmetric.cli.report.facts import Confusion, Mistake

_MISTAKES, _CLASSES = 10, 12


def confuse(
    labels: np.ndarray,
    names: tuple[str, ...],
    nearest: np.ndarray,
) -> Confusion:
    """Return the classes that are mistaken most.

    Args:
      labels: [n] positions in `names`.
      names: of the classes.
      nearest: [n], the other row that is nearest to each.
    """
    asked, found = labels, labels[nearest]
    sizes = np.bincount(asked, minlength=len(names))
    wrong = np.flatnonzero(asked != found)
    # A pair of classes as one number; there may be too many classes for a matrix.
    codes = asked[wrong].astype(np.int64) * len(names) + found[wrong]
    pairs, first, counts = np.unique(codes, return_index=True, return_counts=True)
    order = np.lexsort((pairs, -counts))
    mistakes, chosen = [], []
    for k in order:
        a, b = divmod(int(pairs[k]), len(names))
        if len(mistakes) < _MISTAKES:
            q = wrong[first[k]]
            mistakes.append(
                Mistake(
                    names[a],
                    names[b],
                    int(counts[k]),
                    int(sizes[a]),
                    int(q),
                    int(nearest[q]),
                )
            )
        new = [c for c in (a, b) if c not in chosen]
        if len(chosen) + len(new) > _CLASSES:
            break
        chosen += new
    matrix = np.array(
        [[np.sum((asked == a) & (found == b)) for b in chosen] for a in chosen],
        np.int64,
    ).reshape(len(chosen), len(chosen))
    return Confusion(
        tuple(mistakes),
        tuple(names[c] for c in chosen),
        matrix,
        sizes[chosen] - matrix.sum(axis=1) if chosen else np.zeros(0, np.int64),
        len(wrong),
        len(labels),
    )
