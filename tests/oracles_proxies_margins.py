"""Oracles of the losses over proxies whose own class needs a margin."""

import math
from collections.abc import Sequence

from oracle_registry import Hyper, oracle
from oracle_rows import Row, distance, logsumexp, norm, softplus


def _cross_entropy(own: float, others: Sequence[float]) -> float:
    """Return log(1 + sum(exp(other - own))), 0 for a single class."""
    return softplus(logsumexp(others) - own) if others else 0.0


def _others(row: Row, values: Sequence[float]) -> list[float]:
    return [v for c, v in enumerate(values) if c != row.label]


def _arcface(row: Row, s: float, margin: float) -> float:
    """Return cos(angle + margin), or its continuation past pi - margin."""
    batch = row.batch
    angle = math.acos(max(-1.0, min(1.0, s)))
    batch.near(angle)
    if batch.near(s + math.cos(margin)) >= 0:
        return math.cos(angle + margin)
    return s - margin * math.sin(margin)


@oracle(
    "arcface_loss",
    hyper={"margin": Hyper(0.5, 0.1, 1.0), "scale": Hyper(64.0, 2.0, 8.0)},
    distance=None,
    has_proxies=True,
    logit_scale=lambda hyper: hyper["scale"],
)
def arcface_loss(row: Row, margin, scale):
    """Cross-entropy over cosines, a margin added to the angle of the own class."""
    if not row.exists:
        return []
    s = row.class_similarities()
    own = scale * _arcface(row, s[row.label], margin)
    return [_cross_entropy(own, [scale * v for v in _others(row, s)])]


@oracle(
    "cosface_loss",
    hyper={"margin": Hyper(0.35, 0.1, 1.0), "scale": Hyper(64.0, 2.0, 8.0)},
    distance=None,
    has_proxies=True,
    logit_scale=lambda hyper: hyper["scale"],
)
def cosface_loss(row: Row, margin, scale):
    """Cross-entropy over cosines, a margin taken from that of the own class."""
    if not row.exists:
        return []
    s = row.class_similarities()
    own = scale * (s[row.label] - margin)
    return [_cross_entropy(own, [scale * v for v in _others(row, s)])]


@oracle(
    "subcenter_arcface_loss",
    hyper={"margin": Hyper(0.5, 0.1, 1.0), "scale": Hyper(64.0, 2.0, 8.0)},
    distance=None,
    has_proxies=True,
    num_centers=3,
    logit_scale=lambda hyper: hyper["scale"],
)
def subcenter_arcface_loss(row: Row, margin, scale):
    """ArcFace on the largest cosine of each class."""
    if not row.exists:
        return []
    s = []
    for centers in row.center_similarities():
        s.append(centers[row.batch.argmax(range(len(centers)), centers.__getitem__)])
    own = scale * _arcface(row, s[row.label], margin)
    return [_cross_entropy(own, [scale * v for v in _others(row, s)])]


@oracle(
    "soft_triple_loss",
    hyper={
        "la": Hyper(20.0, 2.0, 8.0),
        "gamma": Hyper(0.1, 0.2, 1.0),
        "margin": Hyper(0.01, 0.1, 1.0),
    },
    distance=None,
    has_proxies=True,
    num_centers=3,
    logit_scale=lambda hyper: hyper["la"] * max(1.0, 1 / hyper["gamma"]),
)
def soft_triple_loss(row: Row, la, gamma, margin):
    """Cross-entropy over softly chosen cosines to the proxies of each class."""
    if not row.exists:
        return []
    relaxed = []
    for centers in row.center_similarities():
        total = logsumexp([s / gamma for s in centers])
        relaxed.append(math.fsum(math.exp(s / gamma - total) * s for s in centers))
    own = la * (relaxed[row.label] - margin)
    return [_cross_entropy(own, [la * v for v in _others(row, relaxed)])]


def _psi(row: Row, s: float, margin: int, annealing: float) -> float:
    """Return (-1)^k cos(margin angle) - 2 k, mixed with the cosine itself."""
    for q in range(1, margin):
        row.batch.near(s - math.cos(q * math.pi / margin))
    angle = math.acos(max(-1.0, min(1.0, s)))
    k = min(math.floor(angle * margin / math.pi), margin - 1)
    psi = (-1) ** k * math.cos(margin * angle) - 2 * k
    return (annealing * s + psi) / (1 + annealing)


def _angular(row: Row, margin: int, scale: float, annealing: float, is_unit: bool):
    """Yield the term of a row: own angle multiplied, lengths kept but for unit w."""
    if not row.exists:
        return
    x, logits = row.batch.embeddings[row.i], []
    for c, w in enumerate(row.batch.proxies or []):
        s = 1 - distance(x, w, "cosine")
        if c == row.label:
            s = _psi(row, s, margin, annealing)
        lengths = [norm(x)] if is_unit else [norm(x), norm(w)]
        short = any(length <= 1e-6 for length in lengths)
        logits.append(0.0 if short else scale * s * math.prod(lengths))
    yield _cross_entropy(logits[row.label], _others(row, logits))


# The lengths of rows matter, so that these do not have the symmetries of the cosine.
@oracle(
    "sphereface_loss",
    hyper={"scale": Hyper(1.0, 0.5, 2.0), "annealing": Hyper(0.0, 0.5, 5.0)},
    flags={"margin": (4, 3)},
    distance="dot",
    has_proxies=True,
    logit_scale=lambda hyper: 4 * hyper["scale"],
)
def sphereface_loss(row: Row, margin, scale, annealing):
    """Cross-entropy over |x| cos, the own angle multiplied."""
    return list(_angular(row, margin, scale, annealing, is_unit=True))


@oracle(
    "large_margin_softmax_loss",
    hyper={"scale": Hyper(1.0, 0.5, 2.0), "annealing": Hyper(0.0, 0.5, 5.0)},
    flags={"margin": (4, 3)},
    distance="dot",
    has_proxies=True,
    logit_scale=lambda hyper: 4 * hyper["scale"],
)
def large_margin_softmax_loss(row: Row, margin, scale, annealing):
    """Cross-entropy over inner products, the own angle multiplied."""
    return list(_angular(row, margin, scale, annealing, is_unit=False))
