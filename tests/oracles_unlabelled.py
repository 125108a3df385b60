"""Oracles of losses without labels and of regularizers, as loops over Python floats.

Each takes lists, with a list of bools that says which rows exist, and returns the
value under the default reduction.
"""

import math

from oracle_rows import distance, norm

Rows = list[list[float]]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def vicreg_loss(x: Rows, y: Rows, where: list[bool], weights: tuple, epsilon: float):
    """Invariance, variance and covariance of two views."""
    x, y = ([r for r, e in zip(side, where, strict=True) if e] for side in (x, y))
    if not x:
        return 0.0
    dim = len(x[0])
    pairs = zip(x, y, strict=True)
    squares = [distance(a, b, "sqeuclidean") / dim for a, b in pairs]
    loss = weights[0] * _mean(squares)
    if len(x) == 1:
        return loss
    for side in (x, y):
        columns = list(zip(*side, strict=True))
        centred = [[v - _mean(list(column)) for v in column] for column in columns]

        def covariance(a: int, b: int, centred=centred) -> float:
            products = zip(centred[a], centred[b], strict=True)
            return math.fsum(v * w for v, w in products) / (len(centred[a]) - 1)

        lack = [max(0.0, 1 - math.sqrt(covariance(d, d) + epsilon)) for d in range(dim)]
        crossed = [
            covariance(a, b) ** 2 for a in range(dim) for b in range(dim) if a != b
        ]
        loss += weights[1] / 2 * _mean(lack) + weights[2] * math.fsum(crossed) / dim
    return loss


def shrinkage_terms(
    predictions: list[float],
    targets: list[float],
    a: float,
    c: float,
    target_weight: bool,
) -> list[float]:
    """Weighted squared errors of one row."""
    terms = []
    for prediction, target in zip(predictions, targets, strict=True):
        error = abs(prediction - target)
        factor = math.exp(target) if target_weight else 1.0
        terms.append(factor * error**2 / (1 + math.exp(a * (c - error))))
    return terms


def lp(x: list[float], p: float, power: float) -> float:
    """A power of the p-norm of a row."""
    if p == math.inf:
        return max(abs(v) for v in x) ** power
    return math.fsum(abs(v) ** p for v in x) ** (power / p)


def zero_mean(x: list[float]) -> float:
    """Absolute value of the sum of a row."""
    return abs(math.fsum(x))


def center_invariant(proxies: Rows) -> list[float]:
    """Squared deviations of the squared norms from their mean, a quarter of them."""
    squares = [norm(w) ** 2 for w in proxies]
    return [(v - _mean(squares)) ** 2 / 4 for v in squares]


def regular_face(proxies: Rows) -> list[float]:
    """Largest cosine of each proxy with another."""
    rows = range(len(proxies))

    def cosine(i: int, j: int) -> float:
        return 1 - distance(proxies[i], proxies[j], "cosine")

    if len(proxies) < 2:
        return []
    return [max(cosine(i, j) for j in rows if j != i) for i in rows]


def sparse_centers(centers: Rows) -> list[float]:
    """Half the distances of the directions of two centers of one class, both orders."""
    count = range(len(centers))
    return [
        math.sqrt(2 * distance(centers[k], centers[j], "cosine")) / 2
        for k in count
        for j in count
        if j != k
    ]
