"""Oracles of the losses over proxies."""

import math
from collections.abc import Sequence

from oracle_registry import Hyper, oracle
from oracle_rows import Row, logsumexp, softplus


def _cross_entropy(logits: Sequence[float], label: int) -> float:
    """Return log(sum over c of exp(z_c - z_label)), which loses no digits near 0."""
    if not 0 <= label < len(logits):
        return math.nan
    others = [z - logits[label] for c, z in enumerate(logits) if c != label]
    return softplus(logsumexp(others)) if others else 0.0


@oracle(
    "normalized_softmax_loss",
    hyper={"temperature": Hyper(0.05, 0.3, 1.0)},
    distance=None,
    has_proxies=True,
    logit_scale=lambda hyper: 1 / hyper["temperature"],
)
def normalized_softmax_loss(row: Row, temperature):
    """Cross-entropy over the cosines to all proxies."""
    if not row.exists:
        return []
    logits = [s / temperature for s in row.class_similarities()]
    return [_cross_entropy(logits, row.label)]


@oracle(
    "weighted_softmax_loss",
    hyper={
        "scale": Hyper(1.0, 0.5, 2.0),
        "class_weights": Hyper(None, 0.5, 2.0, per_class=True),
    },
    distance="dot",
    has_proxies=True,
    logit_scale=lambda hyper: hyper["scale"],
)
def weighted_softmax_loss(row: Row, scale, class_weights):
    """Cross-entropy over the proxies, a row counting as much as its class."""
    if not row.exists:
        return []
    term = _cross_entropy([scale * s for s in row.class_similarities()], row.label)
    if class_weights is None:
        return [term]
    if math.isnan(term):
        return term, 1.0, 0.0
    weight = class_weights[row.label]
    return weight * term, weight, weight * (term > 0)
