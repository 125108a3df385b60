"""Oracles of the further softmaxes over references: tuplets and neighbours."""

import math

from oracle_registry import Hyper, oracle
from oracle_rows import Batch, Row, logsumexp, softplus


def _active(row: Row, term: float) -> list[float]:
    """Return the one term of a row; it has a kink where it underflows to 0."""
    row.batch.near(term)
    return [term]


@oracle(
    "n_pairs_loss",
    hyper={"l2_weight": Hyper(0.0, 0.1, 1.0)},
    distance="dot",
    order_free=False,
)
def n_pairs_loss(row: Row, l2_weight):
    """The first row of each class, against the second rows of all classes."""
    batch, i = row.batch, row.i
    pairs = _class_pairs(batch)
    if i not in pairs:
        return []
    p = pairs[i]
    if batch.is_self:
        columns = set(pairs.values())
    else:
        existing = [j for j in range(len(batch.refs)) if batch.ref_where[j]]
        firsts = {batch.ref_labels[j]: j for j in reversed(existing)}
        columns = set(firsts.values())
    negatives = [j for j in row.negatives if j in columns]
    if not negatives:
        return []
    term = softplus(logsumexp([row.s(j) for j in negatives]) - row.s(p))
    norms = math.fsum(a * a for x in (batch.embeddings[i], batch.refs[p]) for a in x)
    return _active(row, term + l2_weight / 4 * norms)


def _class_pairs(batch: Batch) -> dict[int, int]:
    """Return the positive of each row that is the anchor of a class."""
    existing = [i for i in range(len(batch.embeddings)) if batch.where[i]]
    pairs: dict[int, int] = {}
    if batch.is_self:
        for label in {batch.labels[i] for i in existing}:
            rows = [i for i in existing if batch.labels[i] == label]
            others = [j for j in rows if not batch.same_sample(rows[0], j)]
            if others:
                pairs[rows[0]] = others[0]
        return pairs
    for i in existing:
        positives = batch.partners(i, same_class=True)
        if positives and positives[0] not in pairs.values():
            pairs[i] = positives[0]
    return pairs


@oracle(
    "tuplet_margin_loss",
    hyper={"margin": Hyper(0.1, 0.05, 0.5), "scale": Hyper(64.0, 2.0, 8.0)},
    distance="cosine",
    per_anchor=("margin",),
    logit_scale=lambda hyper: hyper["scale"],
)
def tuplet_margin_loss(row: Row, margin, scale):
    """The angle of each positive less the margin, against the negatives."""
    if not row.has_both:
        return []
    negatives = logsumexp([scale * row.s(n) for n in row.negatives])
    terms = []
    for p in row.positives:
        # Where two rows meet (or oppose each other), their angle has a kink.
        row.batch.near(row.d(p))
        row.batch.near(2 - row.d(p))
        angle = 2 * math.asin(min(1.0, math.sqrt(row.d(p) / 2)))
        term = softplus(negatives - scale * math.cos(angle - margin))
        terms += _active(row, term)
    return terms


@oracle(
    "nca_loss",
    hyper={"scale": Hyper(1.0, 0.5, 2.0)},
    distance="sqeuclidean",
    logit_scale=lambda hyper: hyper["scale"],
)
def nca_loss(row: Row, scale):
    """Minus the log of the probability to draw a positive."""
    if not row.has_both:
        return []
    positives = logsumexp([-scale * row.d(p) for p in row.positives])
    negatives = logsumexp([-scale * row.d(n) for n in row.negatives])
    return _active(row, softplus(negatives - positives))


@oracle(
    "instance_loss",
    hyper={"gamma": Hyper(64.0, 1.0, 6.0)},
    distance="cosine",
    has_self=True,
    logit_scale=lambda hyper: hyper["gamma"],
)
def instance_loss(row: Row, gamma):
    """The own class, in self mode with the row itself at similarity 1."""
    own = [gamma * row.s(p) for p in row.positives]
    if row.batch.is_self:
        own.append(gamma)
    if not own or not row.negatives:
        return []
    negatives = logsumexp([gamma * row.s(n) for n in row.negatives])
    return _active(row, softplus(negatives - logsumexp(own)))
