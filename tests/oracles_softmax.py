"""Oracles of the softmax over references."""

import math

from oracle_registry import Hyper, oracle
from oracle_rows import Row, logsumexp, softplus


@oracle(
    "nt_xent_loss",
    hyper={"temperature": Hyper(0.07, 0.3, 1.0)},
    distance="cosine",
    logit_scale=lambda hyper: 1 / hyper["temperature"],
)
def nt_xent_loss(row: Row, temperature):
    """Each positive against the negatives; other positives are left out."""
    if not row.has_both:
        return []
    negatives = logsumexp([row.s(n) / temperature for n in row.negatives])
    return [softplus(negatives - row.s(p) / temperature) for p in row.positives]


@oracle(
    "supervised_contrastive_loss",
    hyper={"temperature": Hyper(0.1, 0.3, 1.0)},
    distance="cosine",
    logit_scale=lambda hyper: 1 / hyper["temperature"],
)
def supervised_contrastive_loss(row: Row, temperature):
    """All other rows in the denominator, the positives averaged outside the log."""
    if not row.has_both:
        return []
    others = logsumexp([row.s(j) / temperature for j in row.positives + row.negatives])
    pull = math.fsum(row.s(p) / temperature for p in row.positives)
    return [others - pull / len(row.positives)]
