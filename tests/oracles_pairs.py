"""Oracles of the losses over pairs."""

from oracle_registry import Hyper, oracle
from oracle_rows import Batch, Row, is_list


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
