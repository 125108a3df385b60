"""Oracles of the losses over pairs that weigh them, or look at their distributions."""

import math

from oracle_registry import Hyper, oracle
from oracle_rows import MIN_NORM, Batch, Row, is_list, logsumexp, softplus


def log_one_plus_sum(values: list[float]) -> float:
    """Return log(1 + sum(exp(v))), 0 for an empty list."""
    return softplus(logsumexp(values)) if values else 0.0


def mean(values: list[float]) -> float:
    """Return the mean, 0 for an empty list."""
    return math.fsum(values) / len(values) if values else 0.0


def rows_of(batch: Batch) -> list[Row]:
    """Return every anchor of a batch."""
    return [Row(batch, i) for i in range(len(batch.embeddings))]


def weighted_mean(pairs: list[tuple[float, float]]) -> float:
    """Return the mean of (weight, value) pairs, 0 where the weights are."""
    total = math.fsum(w for w, _ in pairs)
    return math.fsum(w * v for w, v in pairs) / total if total > 0 else 0.0


@oracle(
    "cosine_embedding_loss",
    hyper={"margin": Hyper(0.0, -0.5, 0.5)},
    distance="cosine",
    per_anchor=("margin",),
)
def cosine_embedding_loss(row: Row, margin):
    """Positives cost what they lack of 1, negatives what they exceed the margin."""
    pull = [row.batch.near(row.d(p)) for p in row.positives]
    return pull + [row.hinge(row.s(n) - margin) for n in row.negatives]


@oracle(
    "lifted_structure_loss",
    hyper={
        "margin": Hyper(1.0, 0.5, 2.0),
        "positive_margin": Hyper(0.0, 0.1, 0.5),
    },
    per_anchor=("margin", "positive_margin"),
    is_additive=False,
)
def lifted_structure_loss(row: Row, margin, positive_margin):
    """Every positive pair against the negatives of both ends, in one list."""
    batch, terms = row.batch, []
    for p in row.positives:
        exponents = [margin - row.d(n) for n in row.negatives]
        if batch.is_self:
            other = Row(batch, p)
            exponents += [margin - other.d(n) for n in other.negatives]
        if exponents:
            v = row.hinge(logsumexp(exponents) + row.d(p) - positive_margin)
            terms.append(v * v / 2)
    return terms


@oracle(
    "generalized_lifted_structure_loss",
    hyper={
        "margin": Hyper(1.0, 0.5, 2.0),
        "positive_margin": Hyper(0.0, 0.1, 0.5),
    },
    per_anchor=("margin", "positive_margin"),
)
def generalized_lifted_structure_loss(row: Row, margin, positive_margin):
    """A hinge of a soft maximum plus a soft maximum."""
    if not row.has_both:
        return []
    pull = logsumexp([row.d(p) - positive_margin for p in row.positives])
    push = logsumexp([margin - row.d(n) for n in row.negatives])
    return [row.hinge(pull + push)]


@oracle(
    "multi_similarity_loss",
    hyper={
        "alpha": Hyper(2.0, 1.0, 4.0),
        "beta": Hyper(50.0, 5.0, 20.0),
        "base": Hyper(0.5, 0.0, 1.0),
    },
    distance="cosine",
    per_anchor=("base",),
    logit_scale=lambda hyper: max(hyper["alpha"], hyper["beta"]),
)
def multi_similarity_loss(row: Row, alpha, beta, base):
    """Either side counts by itself."""
    if not (row.positives or row.negatives):
        return []
    pull = log_one_plus_sum([alpha * (base - row.s(p)) for p in row.positives])
    push = log_one_plus_sum([beta * (row.s(n) - base) for n in row.negatives])
    return [pull / alpha + push / beta]


@oracle(
    "circle_loss",
    hyper={"m": Hyper(0.4, 0.1, 0.5), "gamma": Hyper(80.0, 2.0, 8.0)},
    distance="cosine",
    has_frozen_factors=True,
    per_anchor=("m",),
    # A similarity stands in the weight too, which is at most 2 + m.
    logit_scale=lambda hyper: hyper["gamma"] * (2 + hyper["m"]),
)
def circle_loss(row: Row, m, gamma):
    """The weights are factors without gradient."""
    if not row.has_both:
        return []

    def weight(j: int, v: float) -> float:
        return row.batch.frozen((row.i, j), row.hinge(v))

    pull = [
        -gamma * weight(p, 1 + m - row.s(p)) * (row.s(p) - (1 - m))
        for p in row.positives
    ]
    push = [gamma * weight(n, row.s(n) + m) * (row.s(n) - m) for n in row.negatives]
    return [softplus(logsumexp(pull) + logsumexp(push))]


@oracle(
    "intra_pair_variance_loss",
    hyper={
        "positive_epsilon": Hyper(0.01, 0.02, 0.2),
        "negative_epsilon": Hyper(0.01, 0.02, 0.2),
    },
    distance="cosine",
    reduction=None,
    is_scalar=True,
)
def intra_pair_variance_loss(batch: Batch, positive_epsilon, negative_epsilon):
    """Squares beyond a slack around the mean, of similarities or of distances."""
    w, rows = batch.weights, rows_of(batch)
    kinds = [[(w[r.i], r, p) for r in rows for p in r.positives]]
    kinds.append([(w[r.i], r, n) for r in rows for n in r.negatives])
    if not any(kinds):
        return None
    is_similarity = batch.distance in ("cosine", "dot")
    total = 0.0
    slacks = (-positive_epsilon, negative_epsilon)
    for kind, slack, sign in zip(kinds, slacks, (1, -1), strict=True):
        if is_similarity:
            found = [(a, r.s(j)) for a, r, j in kind]
            bound = (1 + slack) * weighted_mean(found)
            squares = [(a, batch.hinge(sign * (bound - s)) ** 2) for a, s in found]
        else:
            found = [(a, r.d(j)) for a, r, j in kind]
            bound = (1 - slack) * weighted_mean(found)
            squares = [(a, batch.hinge(sign * (d - bound)) ** 2) for a, d in found]
        total += weighted_mean(squares)
    return total


def centred(x: list[float]) -> list[float]:
    """Return a row without the mean of its coordinates."""
    return [a - math.fsum(x) / len(x) for a in x]


@oracle(
    "snr_contrastive_loss",
    hyper={
        "margin": Hyper(1.0, 0.5, 4.0),
        "positive_margin": Hyper(0.0, 0.1, 0.5),
        "zero_mean_weight": Hyper(0.0, 0.1, 1.0),
    },
    # Of its own kind: neither a rotation nor an offset of all rows keeps it.
    distance="snr",
    per_anchor=("margin", "positive_margin"),
    # The regulariser is added to this mean after the reduction.
    own_reductions=("mean_active",),
)
def snr_contrastive_loss(row: Row, margin, positive_margin, zero_mean_weight):
    """Variance of the difference over the variance of the anchor, and its offset."""
    batch, x = row.batch, row.batch.embeddings[row.i]
    signal = math.fsum(a * a for a in centred(x))
    if math.sqrt(signal) <= MIN_NORM or not row.exists:
        return []

    def ratio(j: int) -> float:
        difference = [a - b for a, b in zip(x, batch.refs[j], strict=True)]
        d = math.fsum(a * a for a in centred(difference)) / signal
        batch.magnitude = max(batch.magnitude, d)
        return d

    penalty = zero_mean_weight * abs(row.batch.near(math.fsum(x)))
    pull = [row.hinge(ratio(p) - positive_margin) for p in row.positives]
    push = [row.hinge(margin - ratio(n)) for n in row.negatives]
    terms = pull + push
    total = math.fsum(terms) + penalty * len(terms)
    return total, len(terms), sum(v > 0 for v in terms)


@oracle(
    "ranked_list_loss",
    hyper={
        "margin": Hyper(0.4, 0.2, 0.6),
        "alpha": Hyper(None, 0.8, 1.6),
        "imbalance": Hyper(0.5, 0.2, 0.8),
        "positive_temperature": Hyper(0.0, 0.5, 2.0),
        "negative_temperature": Hyper(10.0, 1.0, 5.0),
    },
    per_anchor=("margin", "alpha"),
)
def ranked_list_loss(
    row: Row, margin, alpha, imbalance, positive_temperature, negative_temperature
):
    """Both sides' violations, averaged with the larger ones weighing more."""
    if not (row.positives or row.negatives):
        return []
    alpha = 1 + margin / 2 if alpha is None else alpha

    def side(values: list[float], temperature: float) -> float:
        violations = [v for v in values if row.batch.near(v) > 0]
        weights = [math.exp(temperature * v) for v in violations]
        return weighted_mean(list(zip(weights, violations, strict=True)))

    pull = side(
        [row.d(p) - (alpha - margin) for p in row.positives], positive_temperature
    )
    push = side([alpha - row.d(n) for n in row.negatives], negative_temperature)
    return [(1 - imbalance) * pull + imbalance * push]


@oracle(
    "threshold_consistent_margin_loss",
    hyper={
        "positive_weight": Hyper(1.0, 0.5, 2.0),
        "negative_weight": Hyper(1.0, 0.5, 2.0),
        "positive_margin": Hyper(0.9, 0.3, 0.9),
        "negative_margin": Hyper(0.5, -0.5, 0.5),
    },
    distance="cosine",
    reduction=None,
    is_scalar=True,
    per_anchor=("positive_margin", "negative_margin"),
)
def threshold_consistent_margin_loss(
    batch: Batch, positive_weight, negative_weight, positive_margin, negative_margin
):
    """Only the pairs within their margin are averaged."""
    lacks, excesses, is_empty = [], [], True
    for row in rows_of(batch):
        weight = batch.weights[row.i]
        margins = [
            m[row.i] if is_list(m) else m for m in (positive_margin, negative_margin)
        ]
        lacks += [(weight, batch.near(margins[0] - row.s(p))) for p in row.positives]
        excesses += [(weight, batch.near(row.s(n) - margins[1])) for n in row.negatives]
        is_empty &= not (row.positives or row.negatives)
    if is_empty:
        return None
    sides = [[(w, v) for w, v in side if v >= 0] for side in (lacks, excesses)]
    return positive_weight * weighted_mean(sides[0]) + negative_weight * weighted_mean(
        sides[1]
    )


@oracle(
    "histogram_loss",
    hyper={},
    flags={"num_bins": (100, 7)},
    distance="cosine",
    reduction=None,
    is_scalar=True,
    logit_scale=lambda hyper: 50.0,
)
def histogram_loss(batch: Batch, num_bins):
    """Triangles around the nodes; unordered pairs where the batch is both sides."""
    width, kinds = 2 / num_bins, []
    for same_class in (True, False):
        kind = []
        for row in rows_of(batch):
            for j in row.positives if same_class else row.negatives:
                if not batch.is_self:
                    kind.append((batch.weights[row.i], row.s(j)))
                elif j > row.i:
                    # Each end as often as it counts.
                    weight = batch.weights[row.i] + batch.weights[j]
                    kind.append((weight, row.s(j)))
        kinds.append(kind)
    if not all(sum(weight for weight, _ in kind) > 0 for kind in kinds):
        return None
    for _, s in kinds[0] + kinds[1]:
        place = (s + 1) / width
        batch.near(place - round(place))
    nodes = [-1 + r * width for r in range(num_bins + 1)]
    densities = [
        [
            weighted_mean([(w, max(0.0, 1 - abs(s - t) / width)) for w, s in kind])
            for t in nodes
        ]
        for kind in kinds
    ]
    loss, below = [], 0.0
    for positive, negative in zip(*densities, strict=True):
        below += positive
        loss.append(negative * below)
    return math.fsum(loss)
