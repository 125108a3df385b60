"""Oracles of the ranking losses."""

import math

from oracle_registry import Hyper, oracle
from oracle_rows import Row

_TEMPERATURE = Hyper(0.01, 0.1, 0.5)


def _sigmoid(v: float) -> float:
    if v >= 0:
        return 1 / (1 + math.exp(-v))
    return math.exp(v) / (1 + math.exp(v))


def _own_class(row: Row, include_self: bool) -> list[float]:
    """Return the similarities of the positives, with the row itself if it is one."""
    positives = [row.s(p) for p in row.positives]
    return positives + [1.0] * (include_self and row.batch.is_self)


@oracle(
    "smooth_ap_loss",
    hyper={"temperature": _TEMPERATURE},
    flags={"include_self": (True, False)},
    distance="cosine",
    has_self=True,
    logit_scale=lambda hyper: 1 / hyper["temperature"],
)
def smooth_ap_loss(row: Row, temperature, include_self):
    """One minus the mean of (rank among positives) / (rank among all)."""
    if not row.has_both:
        return []
    queries = _own_class(row, include_self)
    negatives = [row.s(n) for n in row.negatives]
    ratios = []
    for j, s in enumerate(queries):
        others = queries[:j] + queries[j + 1 :]
        among = 1 + math.fsum(_sigmoid((k - s) / temperature) for k in others)
        wrong = math.fsum(_sigmoid((k - s) / temperature) for k in negatives)
        ratios.append(among / (among + wrong))
    loss = 1 - math.fsum(ratios) / len(queries)
    # It is never 0, but underflows: how many terms are active is not told from that.
    row.batch.near(loss)
    return [loss]


@oracle(
    "pnp_loss",
    hyper={"temperature": _TEMPERATURE, "alpha": Hyper(8.0, 0.5, 3.0)},
    flags={
        "variant": ("Dq", "Ib"),
        "b": (2.0, 3.0),
        "include_self": (True, False),
    },
    distance="cosine",
    has_self=True,
    logit_scale=lambda hyper: 1 / hyper["temperature"],
)
def pnp_loss(row: Row, temperature, alpha, variant, b, include_self):
    """The mean over positives of a function of the negatives before them."""
    if not row.has_both:
        return []
    functions = {
        "O": lambda r: r,
        "Ds": lambda r: math.log1p(r),
        "Dq": lambda r: 1 - (1 + r) ** -alpha,
        "Iu": lambda r: (1 + r) * math.log1p(r),
        "Ib": lambda r: (b * r - math.log1p(b * r)) / b**2,
    }
    penalties = []
    queries = _own_class(row, include_self)
    for s in queries:
        before = [_sigmoid((row.s(n) - s) / temperature) for n in row.negatives]
        penalties.append(functions[variant](math.fsum(before)))
    loss = math.fsum(penalties) / len(queries)
    row.batch.near(loss)
    return [loss]


@oracle(
    "fast_ap_loss",
    hyper={},
    flags={"num_bins": (10, 7)},
    distance="cosine",
    # Bins per unit of a squared distance, which is what the histogram magnifies.
    logit_scale=lambda hyper: 10 / 4,
)
def fast_ap_loss(row: Row, num_bins):
    """One minus the average precision on a histogram of squared distances."""
    if not row.has_both:
        return []
    width = 4 / num_bins
    positives = [2 * row.d(p) for p in row.positives]
    negatives = [2 * row.d(n) for n in row.negatives]

    def count(squares: list[float], node: float) -> float:
        return math.fsum(
            max(row.batch.near(1 - abs(row.batch.near(d - node)) / width), 0.0)
            for d in squares
        )

    precision = above = total = 0.0
    for bin_ in range(num_bins + 1):
        node = bin_ * width
        found = count(positives, node)
        above += found
        total += found + count(negatives, node)
        precision += found * above / total if found > 0 else 0.0
    loss = 1 - precision / len(positives)
    # A perfect order is exactly 0, and this sum only nearly.
    return [loss if loss > 1e-12 else 0.0]
