"""Our losses beside those of TensorFlow Addons, and beside Optax.

TensorFlow Addons is no longer made: its published formulas are written here in NumPy,
whole matrices at a time as it has them, and not from our oracles.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import parity_batches
import pytest
from peer_registry import difference
from subjects import fast_options

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses

MARGIN = 0.7

# Of a value or a gradient, relative to its largest entry where that is above 1.
BOUND = {"float64": 1e-6, "float32": 1e-4}


def distances(x):
    """Return the Euclidean distances of all rows."""
    return np.linalg.norm(x[:, None] - x[None, :], axis=-1)


def masks(y):
    """Return which pairs are positive (a row and itself are not) and negative."""
    is_equal = y[:, None] == y[None, :]
    return is_equal & ~np.eye(len(y), dtype=bool), ~is_equal


def triplet_semihard(x, y):
    """`triplet_semihard_loss`: the nearest negative outside, or the farthest inside."""
    d, (positive, negative) = distances(x), masks(y)
    outside = negative[:, None, :] & (d[:, None, :] > d[:, :, None])
    nearest = np.min(np.where(outside, d[:, None, :], np.inf), -1)
    farthest = np.max(np.where(negative, d, 0), -1, keepdims=True)
    chosen = np.where(outside.any(-1), nearest, farthest)
    return np.sum(positive * np.maximum(MARGIN + d - chosen, 0)) / positive.sum()


def hardest(x, y):
    """Return each row's farthest positive less its nearest negative."""
    d, (positive, negative) = distances(x), masks(y)
    return np.max(positive * d, -1) - np.min(np.where(negative, d, np.inf), -1)


def triplet_hard(x, y):
    """`triplet_hard_loss`, a mean over all rows."""
    return np.mean(np.maximum(hardest(x, y) + MARGIN, 0))


def triplet_hard_soft(x, y):
    """`triplet_hard_loss(soft=True)`."""
    return np.mean(np.log1p(np.exp(hardest(x, y))))


def lifted_struct(x, y):
    """`lifted_struct_loss`: pairs count once, and half of a square each."""
    d, (positive, negative) = distances(x), masks(y)
    inside = np.sum(np.exp(MARGIN - d) * negative, -1)
    parts = np.log(inside[:, None] + inside[None, :]) + d
    squares = np.maximum(parts * positive, 0) ** 2
    return 0.25 * squares.sum() / (positive.sum() / 2)


def contrastive(x, y):
    """Twice `contrastive_loss` without its halves, here of every pair of the batch."""
    d, (positive, negative) = distances(x), masks(y)
    squares = positive * d**2 + negative * np.maximum(MARGIN - d, 0) ** 2
    return squares.sum() / (positive | negative).sum()


def npairs(x, y):
    """`npairs_loss` of the scores of first and second rows of each class.

    It takes scores: of these, each row has one column of its label, as in the paper.
    """
    rows = [np.flatnonzero(y == label)[:2] for label in np.unique(y)]
    pairs = np.array([pair for pair in rows if len(pair) == 2])
    scores = x[pairs[:, 0]] @ x[pairs[:, 1]].T
    shares = scores - np.log(np.sum(np.exp(scores), -1, keepdims=True))
    return -np.mean(np.diag(shares))


LOSSES = {
    triplet_semihard: lambda x, y: losses.semi_hard_triplet_loss(x, y, margin=MARGIN),
    triplet_hard: lambda x, y: losses.batch_hard_triplet_loss(x, y, margin=MARGIN),
    triplet_hard_soft: lambda x, y: losses.batch_hard_triplet_loss(x, y, soft=True),
    lifted_struct: lambda x, y: losses.lifted_structure_loss(x, y, margin=MARGIN),
    contrastive: lambda x, y: 2 * losses.contrastive_loss(x, y, margin=MARGIN),
    npairs: losses.n_pairs_loss,
}


@pytest.mark.parametrize("formula", LOSSES, ids=lambda f: f.__name__)
def test_the_formulas_of_tensorflow_addons_are_met(formula):
    """On rows with a positive: its triplet_hard_loss takes 0 where there is none."""
    stack = parity_batches.make("both")
    x, y = stack["embeddings"].astype(np.float64), stack["labels"]
    expected = np.array([formula(*batch) for batch in zip(x, y, strict=True)])
    assert len(set(expected.tolist())) > 190
    with jax.enable_x64(True):
        ours = jax.vmap(LOSSES[formula])
        found = jax.jit(ours, compiler_options=fast_options())(x, y)
        assert difference(found, expected) <= BOUND["float64"]


def test_npairs_of_a_whole_batch_is_another_loss():
    """Every row against every row, itself too, with equal shares for its class."""
    stack = parity_batches.make("both", count=1)
    x, y = stack["embeddings"][0].astype(np.float64), stack["labels"][0]
    scores = x @ x.T
    shares = scores - np.log(np.sum(np.exp(scores), -1, keepdims=True))
    same = (y[:, None] == y[None, :]).astype(np.float64)
    whole = -np.mean(np.sum(shares * same / same.sum(-1, keepdims=True), -1))
    ours = losses.n_pairs_loss(jnp.asarray(x, jnp.float32), y)
    assert abs(ours - npairs(x, y)) < 1e-5
    assert abs(ours - whole) > 0.1


def test_an_anchor_without_positives_is_not_averaged_in():
    """Where `triplet_hard_loss` counts it with a positive at distance 0."""
    x = np.array([[0.0], [1.0], [1.5], [9.0]], np.float32)
    y = np.array([0, 0, 1, 2], np.int32)
    ours = losses.batch_hard_triplet_loss(x, y, margin=MARGIN)
    of_all = np.maximum(hardest(x, y) + MARGIN, 0)
    assert ours == pytest.approx(of_all[:2].mean(), rel=1e-6)
    assert triplet_hard(x, y) == pytest.approx(of_all.mean(), rel=1e-6)
    assert of_all[2] > 0


def _triplets(side):
    """Return rows, the positive and the negative of each."""
    return side["x"], side["y"], jnp.roll(side["y"], 1, 0)


OPTAX = {
    "ntxent": (
        lambda side, labels: losses.nt_xent_loss(side["x"], labels),
        lambda side, labels: optax.losses.ntxent(side["x"], labels),
    ),
    "triplet_margin_loss": (
        lambda side, labels: losses.triplet_margin_loss(
            *_triplets(side), margin=MARGIN
        ),
        lambda side, labels: jnp.mean(
            # Theirs adds 1e-6 under the root unless told.
            optax.losses.triplet_margin_loss(*_triplets(side), margin=MARGIN, eps=0.0)
        ),
    ),
    "cosine_distance": (
        lambda side, labels: losses.pair_loss(
            side["x"],
            side["y"],
            jnp.ones(labels.shape, bool),
            distance="cosine",
            squared=False,
        ),
        lambda side, labels: jnp.mean(
            optax.losses.cosine_distance(side["x"], side["y"])
        ),
    ),
    "softmax_cross_entropy_with_integer_labels": (
        lambda side, labels: losses.normalized_softmax_loss(
            side["x"], labels, side["y"][:5]
        ),
        lambda side, labels: jnp.mean(
            optax.losses.softmax_cross_entropy_with_integer_labels(
                jm.l2_normalize(side["x"]) @ jm.l2_normalize(side["y"][:5]).T / 0.05,
                labels,
            )
        ),
    ),
    "sigmoid_binary_cross_entropy": (
        lambda side, labels: losses.sigmoid_contrastive_loss(side["x"], side["y"]),
        lambda side, labels: jnp.mean(
            jnp.sum(
                optax.losses.sigmoid_binary_cross_entropy(
                    10 * jm.l2_normalize(side["x"]) @ jm.l2_normalize(side["y"]).T - 10,
                    jnp.eye(len(labels)),
                ),
                -1,
            )
        ),
    ),
}


@pytest.mark.parametrize(
    "dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", OPTAX)
def test_optax_has_the_same_values_and_gradients(name, dtype):
    ours, theirs = OPTAX[name]
    rows, other = parity_batches.make("any"), parity_batches.make("paired")
    with jax.enable_x64(dtype == "float64"):
        side = {
            "x": jnp.asarray(rows["embeddings"], dtype),
            "y": jnp.asarray(other["embeddings"], dtype),
        }

        def answers(loss):
            both = jax.vmap(jax.value_and_grad(loss))
            run = jax.jit(both, compiler_options=fast_options())
            value, gradient = run(side, rows["labels"])
            return {"value": value, **gradient}

        found = answers(ours)
        # It multiplies logical by real numbers, and rows by matrices.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            expected = answers(theirs)
    assert float(np.max(np.abs(expected["x"]))) > 1e-3
    for key in found:
        assert difference(found[key], expected[key]) <= BOUND[dtype], key
