"""N-pairs and tuplet margin: values by hand, stored values, and what is particular."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import PRINTED, SAME

import jaxmetric as jm

losses: Any = jm.losses
U, V = (1.0, 0.0), (0.0, 1.0)
F2 = jnp.array([U, U, V, V])
PAIRS = jnp.array([0, 0, 1, 1])
E = math.e


def fan() -> tuple[np.ndarray, np.ndarray]:
    """Return five unit rows in float64, at unequal angles, and their labels."""
    angles = np.radians([0.0, 20.0, 40.0, 60.0, 80.0])
    rows = np.stack([2 * np.cos(angles), 0.5 * np.sin(angles)], axis=-1)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows, np.array([0, 0, 1, 1, 2])


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        ("n_pairs_loss", {}, math.log(1 + 1 / E)),
        ("n_pairs_loss", {"l2_weight": 0.5}, math.log(1 + 1 / E) + 0.5 / 4 * (1 + 1)),
        ("n_pairs_loss", {"distance": "cosine"}, math.log(1 + 1 / E)),
        ("tuplet_margin_loss", {"margin": 0.0, "scale": 1.0}, math.log(1 + 2 / E)),
        (
            "tuplet_margin_loss",
            {"margin": 0.5, "scale": 1.0},
            math.log(1 + 2 * math.exp(-math.cos(0.5))),
        ),
    ],
)
def test_hand_values(name, options, value):
    got = getattr(losses, name)(F2, PAIRS, **options)
    assert got == pytest.approx(value, rel=PRINTED["float32"])
    case = {"embeddings": F2, "labels": PAIRS}
    assert oracles.value(name, case, **options) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        ("n_pairs_loss", {"distance": "cosine"}, 0.6773804687),
        ("n_pairs_loss", {}, 0.6773804687),
        ("tuplet_margin_loss", {"margin": math.radians(5.73)}, 0.4092368699),
    ],
)
def test_regression_values(name, options, value):
    rows, labels = fan()
    with jax.enable_x64(True):
        got = getattr(losses, name)(jnp.asarray(rows), labels, **options)
    assert got == pytest.approx(value, abs=PRINTED["regression"])


def test_only_the_first_two_rows_of_a_class_take_part():
    x = jax.random.normal(jax.random.key(0), (7, 3))
    labels = jnp.array([5, 3, 5, 3, 5, 4, 3])
    stats = losses.n_pairs_loss(x, labels, reduction="none")
    assert stats.num_terms.tolist() == [1, 1, 0, 0, 0, 0, 0]
    few = losses.n_pairs_loss(x[:4], labels[:4])
    assert losses.n_pairs_loss(x, labels) == pytest.approx(
        float(few), rel=SAME["float32"]
    )
    grad = jax.grad(losses.n_pairs_loss)(x, labels, l2_weight=1.0)
    assert not grad[4:].any()
    assert grad[:4].any(axis=1).all()


def test_which_rows_come_first_decides():
    x = jax.random.normal(jax.random.key(1), (6, 3))
    labels = jnp.array([0, 0, 0, 1, 1, 1])
    other = losses.n_pairs_loss(x[::-1], labels[::-1])
    assert losses.n_pairs_loss(x, labels) != pytest.approx(float(other), rel=1e-3)


def test_rows_of_one_sample_are_no_pair():
    """Row 0 and 1 are one sample: the pair of their class is 0 and 2."""
    x = jax.random.normal(jax.random.key(2), (5, 3))
    labels, ids = jnp.array([0, 0, 0, 1, 1]), jnp.array([7, 7, 8, 9, 10])
    got = losses.n_pairs_loss(x, labels, ids=ids, reduction="none")
    assert got.num_terms.tolist() == [1, 0, 0, 1, 0]
    kept = jnp.array([0, 2, 3, 4])
    want = losses.n_pairs_loss(x[kept], labels[kept], reduction="sum")
    assert got.total.sum() == pytest.approx(float(want), rel=SAME["float32"])


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 2]])
def test_fewer_than_two_classes_of_two_rows_give_zero(labels):
    x = jax.random.normal(jax.random.key(3), (4, 3))

    def loss(x):
        return losses.n_pairs_loss(x, jnp.array(labels), l2_weight=1.0)

    value, grad = jax.value_and_grad(loss)(x)
    assert value == 0
    assert not grad.any()


def test_the_first_reference_of_every_class_is_a_column():
    """Anchor u: its positive at u, a class of the batch and another one at v."""
    refs = {
        "ref_embeddings": jnp.array([U, V, V, V, (9.0, 9.0)]),
        "ref_labels": jnp.array([0, 1, 2, 2, 1]),
    }
    x, labels = jnp.array([U, U, V]), jnp.array([0, 0, 1])
    stats = losses.n_pairs_loss(x, labels, **refs, reduction="none")
    assert stats.num_terms.tolist() == [1, 0, 1]
    want = [math.log(1 + 2 / E), 0, math.log(1 + 1 / E + 1)]
    np.testing.assert_allclose(stats.total, want, rtol=PRINTED["float32"])


def test_n_pairs_of_a_relation_are_those_of_the_labels():
    x = jax.random.normal(jax.random.key(4), (7, 3))
    labels = jnp.array([5, 3, 5, 3, 5, 4, 3])
    is_equal = labels[:, None] == labels[None]
    relation = jm.Relation(is_equal, ~is_equal)
    assert losses.n_pairs_loss(x, relation) == losses.n_pairs_loss(x, labels)
    refs = {"ref_embeddings": x + 1}
    want = losses.n_pairs_loss(x, labels, **refs, ref_labels=labels)
    assert losses.n_pairs_loss(x, relation, **refs) == want


@pytest.mark.parametrize("one_sided", [(0, 1), (1, 0), (4, 5)])
def test_a_positive_that_does_not_hold_the_anchor_for_one_makes_no_pair(one_sided):
    """Whichever rows they are: the first is what others point at for want of one."""
    x = jax.random.normal(jax.random.key(6), (6, 3))
    rest = [i for i in range(6) if i not in one_sided]
    labels = np.arange(6)
    labels[rest[1]], labels[rest[3]] = rest[0], rest[2]
    positive = labels[:, None] == labels[None]
    positive[one_sided] = True
    relation = jm.Relation(positive, ~positive)
    want = losses.n_pairs_loss(x, labels)
    assert want > 0
    assert losses.n_pairs_loss(x, relation) == want


def test_labels_above_2048_are_told_apart_for_half_precision_rows():
    """TF-Addons casts labels to the dtype of the logits (defect 29)."""
    x = jnp.ones((4, 2), jnp.float16)
    labels = jnp.array([4096, 4097, 4098, 4099])
    stats = losses.n_pairs_loss(x, labels, reduction="none")
    assert stats.num_terms.tolist() == [0, 0, 0, 0]


def test_the_margin_of_a_tuplet_is_taken_off_the_angle():
    rng = np.random.default_rng(0)
    angles = np.array([0.0, 0.9, 2.0])  # anchor, positive, negative
    scale, margin = 3.0, 0.2
    rows = np.stack([np.cos(angles), np.sin(angles)], -1) * rng.uniform(1, 5, (3, 1))
    x = jnp.asarray(rows, jnp.float32)
    stats = losses.tuplet_margin_loss(
        x, jnp.array([0, 0, 1]), margin=margin, scale=scale, reduction="none"
    )
    gaps = [math.cos(2.0), math.cos(2.0 - 0.9)]
    want = [math.log1p(math.exp(scale * (g - math.cos(0.9 - margin)))) for g in gaps]
    np.testing.assert_allclose(stats.total[:2], want, rtol=1e-5)


def test_a_margin_of_each_anchor():
    x = jax.random.normal(jax.random.key(5), (4, 3))
    margins = jnp.array([0.0, 0.1, 0.2, 0.3])
    got = losses.tuplet_margin_loss(x, PAIRS, margin=margins, reduction="none")
    for i, margin in enumerate(margins):
        one = losses.tuplet_margin_loss(x, PAIRS, margin=margin, reduction="none")
        assert got.total[i] == pytest.approx(float(one.total[i]), rel=SAME["float32"])


def test_duplicate_positives_have_a_finite_gradient():
    """PML's arc cosine gives NaN (defect 7)."""
    x = jnp.array([[0.3, -0.8, 0.1]] * 2 + [[0.5, 0.2, 0.1], [-0.3, 0.8, -0.1]])
    value, grad = jax.value_and_grad(losses.tuplet_margin_loss)(x, PAIRS)
    assert jnp.isfinite(value)
    assert jnp.isfinite(grad).all()
    assert grad.any()


def test_a_tuplet_ranked_wrongly_costs_its_gap_times_the_scale():
    x = jnp.array([U, V, U, V])

    def loss(x):
        return losses.tuplet_margin_loss(x, PAIRS, margin=0.0, scale=1000.0)

    value, grad = jax.value_and_grad(loss)(x)
    assert value == pytest.approx(1000, rel=1e-6)
    assert jnp.abs(grad).max() > 100
