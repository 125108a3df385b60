"""The oracle of the loss that compares random walks."""

import math

from oracle_registry import Hyper, oracle
from oracle_rows import Batch, distance, logsumexp, softplus, unit


def _inverse(a: list[list[float]]) -> list[list[float]]:
    """Return the inverse of a matrix by elimination, pivots by size."""
    n = len(a)
    rows = [[*row, *(float(i == j) for j in range(n))] for i, row in enumerate(a)]
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [v / rows[k][k] for v in rows[k]]
        for i in range(n):
            if i != k and rows[i][k]:
                factor = rows[i][k]
                rows[i] = [
                    v - factor * w for v, w in zip(rows[i], rows[k], strict=True)
                ]
    return [row[n:] for row in rows]


def _walks(nodes: list[list[float]], alpha: float) -> list[list[float]]:
    """Return (1 - alpha) (I - alpha S)^-1 of the normalised graph of some rows."""
    n = len(nodes)

    def edge(i: int, j: int) -> float:
        if i == j:
            return 0.0
        return math.exp(2 * max(0.0, 1 - distance(nodes[i], nodes[j], "cosine")))

    s = [[edge(i, j) for j in range(n)] for i in range(n)]
    degree = [math.fsum(row) or 1.0 for row in s]
    normal = [
        [s[i][j] / math.sqrt(degree[i] * degree[j]) for j in range(n)] for i in range(n)
    ]
    system = [[(i == j) - alpha * normal[i][j] for j in range(n)] for i in range(n)]
    return [[(1 - alpha) * v for v in row] for row in _inverse(system)]


@oracle(
    "manifold_loss",
    hyper={
        "alpha": Hyper(0.8, 0.5, 0.9),
        "margin": Hyper(5e-4, 0.01, 0.1),
        "context_weight": Hyper(1.0, 0.5, 2.0),
    },
    distance=None,
    reduction=None,
    is_scalar=True,
    has_proxies=True,
)
def manifold_loss(batch: Batch, alpha, margin, context_weight):
    """Which proxies a walk from an embedding reaches more easily than its own."""
    rows = [i for i, exists in enumerate(batch.where) if exists]
    weights = [batch.weights[i] for i in rows]
    proxies = batch.proxies or []
    if not any(weights) or len(proxies) < 2:
        return None
    for i in rows:
        for w in proxies:
            batch.near(1 - distance(batch.embeddings[i], w, "cosine"))
        for j in rows:
            if i < j:
                x, y = batch.embeddings[i], batch.embeddings[j]
                batch.near(1 - distance(x, y, "cosine"))
    f = _walks([*(batch.embeddings[i] for i in rows), *proxies], alpha)
    walks, targets = f[: len(rows)], f[len(rows) :]

    def cosine(a: list[float], b: list[float]) -> float:
        return math.fsum(v * w for v, w in zip(unit(a), unit(b), strict=True))

    def exceeding(values: list[float], own: int) -> float:
        u = [batch.near(v - values[own] + margin) for v in values]
        above = [v for c, v in enumerate(u) if c != own and v >= 0]
        return softplus(logsumexp(above)) if above else 0.0

    terms = []
    for i, walk in zip(rows, walks, strict=True):
        own = batch.labels[i]
        intrinsic = exceeding(walk[len(rows) :], own)
        context = exceeding([cosine(walk, target) for target in targets], own)
        terms.append(intrinsic + context_weight * context)
    total = math.fsum(w * t for w, t in zip(weights, terms, strict=True))
    return total / math.fsum(weights)
