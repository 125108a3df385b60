"""Oracles of the losses over queries and keys that belong together row by row.

The embeddings of the batch are the queries, its references the keys.
"""

from oracle_registry import Hyper, oracle
from oracle_rows import Batch, Row, logsumexp, softplus


def _has_pair(batch: Batch, i: int) -> bool:
    return batch.where[i] and batch.ref_where[i]


def _other_keys(batch: Batch, i: int) -> list[int]:
    """Return the keys that are negatives of query i: existing, of another label."""
    return [
        j
        for j in range(len(batch.refs))
        if batch.ref_where[j] and j != i and batch.labels[i] != batch.ref_labels[j]
    ]


def _other_queries(batch: Batch, i: int) -> list[int]:
    """Return the queries that are negatives of key i."""
    return [
        j
        for j in range(len(batch.embeddings))
        if batch.where[j] and j != i and batch.labels[j] != batch.ref_labels[i]
    ]


def _s(batch: Batch, query: int, key: int) -> float:
    d = batch.d(query, key)
    return 1 - d if batch.distance == "cosine" else -d


@oracle(
    "info_nce_loss",
    hyper={"temperature": Hyper(0.07, 0.3, 1.0)},
    flags={"symmetric": (False, True)},
    distance="cosine",
    is_paired=True,
    logit_scale=lambda hyper: 1 / hyper["temperature"],
)
def info_nce_loss(row: Row, temperature, symmetric):
    """A softmax over the keys, and one over the queries if it is symmetric."""
    batch, i = row.batch, row.i
    if not _has_pair(batch, i):
        return []
    own = _s(batch, i, i) / temperature
    keys = [_s(batch, i, j) / temperature for j in _other_keys(batch, i)]
    if not symmetric:
        term = softplus(logsumexp(keys) - own) if keys else None
    else:
        queries = [_s(batch, j, i) / temperature for j in _other_queries(batch, i)]
        if not keys and not queries:
            return []
        term = (logsumexp([*keys, own]) + logsumexp([*queries, own])) / 2 - own
    if term is None:
        return []
    batch.near(term)
    return [term]


@oracle(
    "sigmoid_contrastive_loss",
    hyper={"scale": Hyper(10.0, 1.0, 6.0), "bias": Hyper(-10.0, -4.0, 1.0)},
    distance="cosine",
    is_paired=True,
    logit_scale=lambda hyper: hyper["scale"],
)
def sigmoid_contrastive_loss(row: Row, scale, bias):
    """A binary decision about every key."""
    batch, i = row.batch, row.i
    if not _has_pair(batch, i):
        return []
    terms = [softplus(-(scale * _s(batch, i, i) + bias))]
    terms += [softplus(scale * _s(batch, i, j) + bias) for j in _other_keys(batch, i)]
    return [sum(terms)]


@oracle(
    "cross_modal_triplet_loss",
    hyper={"margin": Hyper(0.2, 0.1, 1.0)},
    flags={"hardest": (True, False)},
    distance="cosine",
    is_paired=True,
    per_anchor=("margin",),
)
def cross_modal_triplet_loss(row: Row, margin, hardest):
    """Hinges of query i over the keys, and of key i over the queries."""
    batch, i = row.batch, row.i
    if not _has_pair(batch, i):
        return []
    own, terms = batch.d(i, i), []
    for others, d in (
        (_other_keys(batch, i), lambda j: batch.d(i, j)),
        (_other_queries(batch, i), lambda j: batch.d(j, i)),
    ):
        chosen = [batch.argmin(others, d)] if hardest and others else others
        terms += [batch.hinge((own + margin) - d(j)) for j in chosen]
    return terms
