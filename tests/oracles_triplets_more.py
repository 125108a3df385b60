"""Oracles of the triplet losses with a formula beyond a hinge of two distances."""

import math
from typing import Any

from oracle_registry import Hyper, oracle
from oracle_rows import Batch, Row, distance, logsumexp, softplus


@oracle(
    "margin_loss",
    hyper={
        "margin": Hyper(0.2, 0.1, 1.0),
        "beta": Hyper(1.2, 0.8, 2.0),
        "nu": Hyper(0.0, 0.1, 0.5),
    },
    scales=1,
    scales_with=("margin", "beta"),
    # One of two terms pulls or pushes; both together are a triplet.
    bound=math.sqrt(6) / 2,
    per_anchor=("margin",),
    # The cost of the boundary is added to this mean after the reduction.
    own_reductions=("mean_active",),
)
def margin_loss(row: Row, margin, beta, nu):
    """Both sides of every valid triplet; each term carries the cost of the boundary."""
    terms = []
    for p in row.positives:
        for n in row.negatives:
            terms.append(row.hinge((row.d(p) + margin) - beta))
            terms.append(row.hinge((beta + margin) - row.d(n)))
    total = math.fsum(terms) + nu * beta * len(terms)
    return total, len(terms), sum(t > 0 for t in terms)


@oracle(
    "lossless_triplet_loss",
    hyper={
        "max_distance": Hyper(None, 4.0, 8.0),
        "beta": Hyper(None, 6.0, 12.0),
        "epsilon": Hyper(1e-8, 0.3, 0.6),
    },
    distance="sqeuclidean",
)
def lossless_triplet_loss(row: Row, max_distance, beta, epsilon):
    """The logarithms of every valid triplet, cut off at epsilon."""
    if max_distance is None:
        max_distance = len(row.batch.embeddings[0])
    if beta is None:
        beta = max_distance

    def cost(u: float) -> float:
        row.batch.near(u - epsilon)
        return -math.log(max(u, epsilon))

    return [
        cost(1 - row.d(p) / beta) + cost((beta - max_distance + row.d(n)) / beta)
        for p in row.positives
        for n in row.negatives
    ]


@oracle(
    "equidistant_triplet_loss",
    hyper={
        "margin": Hyper(0.3, 0.1, 1.0),
        "equidistant_weight": Hyper(1.0, 0.5, 2.0),
        "equidistributed_weight": Hyper(0.0, 0.2, 1.0),
    },
    # Two hinges and a difference: each of the three rows is pulled at most four times.
    bound=4 * math.sqrt(3),
    per_anchor=("margin",),
)
def equidistant_triplet_loss(
    row: Row, margin, equidistant_weight, equidistributed_weight
):
    """The hardest pair, from both ends of the positive, and where its negative is."""
    batch = row.batch
    if not row.has_both:
        return []
    p = batch.argmax(row.positives, row.d)
    n = batch.argmin(row.negatives, row.d)
    d_ip, d_in, d_pn = row.d(p), row.d(n), _between(batch, p, n)
    terms = [row.hinge((d_ip + margin) - d_in), row.hinge((d_ip + margin) - d_pn)]
    terms.append(equidistant_weight * abs(batch.near(d_in - d_pn)))
    if equidistributed_weight:
        others = [k for k in range(len(batch.refs)) if _is_negative(batch, n, k)]
        uneven = 0.0
        if others:
            k = batch.argmin(others, lambda k: _between(batch, n, k))
            uneven = d_in - _between(batch, n, k)
            if not (batch.is_self and k == row.i):
                batch.near(uneven)
        spread = math.exp(-d_in) + abs(uneven)
        terms.append(equidistributed_weight * spread)
    return [math.fsum(terms)]


def _between(batch: Batch, j: int, k: int) -> float:
    """Return the distance of two references, which has a kink where they meet."""
    d = distance(batch.refs[j], batch.refs[k], batch.distance)
    batch.magnitude = max(batch.magnitude, abs(d))
    if batch.distance == "euclidean":
        batch.near(d)
    if batch.distance == "manhattan":
        pairs = zip(batch.refs[j], batch.refs[k], strict=True)
        batch.near(min(abs(a - b) for a, b in pairs))
    return d


def _is_negative(batch: Batch, j: int, k: int) -> bool:
    """Return whether reference k is a negative of reference j."""
    ids = batch.ref_ids
    return (
        batch.ref_where[k]
        and batch.ref_labels[j] != batch.ref_labels[k]
        and (ids is None or ids[j] != ids[k])
    )


@oracle(
    "coupled_clusters_loss",
    hyper={"margin": Hyper(1.0, 0.5, 2.0)},
    flags={"stop_centers": (False, True)},
    distance="sqeuclidean",
    per_anchor=("margin",),
)
def coupled_clusters_loss(row: Row, margin, stop_centers):
    """Each row and the nearest negative of its class's mean, around that mean."""
    batch = row.batch
    if not row.has_both:
        return []
    members = [
        r
        for r, y, exists in zip(
            batch.refs, batch.ref_labels, batch.ref_where, strict=True
        )
        if exists and y == row.label
    ]
    mean = [math.fsum(column) / len(members) for column in zip(*members, strict=True)]
    if stop_centers:
        mean = [batch.frozen((row.i, k), m) for k, m in enumerate(mean)]

    def from_mean(j: int) -> float:
        return distance(batch.refs[j], mean, "sqeuclidean")

    pull = distance(batch.embeddings[row.i], mean, "sqeuclidean")
    push = from_mean(batch.argmin(row.negatives, from_mean))
    batch.magnitude = max(batch.magnitude, pull, push)
    return [row.hinge((pull + margin) - push) / 2]


def _squared_tangent(alpha: float) -> float:
    return math.tan(math.radians(alpha)) ** 2


@oracle(
    "angular_loss",
    hyper={"alpha": Hyper(45.0, 30.0, 55.0)},
    distance=None,
    logit_scale=lambda hyper: 4 * _squared_tangent(hyper["alpha"]),
)
def angular_loss(row: Row, alpha):
    """All negatives of each positive pair in one logarithm."""
    slope = _squared_tangent(alpha)
    if not row.has_both:
        return []
    terms = []
    for p in row.positives:
        exponents = [
            4 * slope * (row.s(n) + 1 - _between(row.batch, p, n))
            - 2 * (1 + slope) * row.s(p)
            for n in row.negatives
        ]
        terms.append(softplus(logsumexp(exponents)))
    return terms


@oracle(
    "dynamic_soft_margin_loss",
    hyper={"min_value": Hyper(-2.0, -4.0, -1.0)},
    flags={
        "num_bins": (10, 16),
        # Without a histogram of the batches before, the momentum has no effect.
        "momentum": (0.01, 0.01),
        "histogram": (None, (0.3, 0.0, 0.1, 0.1, 0.0, 0.2, 0.1, 0.1, 0.05, 0.05)),
        # What it returns is tested beside the loss.
        "return_histogram": (False, False),
    },
    has_frozen_factors=True,
    is_additive=False,
)
def dynamic_soft_margin_loss(
    row: Row, min_value, num_bins, momentum, histogram, return_histogram
):
    """Every triplet's violation times the share of violations up to its bin."""
    assert not return_histogram
    batch = row.batch
    options = (min_value, num_bins, momentum, histogram)
    terms = []
    for p in row.positives:
        for n in row.negatives:
            v = row.d(p) - row.d(n)
            place = _place(batch, v, min_value, num_bins)
            density = violation_histogram(batch, *options)
            weight = math.fsum(density[: min(int(place), num_bins - 1) + 1])
            terms.append(batch.frozen((row.i, p, n), weight) * v)
            batch.near(terms[-1])
    return terms


def violation_histogram(
    batch: Batch, min_value: float, num_bins: int, momentum: float, before: Any
) -> list[float]:
    """Return the histogram of the violations of all triplets, mixed with the former."""
    key: Any = (min_value, num_bins, momentum)
    if key in batch.cache:
        return batch.cache[key]  # pyright: ignore (a list)
    counts = [0.0] * num_bins
    for i in range(len(batch.embeddings)):
        row = Row(batch, i)
        for p in row.positives:
            for n in row.negatives:
                place = _place(batch, row.d(p) - row.d(n), min_value, num_bins)
                first = min(int(place), num_bins - 1)
                counts[first] += 1 - (place - first)
                counts[min(first + 1, num_bins - 1)] += place - first
    if before is not None and math.fsum(before) > 0:
        pairs = zip(before, counts, strict=True)
        counts = [(1 - momentum) * old + momentum * new for old, new in pairs]
    total = math.fsum(counts)
    result = [c / total for c in counts] if total > 0 else counts
    batch.cache[key] = result  # pyright: ignore (a list)
    return result


def _place(batch: Batch, v: float, min_value: float, num_bins: int) -> float:
    """Return where a violation lies, in bins from the first; ends are the limits."""
    width = -2 * min_value / num_bins
    place = (v - min_value) / width
    batch.near((place - round(place)) * width)
    return min(max(place, 0.0), float(num_bins))
