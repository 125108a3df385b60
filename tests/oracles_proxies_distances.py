"""Oracles of the losses over distances to proxies."""

import math

from oracle_registry import Hyper, oracle
from oracle_rows import Row, distance, logsumexp, softplus


@oracle(
    "proxy_nca_loss",
    hyper={"scale": Hyper(1.0, 0.5, 2.0)},
    flags={"exclude_positive": (False, True)},
    distance="sqeuclidean",
    has_proxies=True,
    logit_scale=lambda hyper: hyper["scale"],
)
def proxy_nca_loss(row: Row, scale, exclude_positive):
    """Softmax over distances to all proxies, the own one in the sum or not."""
    if not row.exists:
        return []
    batch, proxies = row.batch, row.batch.proxies or []
    x, name = batch.embeddings[row.i], batch.distance
    d = [distance(x, w, name) for w in proxies]
    # Their differences are rounded as they are.
    batch.magnitude = max(batch.magnitude, *map(abs, d))
    if name == "euclidean":
        batch.near(min(d))
    for w in proxies if name == "manhattan" else []:
        batch.near(min(abs(a - b) for a, b in zip(x, w, strict=True)))
    others = [scale * (d[row.label] - v) for c, v in enumerate(d) if c != row.label]
    if not others:
        return [0.0]
    gap = logsumexp(others)
    if gap < -80 or abs(gap) < 1e-6 * batch.magnitude:
        batch.near(0.0)  # rounding decides whether the term is above 0
    return [gap if exclude_positive else softplus(gap)]


@oracle(
    "center_loss",
    hyper={},
    flags={"stop_centers": (False, True)},
    distance="sqeuclidean",
    has_proxies=True,
)
def center_loss(row: Row, stop_centers):
    """Half the squared distance to the own centre, which may be held fixed."""
    if not row.exists:
        return []
    x, center = row.batch.embeddings[row.i], (row.batch.proxies or [])[row.label]
    if stop_centers:
        center = [
            row.batch.frozen((row.label, k), value) for k, value in enumerate(center)
        ]
    return [math.fsum((a - b) * (a - b) for a, b in zip(x, center, strict=True)) / 2]
