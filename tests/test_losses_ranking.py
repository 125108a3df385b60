"""The ranking losses: values by hand, stored values, and what is particular."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import DIFFERENCE, PRINTED, STEP, value_bound

import jaxmetric as jm

losses: Any = jm.losses
SLOW = pytest.mark.slow
PAIRS = jnp.array([0, 0, 1, 1])
F5 = jnp.tile(jnp.array([[0.3, -0.8]]), (4, 1))

# On F5, four equal rows, where every sigmoid is 1/2.
COLLAPSED = [
    ("smooth_ap_loss", {}, 0.4),
    ("smooth_ap_loss", {"include_self": False}, 0.5),
    ("pnp_loss", {"variant": "O"}, 1.0),
    ("pnp_loss", {"variant": "Ds"}, math.log(2)),
    ("pnp_loss", {"variant": "Dq", "alpha": 1.0}, 0.5),
    ("pnp_loss", {}, 1 - 2.0**-8),
    ("pnp_loss", {"variant": "Iu"}, 2 * math.log(2)),
    ("pnp_loss", {"variant": "Ib"}, (2 - math.log(3)) / 4),
    ("pnp_loss", {"variant": "Ib", "b": 1.0}, 1 - math.log(2)),
    ("fast_ap_loss", {}, 2 / 3),
    ("fast_ap_loss", {"num_bins": 3}, 2 / 3),
]


@pytest.mark.parametrize(("name", "options", "value"), COLLAPSED)
def test_values_and_gradients_of_equal_rows(name, options, value):
    def loss(x):
        return getattr(losses, name)(x, PAIRS, **options)

    got, grad = jax.value_and_grad(loss)(F5)
    assert got == pytest.approx(value, rel=PRINTED["float32"])
    assert not grad.any()
    case = {"embeddings": F5, "labels": PAIRS}
    assert oracles.value(name, case, **options) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("name", ["smooth_ap_loss", "pnp_loss"])
def test_equal_rows_cost_the_same_at_any_temperature(name):
    loss = getattr(losses, name)
    assert loss(F5, PAIRS, temperature=1e-3) == loss(F5, PAIRS, temperature=10.0)


def fan() -> tuple[np.ndarray, np.ndarray]:
    """Return five unit rows in float64, at unequal angles, and their labels."""
    angles = np.radians([0.0, 20.0, 40.0, 60.0, 80.0])
    rows = np.stack([2 * np.cos(angles), 0.5 * np.sin(angles)], axis=-1)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows, np.array([0, 0, 1, 1, 2])


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        ("fast_ap_loss", {}, 0.6432521435),
        ("smooth_ap_loss", {}, 0.1615519226),
        ("smooth_ap_loss", {"include_self": False}, 0.2619456184),
        ("pnp_loss", {"variant": "O"}, 0.3525580491),
        ("pnp_loss", {"variant": "Ds"}, 0.2688508579),
        ("pnp_loss", {"variant": "Iu"}, 0.4570859918),
        ("pnp_loss", {"variant": "Dq", "alpha": 1.0}, 0.2143325430),
        ("pnp_loss", {"variant": "Ib"}, 0.0628491990),
    ],
)
def test_regression_values(name, options, value):
    rows, labels = fan()
    with jax.enable_x64(True):
        got = getattr(losses, name)(jnp.asarray(rows), labels, **options)
    assert got == pytest.approx(value, abs=PRINTED["regression"])
    case = {"embeddings": rows, "labels": labels}
    want = oracles.value(name, case, **options)
    assert got == pytest.approx(want, abs=PRINTED["regression"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("smooth_ap_loss", {}),
        pytest.param("smooth_ap_loss", {"include_self": False}, marks=SLOW),
        ("pnp_loss", {"variant": "O"}),
        pytest.param("pnp_loss", {"variant": "Ds"}, marks=SLOW),
        pytest.param("pnp_loss", {"variant": "Iu", "include_self": False}, marks=SLOW),
        pytest.param("pnp_loss", {"variant": "Ib", "b": 3.0}, marks=SLOW),
    ],
)
def test_classes_larger_than_one_stretch_of_positives(name, options):
    """13 and 11 rows a class: more positives than are visited in one go."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 3))
    labels = (np.arange(24) >= 13).astype(np.int32)
    options = {"temperature": 0.2, **options}
    way = rng.normal(size=x.shape)

    @jax.jit
    def loss(x):
        return getattr(losses, name)(x, labels, block_size=7, **options)

    with jax.enable_x64(True):
        value, grad = jax.value_and_grad(loss)(jnp.asarray(x))
        up, down = (float(loss(jnp.asarray(x + s * STEP * way))) for s in (1, -1))
    want = oracles.value(name, {"embeddings": x, "labels": labels}, **options)
    assert value == pytest.approx(want, abs=value_bound("float64", want, 5.0))
    numeric = (up - down) / (2 * STEP)
    bound = DIFFERENCE["float64"] / options["temperature"]
    assert np.sum(np.asarray(grad) * way) == pytest.approx(numeric, abs=bound)


def test_a_perfect_order_costs_fast_ap_exactly_nothing():
    x = jnp.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]])
    value, grad = jax.value_and_grad(losses.fast_ap_loss)(x, PAIRS)
    assert value == 0
    assert not grad.any()
    stats = losses.fast_ap_loss(x, PAIRS, reduction="none")
    assert stats.num_active.tolist() == [0, 0, 0, 0]
    assert stats.num_terms.tolist() == [1, 1, 1, 1]


def test_average_precision_at_a_low_temperature_is_that_of_the_list():
    """Anchor at 0 degrees; by angle: negative, positive, negative, positive."""
    angles = np.radians([10.0, 20.0, 30.0, 40.0])
    refs = np.stack([np.cos(angles), np.sin(angles)], -1)
    loss = losses.smooth_ap_loss(
        jnp.array([[1.0, 0.0]]), jnp.array([0]), temperature=1e-4,
        ref_embeddings=jnp.asarray(refs, jnp.float32),
        ref_labels=jnp.array([1, 0, 2, 0]),
    )  # fmt: skip
    assert loss == pytest.approx(1 - (1 / 2 + 2 / 4) / 2, rel=1e-5)


@pytest.mark.parametrize("name", ["smooth_ap_loss", "pnp_loss"])
def test_with_references_the_anchor_is_not_counted(name):
    rng = np.random.default_rng(1)
    x, y = (jnp.asarray(rng.normal(size=(6, 3)), jnp.float32) for _ in range(2))
    labels = jnp.arange(6) % 2
    refs = {"ref_embeddings": y, "ref_labels": labels}
    loss = getattr(losses, name)
    one = loss(x, labels, **refs)
    assert one == loss(x, labels, **refs, include_self=False)
    assert loss(x, labels) != loss(x, labels, include_self=False)


def test_smooth_ap_counts_rows_with_a_positive_and_a_negative():
    """PML 2.9 needs classes of one size (defect 9)."""
    x = jax.random.normal(jax.random.key(0), (6, 3))
    labels = jnp.array([4, 0, 4, 4, 0, 7])
    stats = losses.smooth_ap_loss(x, labels, reduction="none")
    assert stats.num_terms.tolist() == [1, 1, 1, 1, 1, 0]


def test_penalties_of_few_negatives_keep_their_digits():
    """(b R - log(1 + b R)) / b^2 is about R^2 / 2: the difference would be rounding."""
    x, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
    refs = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    refs = {"ref_embeddings": refs, "ref_labels": jnp.array([0, 1])}
    for temperature in (0.1, 0.15, 0.2, 0.3):
        got = losses.pnp_loss(x, labels, variant="Ib", temperature=temperature, **refs)
        r = 1 / (1 + math.exp(1 / temperature))
        terms = ((-1) ** k * 2 ** (k - 2) * r**k / k for k in range(2, 30))
        assert got == pytest.approx(math.fsum(terms), rel=1e-5)


def test_a_negative_far_in_front_still_has_a_rank_at_a_low_temperature():
    x, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
    refs = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    refs = {"ref_embeddings": refs, "ref_labels": jnp.array([0, 1])}
    for loss in (losses.pnp_loss, losses.smooth_ap_loss):
        value, grad = jax.value_and_grad(loss)(x, labels, temperature=1e-4, **refs)
        assert value == pytest.approx(
            0.5 if loss is losses.smooth_ap_loss else 1 - 2.0**-8
        )
        assert jnp.isfinite(grad).all()
