"""Coupled clusters: values by hand, the gradient through the means, common offsets."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from cases import random_cases
from subjects import Subject, run
from test_loss_contract_gradients import coordinates, frozen_differences
from tolerances import CLEARANCE, DIFFERENCE

import jaxmetric as jm

F1 = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
PAIRS = jnp.array([0, 0, 1, 1])

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


@pytest.mark.parametrize("stop_centers", [False, True])
def test_values_by_hand(stop_centers):
    x = jnp.asarray(F1)
    loss = losses.coupled_clusters_loss(
        x, PAIRS, margin=14.0, stop_centers=stop_centers
    )
    assert loss == (4 + 4 + 1 + 1) / 4


def test_a_row_alone_in_its_class_does_not_count():
    stats = losses.coupled_clusters_loss(
        jnp.asarray(F1), jnp.array([0, 0, 1, 2]), reduction="none"
    )
    assert stats.num_terms.tolist() == [1, 1, 0, 0]


def test_means_and_negatives_are_those_of_the_references():
    """Mean of class 0 at 2, nearest negative at 5, and one row at distance 3."""
    loss = losses.coupled_clusters_loss(
        jnp.array([[5.0], [2.0]]), jnp.array([0, 0]), margin=1.0, reduction="none",
        ref_embeddings=jnp.array([[1.0], [3.0], [5.0]]),
        ref_labels=jnp.array([0, 0, 1]),
    )  # fmt: skip
    assert loss.total.tolist() == [(9 + 1 - 9) / 2, 0]
    assert loss.num_terms.tolist() == [1, 1]


def test_repeats_of_a_sample_are_in_its_mean_but_are_no_partners():
    """Rows 0 and 1 are one sample: with them the class is 0, 0, 3."""
    x, y = jnp.array([[0.0], [0.0], [3.0], [9.0]]), jnp.array([0, 0, 0, 1])
    stats = losses.coupled_clusters_loss(
        x, y, margin=100.0, ids=jnp.array([0, 0, 1, 2]), reduction="none"
    )
    near, far = (1 + 100 - 64) / 2, (4 + 100 - 64) / 2
    assert stats.total.tolist() == [near, near, far, 0]
    alone = losses.coupled_clusters_loss(
        x, y, ids=jnp.array([0, 0, 0, 2]), reduction="none"
    )
    assert not alone.num_terms.any()


def test_gradients_with_constant_means():
    subject = Subject("coupled_clusters_loss")
    clearance = 10 * CLEARANCE["float64"]
    pairs = random_cases(subject, 4, seed=3, clearance=clearance)
    found = [case for case, _ in pairs]
    answers = run(subject, found, "float64", stop_centers=True)
    for case, got in zip(found, answers, strict=True):
        numeric = frozen_differences(subject, case, stop_centers=True)
        exact = [got["grad"][name][at] for name, at in coordinates(case)]
        np.testing.assert_allclose(exact, numeric, rtol=0, atol=DIFFERENCE["float64"])


def test_a_common_offset_costs_no_digits():
    """A mean of float32 rows near 1000 is too coarse for 1e-3 between them."""
    rng = np.random.default_rng(0)
    x = (1e3 + 1e-3 * rng.normal(size=(8, 40))).astype(np.float32)
    y = np.arange(8) % 2
    stats = losses.coupled_clusters_loss(
        jnp.asarray(x), jnp.asarray(y), margin=1e-4, reduction="none"
    )
    want = oracles.evaluate(
        "coupled_clusters_loss", {"embeddings": x, "labels": y}, margin=1e-4
    )
    np.testing.assert_allclose(stats.total, want.total, rtol=1e-3)


def test_collapse_leaves_half_the_margin_without_gradient():
    x = jnp.full((4, 2), 0.3)
    value, grad = jax.value_and_grad(
        lambda x: losses.coupled_clusters_loss(x, PAIRS, margin=0.5)
    )(x)
    assert value == 0.25
    assert not grad.any()


def test_means_need_classes():
    is_same = PAIRS[:, None] == PAIRS[None, :]
    with pytest.raises(TypeError, match="got a Relation"):
        losses.coupled_clusters_loss(jnp.asarray(F1), jm.Relation(is_same, ~is_same))
