"""Scored pairs of texts divided: what is trained on, and what is held out."""

import numpy as np

from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.paired.split import hold_out
from jaxmetric.data import PairedDataset, ScoredTexts


def components(pairs: PairedDataset) -> np.ndarray:
    """Return [n] int32, equal for pairs that are joined by texts they have in common.

    What means the same as the same text means the same, and is no negative.
    """
    both = np.concatenate([pairs.query, pairs.key])
    _, items = np.unique(both, axis=0, return_inverse=True)
    first, second = items.reshape(2, -1)
    leader = np.arange(items.max() + 1)
    while True:
        least = np.minimum(leader[first], leader[second])
        before = leader.copy()
        np.minimum.at(leader, first, least)
        np.minimum.at(leader, second, least)
        leader = leader[leader]
        if np.array_equal(leader, before):
            return leader[first].astype(np.int32)


def divided(
    loaded: ScoredTexts, options: TrainOptions
) -> tuple[ScoredTexts, ScoredTexts]:
    """Return what is trained on, and a share of the pairs that is held out."""
    data = options.data
    chosen = hold_out(data, len(loaded))
    train, held_out = (_taken(loaded, rows) for rows in chosen)
    if train.scores.min() == train.scores.max():
        raise UsageError(
            f"{data.data}: all pairs that are left to train on have one score. Give "
            "more, or other data with --eval-data."
        )
    return train, held_out


def _taken(pairs: ScoredTexts, rows: np.ndarray) -> ScoredTexts:
    """Return some pairs."""

    def of(side: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(side[row] for row in rows.tolist())

    return ScoredTexts(
        of(pairs.first), of(pairs.second), pairs.scores[rows], pairs.name
    )
