"""Losses of sentence-transformers and TensorFlow Addons, by their published formulas.

Plain NumPy in float64, from the text of the libraries and nothing of jaxmetric: what
the migration page says of them is checked without installing either. They are written
the way they are published, so with the weaknesses that the page names.
"""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from numpy import ndarray


def names() -> dict:
    """Return what the calls of the page need besides the arrays."""
    losses = SimpleNamespace(
        contrastive_loss=tfa_contrastive,
        lifted_struct_loss=tfa_lifted,
        triplet_hard_loss=tfa_hard,
        triplet_semihard_loss=tfa_semi_hard,
    )
    ranking, symmetric = st_ranking, st_symmetric_ranking
    return {
        "model": None,
        "tfa": SimpleNamespace(losses=losses),
        "BatchAllTripletLoss": _of_model(st_batch_all),
        "BatchHardSoftMarginTripletLoss": _of_model(st_batch_hard_soft),
        "BatchHardTripletLoss": _of_model(st_batch_hard),
        "BatchSemiHardTripletLoss": _of_model(lambda x, y: tfa_semi_hard(y, x, 5.0)),
        "ContrastiveLoss": _of_model(st_contrastive),
        "MultipleNegativesRankingLoss": _of_model(ranking),
        "MultipleNegativesSymmetricRankingLoss": _of_model(symmetric),
        "TripletLoss": _of_model(st_triplet),
    }


def _of_model(function: Callable[..., float]) -> Callable:
    """Return a class-like call: their losses are made of a model."""
    return lambda model: function


def _euclidean(x: ndarray, y: ndarray) -> ndarray:
    return np.sqrt(np.sum((x[:, None] - y[None, :]) ** 2, axis=-1))


def _cosines(x: ndarray, y: ndarray) -> ndarray:
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return x @ y.T


def _distances(x: ndarray, metric: str) -> ndarray:
    if metric == "angular":
        return 1 - _cosines(x, x)
    return _euclidean(x, x) ** (2 if metric == "squared-L2" else 1)


def _kinds(y: ndarray) -> tuple[ndarray, ndarray]:
    same = y[:, None] == y[None, :]
    return same & ~np.eye(len(y), dtype=bool), ~same


# ---- sentence-transformers -----------------------------------------------------------


def st_ranking(x: ndarray, r: ndarray, scale: float = 20.0) -> float:
    """Cross-entropy of row i of the scaled cosines against i."""
    z = scale * _cosines(x, r)
    return float(np.mean(np.log(np.exp(z).sum(1)) - np.diag(z)))


def st_symmetric_ranking(x: ndarray, r: ndarray) -> float:
    """Half of both directions."""
    return (st_ranking(x, r) + st_ranking(r, x)) / 2


def st_triplet(a: ndarray, p: ndarray, n: ndarray, margin: float = 5.0) -> float:
    """Hinge on given triplets, plain mean."""
    d_ap, d_an = np.linalg.norm(a - p, axis=1), np.linalg.norm(a - n, axis=1)
    return float(np.maximum(d_ap - d_an + margin, 0).mean())


def st_batch_all(x: ndarray, y: ndarray, margin: float = 5.0) -> float:
    """All valid triplets, mean over those above 1e-16."""
    d = _euclidean(x, x)
    positive, negative = _kinds(y)
    terms = d[:, :, None] - d[:, None, :] + margin
    terms = np.maximum(terms * (positive[:, :, None] & negative[:, None, :]), 0)
    return float(terms.sum() / (np.sum(terms > 1e-16) + 1e-16))


def st_batch_hard(x: ndarray, y: ndarray, margin: float = 5.0) -> float:
    """Hardest positive and negative, mean over all rows."""
    return float(np.maximum(_hardest(x, y) + margin, 0).mean())


def st_batch_hard_soft(x: ndarray, y: ndarray) -> float:
    """The same with log(1 + exp(.))."""
    return float(np.log1p(np.exp(_hardest(x, y))).mean())


def _hardest(x: ndarray, y: ndarray) -> ndarray:
    d = _euclidean(x, x)
    positive, negative = _kinds(y)
    # Their way to leave out: multiply, and add the row's maximum where not negative.
    masked = d + d.max(1, keepdims=True) * ~negative
    return (d * positive).max(1) - masked.min(1)


def st_contrastive(x: ndarray, r: ndarray, s: ndarray, margin: float = 0.5) -> float:
    """Half squares of cosine distances, mean over pairs."""
    d = 1 - np.diag(_cosines(x, r))
    return float(np.mean(0.5 * np.where(s, d, np.maximum(margin - d, 0)) ** 2))


# ---- TensorFlow Addons ---------------------------------------------------------------


def tfa_semi_hard(
    y: ndarray, x: ndarray, margin: float = 1.0, distance_metric: str = "L2"
) -> float:
    """Per positive pair the nearest negative beyond it, else the farthest negative."""
    d = _distances(x, distance_metric)
    positive, negative = _kinds(y)
    total, count = 0.0, 0
    for a in range(len(y)):
        of_a = d[a][negative[a]]
        for p in np.flatnonzero(positive[a]):
            beyond = of_a[of_a > d[a, p]]
            chosen = beyond.min() if beyond.size else of_a.max()
            total += max(margin + d[a, p] - chosen, 0)
            count += 1
    return total / count


def tfa_hard(y: ndarray, x: ndarray, margin: float = 1.0, soft: bool = False) -> float:
    """Hardest positive and negative, mean over all rows."""
    d = _euclidean(x, x)
    positive, negative = _kinds(y)
    gaps = (d * positive).max(1) - np.where(negative, d, np.inf).min(1)
    terms = np.log1p(np.exp(gaps)) if soft else np.maximum(gaps + margin, 0)
    return float(terms.mean())


def tfa_contrastive(s: ndarray, d: ndarray, margin: float = 1.0) -> ndarray:
    """One number a pair: squares of distance and of what is missing to the margin."""
    return np.where(s, d**2, np.maximum(margin - d, 0) ** 2)


def tfa_lifted(y: ndarray, x: ndarray, margin: float = 1.0) -> float:
    """A quarter of the squares of ordered positive pairs, over the unordered ones."""
    d = _euclidean(x, x)
    positive, negative = _kinds(y)
    sums = np.where(negative, np.exp(margin - d), 0).sum(1)
    terms = np.log(sums[:, None] + sums[None, :]) + d
    squares = np.where(positive, np.maximum(terms, 0) ** 2, 0)
    return float(0.25 * squares.sum() / (positive.sum() / 2))
