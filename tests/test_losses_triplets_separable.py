"""Margin and lossless triplets: values by hand, boundaries of classes, the pole."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import PRINTED, SAME

import jaxmetric as jm

F1 = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
F5 = np.tile(np.array([[0.3, -0.8]], np.float32), (4, 1))
PAIRS = jnp.array([0, 0, 1, 1])

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


def test_margin_loss_by_hand():
    options: dict[str, Any] = {"margin": 1.0, "beta": 2.0}
    x = jnp.asarray(F1)
    assert losses.margin_loss(x, PAIRS, **options) == 7 / 8
    active = losses.margin_loss(x, PAIRS, **options, reduction="mean_active")
    assert active == pytest.approx(7 / 3, rel=PRINTED["float32"])
    stats = losses.margin_loss(x, PAIRS, **options, reduction="none")
    assert stats.num_terms.tolist() == [4, 4, 4, 4]
    case = {"embeddings": F1, "labels": [0, 0, 1, 1]}
    assert oracles.value("margin_loss", case, **options) == 7 / 8


def test_regression_value_of_margin_loss():
    angles = np.radians([0.0, 20.0, 40.0, 60.0, 80.0])
    rows = np.stack([2 * np.cos(angles), 0.5 * np.sin(angles)], axis=-1)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    with jax.enable_x64(True):
        got = losses.margin_loss(
            jnp.asarray(rows), np.array([0, 0, 1, 1, 2]), reduction="mean_active"
        )
    # PML holds the boundary in float32.
    assert got == pytest.approx(0.9731432043, abs=6e-8)


def test_a_pair_exactly_a_margin_off_the_boundary_is_inactive():
    """Positive at 1, negative at 3, boundary 2, margin 1."""

    def loss(x, **options):
        return losses.margin_loss(
            jnp.zeros((1, 1)), jnp.array([0]), margin=1.0, beta=2.0,
            ref_embeddings=x, ref_labels=jnp.array([0, 1]), **options,
        )  # fmt: skip

    x = jnp.array([[1.0], [3.0]])
    assert not jax.grad(loss)(x).any()
    stats = loss(x, reduction="none")
    assert (stats.num_terms.tolist(), stats.num_active.tolist()) == ([2], [0])


# Rows of three classes of unlike size, one of them alone, with their own boundaries.
LABELS = np.array([0, 0, 0, 1, 1, 2, 0, 1])
BETA = np.array([0.7, 1.1, 1.6])
WEIGHTS = np.array([1.0, 0.5, 2.0, 1.0, 0.0, 1.0, 1.5, 1.0])
COST = 0.3


def batch() -> dict[str, np.ndarray]:
    """Return rows with weights, of which one does not exist."""
    rows = np.random.default_rng(3).normal(size=(8, 3)) * 0.6
    where = np.arange(8) != 1
    return {"embeddings": rows, "labels": LABELS, "where": where, "weights": WEIGHTS}


def by_class(reduction: str, beta: np.ndarray) -> float:
    """Return the loss with one boundary a class, from rows of the oracle's results."""
    results = [oracles.evaluate("margin_loss", batch(), beta=b) for b in beta.tolist()]
    columns = [
        [getattr(results[y], name)[i] for i, y in enumerate(LABELS.tolist())]
        for name in ("total", "num_terms", "num_active")
    ]
    total, count, active = columns
    counted = [float(w) for w, c in zip(WEIGHTS, count, strict=True) if c > 0]
    mine = [float(beta[y]) for y, c in zip(LABELS, count, strict=True) if c > 0]
    if reduction == "sum":
        rows = zip(WEIGHTS, total, beta[LABELS], count, strict=True)
        return math.fsum(w * (t + COST * b * c) for w, t, b, c in rows)
    result = oracles.Result(total, count, active, WEIGHTS.tolist(), 0.0, 0.0)
    mean = math.fsum(w * b for w, b in zip(counted, mine, strict=True))
    return result.reduced(reduction) + COST * mean / math.fsum(counted)


@pytest.mark.parametrize("reduction", oracles.REDUCTIONS)
def test_one_boundary_a_class_and_what_it_costs(reduction):
    with jax.enable_x64(True):
        arrays = {key: jnp.asarray(value) for key, value in batch().items()}
        x, y = arrays.pop("embeddings"), arrays.pop("labels")

        def loss(beta):
            return losses.margin_loss(
                x, y, beta=beta, nu=COST, reduction=reduction, **arrays
            )

        value, grad = jax.value_and_grad(loss)(jnp.asarray(BETA))
        assert value == pytest.approx(by_class(reduction, BETA), rel=1e-9)
        for k in range(3):
            step = 1e-6 * np.eye(3)[k]
            rise = by_class(reduction, BETA + step) - by_class(reduction, BETA - step)
            assert grad[k] == pytest.approx(rise / 2e-6, abs=1e-7)


def test_the_cost_of_one_boundary_is_in_every_reduction():
    rows, y = jnp.asarray(F1), PAIRS
    for reduction in ("mean", "mean_active", "mean_per_anchor"):
        with_cost, without = (
            losses.margin_loss(rows, y, nu=nu, reduction=reduction) for nu in (0.5, 0)
        )
        assert with_cost - without == pytest.approx(0.5 * 1.2, rel=1e-5)
    stats = losses.margin_loss(rows, y, nu=0.5, reduction="none")
    mean = losses.margin_loss(rows, y, nu=0.5)
    assert jm.reduce(stats, "mean") == pytest.approx(float(mean), rel=SAME["float32"])


def test_a_boundary_costs_nothing_where_there_is_no_triplet():
    for y in (jnp.zeros(4, jnp.int32), jnp.arange(4)):
        value, grad = jax.value_and_grad(
            lambda b, y=y: losses.margin_loss(jnp.asarray(F1), y, beta=b, nu=1.0)
        )(jnp.ones(4))
        assert value == 0
        assert not grad.any()


def test_a_label_without_a_boundary_is_refused_or_makes_the_loss_nan():
    x, beta = jnp.asarray(F1), jnp.ones(2)
    with pytest.raises(ValueError, match="to name a row of `beta`, got 2"):
        losses.margin_loss(x, [0, 0, 1, 2], beta=beta)
    y = jnp.array([0, 0, 1, 2])
    assert jnp.isnan(losses.margin_loss(x, y, beta=beta))
    where = jnp.array([True, True, True, False])
    assert jnp.isfinite(losses.margin_loss(x, y, beta=beta, where=where))


def test_one_boundary_a_class_needs_classes():
    is_same = PAIRS[:, None] == PAIRS[None, :]
    relation, x = jm.Relation(is_same, ~is_same), jnp.asarray(F1)
    with pytest.raises(TypeError, match="got a Relation"):
        losses.margin_loss(x, relation, beta=jnp.ones(2))
    assert losses.margin_loss(x, relation) == losses.margin_loss(x, PAIRS)


@pytest.mark.parametrize("options", [{"max_distance": 2.0}, {}])
def test_lossless_triplet_loss_by_hand(options):
    """The width is 2, so that is the default."""
    x = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    got = losses.lossless_triplet_loss(x, jnp.array([0, 0, 1]), **options)
    assert got == pytest.approx(1.5 * math.log(2), rel=PRINTED["float32"])


def test_the_logarithm_ends_at_epsilon():
    """A positive at distance beta (1 + 1e-8 is 1 in float32; defect 40), or beyond."""

    def loss(refs, epsilon=1e-8):
        return losses.lossless_triplet_loss(
            jnp.zeros((1, 2)), jnp.array([0]), epsilon=epsilon,
            ref_embeddings=refs, ref_labels=jnp.array([0, 1]),
        )  # fmt: skip

    for far in (1.0, 2.0):
        # The negative is at the largest distance there is: its part is 0.
        refs = jnp.array([[far, 1.0], [1.0, 1.0]])
        value, grad = jax.value_and_grad(loss)(refs)
        assert value == pytest.approx(-math.log(1e-8), rel=1e-6)
        assert not grad[0].any()
        assert grad[1].all()
    refs = jnp.array([[0.0, 0.0], [0.0, 0.0]])
    value, grad = jax.value_and_grad(loss)(refs)
    assert value == pytest.approx(-math.log(1e-8), rel=1e-6)
    assert not grad.any()
    assert jax.grad(loss, 1)(refs, 0.01) == pytest.approx(-100)


def test_a_negative_beyond_the_largest_distance_is_not_active():
    """Its part is below 0 and outweighs that of a near positive."""
    stats = losses.lossless_triplet_loss(
        jnp.zeros((1, 2)), jnp.array([0]), max_distance=2, reduction="none",
        ref_embeddings=jnp.array([[0.1, 0.0], [1.0, 0.9], [2.0, 2.0], [3.0, 0.0]]),
        ref_labels=jnp.array([0, 0, 1, 1]),
    )  # fmt: skip
    near, far = -math.log(1 - 0.01 / 2), -math.log(1 - 1.81 / 2)
    total = 2 * (near + far) - 2 * math.log(8 / 2) - 2 * math.log(9 / 2)
    assert stats.total[0] == pytest.approx(total, rel=1e-5)
    # log(0.095) is below log(1/4.5) and above log(1/20): the far positive counts twice.
    assert (stats.num_terms.tolist(), stats.num_active.tolist()) == ([4], [2])


def test_collapse_of_lossless_triplets():
    value, grad = jax.value_and_grad(lambda x: losses.lossless_triplet_loss(x, PAIRS))(
        jnp.asarray(F5)
    )
    assert value == pytest.approx(-math.log(1e-8), rel=1e-6)
    assert not grad.any()


@pytest.mark.parametrize("name", ["max_distance", "beta", "epsilon"])
def test_distances_and_epsilon_of_lossless_triplets_are_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` must be > 0, got 0"):
        losses.lossless_triplet_loss(jnp.asarray(F1), PAIRS, **{name: 0})
