"""The same losses in NumPy float64, with their gradients: how exact is what is timed.

Written from the formulas, anchor by anchor, as dL/dd of [batch, batch] distances or
dL/ds of similarities, which the last step turns into a gradient of the rows. Nothing is
shared with the package. A loss that has no reference here is compared with itself in
float64.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmetric as jm
from benchmarks import specs

# A row whose gradient is further off than this, of the largest entry, went another way:
# between two candidates that float32 cannot tell apart, or over a kink.
_OTHER_WAY = 1e-3


class Reference(NamedTuple):
    """What a loss should be.

    Attributes:
      value: of the loss.
      gradient: [batch, dim] float64.
      source: "numpy", or "itself" where the loss was run in float64.
    """

    value: float
    gradient: np.ndarray
    source: str


class Errors(NamedTuple):
    """How far a result is off.

    Attributes:
      value: of the value, relative.
      gradient: greatest of an entry, of the largest entry, over the rows that went the
        same way.
      rows_other: how many rows went another way at a tie or kink.
    """

    value: float
    gradient: float
    rows_other: int


def reference(function: str, batch: specs.Batch) -> Reference:
    """Return value and gradient of a loss with its `specs.OPTIONS` in float64."""
    options = specs.OPTIONS.get(function, {})
    if function not in _REFERENCES:
        return _itself(function, batch, options)
    x = batch.embeddings.astype(np.float64)
    is_same = batch.labels[:, None] == batch.labels[None, :]
    positive, negative = is_same & ~np.eye(len(x), dtype=bool), ~is_same
    of_similarities, formula = _REFERENCES[function]
    if of_similarities:
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        unit = x / norms
        value, slope = formula(unit @ unit.T, positive, negative, **options)
        gradient = (slope + slope.T) @ unit
        along = np.sum(gradient * unit, 1, keepdims=True)
        return Reference(value, (gradient - along * unit) / norms, "numpy")
    d = _distances(x)
    value, slope = formula(d, positive, negative, **options)
    # d(a, b) has the gradient (a - b) / d, and 0 where the rows are equal.
    pull = np.divide(slope + slope.T, d, out=np.zeros_like(d), where=d > 0)
    gradient = pull.sum(1, keepdims=True) * x - pull @ x
    return Reference(value, gradient, "numpy")


def errors(value: Any, gradient: Any, expected: Reference) -> Errors:
    """Return how far a value and a gradient are from the reference."""
    value, gradient = float(value), np.asarray(gradient, np.float64)
    off_value = abs(value - expected.value) / max(abs(expected.value), 1e-30)
    if value == expected.value:
        off_value = 0.0
    largest = max(float(np.abs(expected.gradient).max()), 1e-30)
    off = np.abs(gradient - expected.gradient).max(1) / largest
    is_other = ~(off <= _OTHER_WAY)
    rows = off[~is_other]
    return Errors(off_value, float(rows.max(initial=0.0)), int(is_other.sum()))


def _itself(function: str, batch: specs.Batch, options: dict[str, Any]) -> Reference:
    """Return what the loss of the package gives in float64."""
    loss = getattr(jm.losses, function)
    with jax.enable_x64(True):
        x = jnp.asarray(batch.embeddings, jnp.float64)
        labels = jnp.asarray(batch.labels)
        value, gradient = jax.value_and_grad(lambda x: loss(x, labels, **options))(x)
        return Reference(float(value), np.asarray(gradient), "itself")


def _distances(x: np.ndarray) -> np.ndarray:
    """Return [batch, batch] euclidean distances; those of near pairs by difference."""
    squares = np.sum(x * x, 1)
    squares = np.maximum(squares[:, None] + squares[None, :] - 2 * x @ x.T, 0)
    i, j = np.nonzero(squares < 1e-6)
    squares[i, j] = np.sum((x[i] - x[j]) ** 2, 1)
    return np.sqrt(squares)


def _batch_all(d, positive, negative, *, margin):
    """Mean over active triplets of (d_p + margin) - d_n."""
    total, count, slope = 0.0, 0, np.zeros_like(d)
    for a in range(len(d)):
        p, n = np.flatnonzero(positive[a]), np.flatnonzero(negative[a])
        violation = (d[a, p] + margin)[:, None] - d[a, n][None, :]
        is_active = violation > 0
        total += violation[is_active].sum()
        count += is_active.sum()
        slope[a, p] += is_active.sum(1)
        slope[a, n] -= is_active.sum(0)
    return total / max(count, 1), slope / max(count, 1)


def _batch_hard(d, positive, negative, *, margin):
    """Mean over anchors of [max_p d + margin - min_n d]+."""
    rows = np.flatnonzero(positive.any(1) & negative.any(1))
    slope = np.zeros_like(d)
    p = np.where(positive, d, -np.inf)[rows].argmax(1)
    n = np.where(negative, d, np.inf)[rows].argmin(1)
    violation = (d[rows, p] + margin) - d[rows, n]
    active = violation > 0
    count = max(len(rows), 1)
    slope[rows[active], p[active]] += 1 / count
    slope[rows[active], n[active]] -= 1 / count
    return violation[active].sum() / count, slope


def _semi_hard(d, positive, negative, *, margin):
    """Mean over positive pairs of [d_p + margin - d*]+, d* the next negative beyond."""
    total, count, slope = 0.0, 0, np.zeros_like(d)
    for a in range(len(d)):
        p, n = np.flatnonzero(positive[a]), np.flatnonzero(negative[a])
        if not (len(p) and len(n)):
            continue
        n = n[np.argsort(d[a, n], kind="stable")]
        beyond = np.searchsorted(d[a, n], d[a, p], side="right")
        chosen = n[np.minimum(beyond, len(n) - 1)]
        violation = (d[a, p] + margin) - d[a, chosen]
        active = violation > 0
        total += violation[active].sum()
        count += len(p)
        np.add.at(slope[a], p[active], 1.0)
        np.add.at(slope[a], chosen[active], -1.0)
    return total / max(count, 1), slope / max(count, 1)


def _contrastive(d, positive, negative, *, margin):
    """Mean over pairs of d^2 / 2 (positive) and [margin - d]+^2 / 2 (negative)."""
    count = max(positive.sum() + negative.sum(), 1)
    inside = np.where(negative, np.maximum(margin - d, 0), 0)
    outside = np.where(positive, d, 0)
    return 0.5 * (outside**2 + inside**2).sum() / count, (outside - inside) / count


def _nt_xent(s, positive, negative, *, temperature):
    """Mean over positive pairs of log(1 + exp(logsumexp_n z - z_p))."""
    z = s / temperature
    is_term = positive & negative.any(1)[:, None]
    opposed, share = _logsumexp(z, negative)
    gap = np.where(is_term, opposed[:, None] - z, -np.inf)
    count = max(is_term.sum(), 1)
    # d softplus(g) / dg = 1 / (1 + exp(-g)), without overflow.
    push = np.exp(-np.logaddexp(0, -gap))
    slope = push.sum(1, keepdims=True) * share - push
    value = np.logaddexp(0, gap)[is_term].sum() / count
    return value, slope / (count * temperature)


def _supervised_contrastive(s, positive, negative, *, temperature):
    """Mean over anchors of logsumexp of all others less the mean of positives."""
    z = s / temperature
    rows = positive.any(1) & negative.any(1)
    total, share = _logsumexp(z, positive | negative)
    num_positives = np.maximum(positive.sum(1, keepdims=True), 1)
    mean = positive / num_positives
    terms = np.where(rows, total - (z * mean).sum(1), 0)
    count = max(rows.sum(), 1)
    slope = np.where(rows[:, None], share - mean, 0) / (count * temperature)
    return terms.sum() / count, slope


def _logsumexp(z: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return [batch] log sums of exponentials where `mask`, and softmax shares."""
    z = np.where(mask, z, -np.inf)
    top = np.max(z, 1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    e = np.exp(z - top)
    sums = e.sum(1, keepdims=True)
    is_empty = sums == 0
    sums = np.where(is_empty, 1, sums)
    total = np.where(is_empty, -np.inf, top + np.log(sums))
    return total[:, 0], e / sums


# Whether the formula is one of similarities, and the formula: (d or s, positive,
# negative, **options) -> (value, slope).
_REFERENCES: dict[str, tuple[bool, Callable]] = {
    "batch_all_triplet_loss": (False, _batch_all),
    "batch_hard_triplet_loss": (False, _batch_hard),
    "semi_hard_triplet_loss": (False, _semi_hard),
    "contrastive_loss": (False, _contrastive),
    "nt_xent_loss": (True, _nt_xent),
    "supervised_contrastive_loss": (True, _supervised_contrastive),
}
