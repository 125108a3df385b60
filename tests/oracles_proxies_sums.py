"""Oracles of the losses in which proxies meet the whole batch, or all scores do."""

import math

from oracle_registry import Hyper, oracle
from oracle_rows import Batch, Row, softplus


def _log_one_plus_sum_exp(values: list[float]) -> float:
    """Return log(1 + sum(exp(v)))."""
    top = max([0.0, *values])
    rest = math.fsum(math.exp(v - top) for v in values)
    return top + math.log1p(rest + math.expm1(-top))


def _existing(batch: Batch) -> list[int]:
    return [i for i, exists in enumerate(batch.where) if exists]


@oracle(
    "proxy_anchor_loss",
    hyper={"margin": Hyper(0.1, 0.0, 0.3), "alpha": Hyper(32.0, 1.0, 8.0)},
    distance=None,
    reduction=None,
    is_scalar=True,
    has_proxies=True,
    logit_scale=lambda hyper: hyper["alpha"],
)
def proxy_anchor_loss(batch: Batch, margin, alpha):
    """Two log-sum-exp a proxy, over the embeddings of its class and over the others."""
    rows = _existing(batch)
    if not rows:
        return None
    s = [Row(batch, i).class_similarities() for i in range(len(batch.embeddings))]
    num_classes = len(s[0])
    attraction, repulsion = [], []
    for c in range(num_classes):
        own = [alpha * (margin - s[i][c]) for i in rows if batch.labels[i] == c]
        others = [alpha * (s[i][c] + margin) for i in rows if batch.labels[i] != c]
        if own:
            attraction.append(_log_one_plus_sum_exp(own))
        repulsion.append(_log_one_plus_sum_exp(others))
    attracted = math.fsum(attraction) / len(attraction)
    return attracted + math.fsum(repulsion) / num_classes


def _weighted_mean(scores: list[float], weights: list[float]) -> float:
    total = math.fsum(w * p for w, p in zip(weights, scores, strict=True))
    return total / math.fsum(weights)


@oracle(
    "distributional_ranking_loss",
    hyper={
        "margin": Hyper(0.5, 0.2, 0.8),
        "positive_temperature": Hyper(1.0, 0.3, 1.0),
        "negative_temperature": Hyper(0.1 / math.log(3.5), 0.3, 1.0),
        "L": Hyper(6.0, 1.0, 4.0),
        "tau": Hyper(4.0, 1.0, 3.0),
        "scale": Hyper(1.0, 0.5, 2.0),
    },
    distance="dot",
    reduction=None,
    is_scalar=True,
    has_proxies=True,
    logit_scale=lambda hyper: (
        hyper["tau"] * hyper["scale"] / hyper["negative_temperature"]
    ),
)
def distributional_ranking_loss(
    batch: Batch,
    margin,
    positive_temperature,
    negative_temperature,
    L,
    tau,
    scale,
):
    """Expected scores of own and of other classes, over all of them at once."""
    own: tuple[list[float], list[float]] = ([], [])
    others: tuple[list[float], list[float]] = ([], [])
    for i in _existing(batch):
        for c, s in enumerate(Row(batch, i).class_similarities()):
            score = (1 + math.tanh(scale * s / 2)) / 2
            is_own = batch.labels[i] == c
            z = -score / positive_temperature
            if not is_own:
                z = score / negative_temperature
            scores, weights = own if is_own else others
            scores.append(score)
            weights.append(batch.weights[i] * math.exp(z))
    if not sum(own[1]) or not sum(others[1]):
        return None
    gap = _weighted_mean(*others) - _weighted_mean(*own) + margin
    return tau / L * softplus(L * gap)
