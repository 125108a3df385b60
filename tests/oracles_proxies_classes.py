"""Oracles of the losses that classify with squares, or by the size of classes."""

import math

from oracle_registry import Hyper, oracle
from oracle_rows import Row, logsumexp, softplus


@oracle("p2s_grad_loss", hyper={}, distance=None, has_proxies=True)
def p2s_grad_loss(row: Row):
    """Squared errors of the cosines against one-hot."""
    if not row.exists:
        return []
    errors = [s - (c == row.label) for c, s in enumerate(row.class_similarities())]
    return [row.batch.near(e) ** 2 for e in errors]


@oracle(
    "seesaw_loss",
    hyper={
        "p": Hyper(0.8, 0.3, 1.5),
        "q": Hyper(2.0, 0.5, 2.0),
        "epsilon": Hyper(0.01, 0.05, 0.2),
        "scale": Hyper(20.0, 1.0, 4.0),
        "class_counts": Hyper(None, 0.5, 20.0, per_class=True),
    },
    distance=None,
    has_proxies=True,
    has_frozen_factors=True,
    # A row that loses is punished by scores to the power of q.
    logit_scale=lambda hyper: hyper["scale"] * (1 + hyper["q"]),
)
def seesaw_loss(row: Row, p, q, epsilon, scale, class_counts):
    """Cross-entropy with factors for rare classes and for those that score higher."""
    batch, y = row.batch, row.label
    if not row.exists:
        return []
    z = [scale * s for s in row.class_similarities()]
    if not 0 <= y < len(z):
        return [math.nan]
    if class_counts is None:
        existing = [
            b for b, exists in zip(batch.labels, batch.where, strict=True) if exists
        ]
        class_counts = [existing.count(c) for c in range(len(z))]
    counts = [max(count, 1.0) for count in class_counts]
    scores = [math.exp(v - logsumexp(z)) for v in z]
    others = []
    for c in range(len(z)):
        if c == y:
            continue
        batch.near(class_counts[c] - 1)
        batch.near(counts[c] - counts[y])
        mitigation = min(1.0, counts[c] / counts[y]) ** p
        ratio = batch.frozen((row.i, c), scores[c] / max(scores[y], epsilon))
        compensation = max(1.0, ratio) ** q
        others.append(math.log(mitigation * compensation) + z[c] - z[y])
    batch.near(class_counts[y] - 1)
    return [softplus(logsumexp(others))] if others else []
