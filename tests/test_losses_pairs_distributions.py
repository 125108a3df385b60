"""Losses of two distributions: their means, bounds and weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hand_rows import FAN_LABELS, U, V, fan, rows
from tolerances import DIFFERENCE, PRINTED, STEP

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


def test_pairs_exactly_at_their_similarity_are_averaged_in():
    """They add nothing to the sum, but one to the count."""
    x = rows([U, (0.6, 0.8), V])
    options = {"positive_margin": 0.6, "negative_margin": 0.0}

    def loss(x, labels):
        return losses.threshold_consistent_margin_loss(x, labels, **options)

    # Negatives: cosines of 0 (at the margin) and 0.8, in both orders.
    assert loss(x, [0, 0, 1]) == pytest.approx((0 + 0.8) / 2, rel=1e-6)
    # Positives: cosines of 0 (at the margin), -1 and 0.
    options["positive_margin"] = 0.0
    x = rows([U, V, (-1.0, 0.0)])
    assert loss(x, [0, 0, 0]) == pytest.approx((0 + 1 + 0) / 3, rel=1e-6)


def test_thresholds_may_be_one_an_anchor():
    x, labels = rows(fan()), FAN_LABELS
    margins = jnp.array([0.95, 0.9, 0.99, 0.98, 0.9])
    got = losses.threshold_consistent_margin_loss(
        x, labels, positive_margin=margins, negative_margin=margins - 0.5
    )
    want = oracles.value(
        "threshold_consistent_margin_loss",
        {"embeddings": x, "labels": labels},
        positive_margin=margins.tolist(),
        negative_margin=(margins - 0.5).tolist(),
    )
    assert got == pytest.approx(want, rel=PRINTED["float32"])


def test_the_means_of_intra_pair_variance_have_gradients():
    """All but one positive at the mean or above it: moving those moves the mean."""
    with jax.enable_x64(True):
        x = jnp.asarray(fan())
        labels = jnp.array([0, 0, 0, 1, 1])

        def loss(x):
            return losses.intra_pair_variance_loss(x, labels)

        grad = np.asarray(jax.grad(loss)(x))
        step = np.zeros_like(x)
        for at in np.ndindex(x.shape):
            step[at] = STEP
            numeric = float(loss(x + step) - loss(x - step)) / (2 * STEP)
            step[at] = 0
            assert grad[at] == pytest.approx(numeric, abs=DIFFERENCE["float64"])


def test_a_distance_swaps_the_two_forms_of_intra_pair_variance():
    x, labels, slack = rows([[0.0], [1.0], [4.0]]), [0, 0, 0], 0.1
    got = losses.intra_pair_variance_loss(
        x, labels, positive_epsilon=slack, distance="euclidean"
    )
    bound = (1 + slack) * (1 + 3 + 4) / 3
    assert got == pytest.approx(((3 - bound) ** 2 + (4 - bound) ** 2) / 3, rel=1e-6)


def test_weights_weigh_the_pairs_of_an_anchor_in_a_distribution():
    """Anchor 1 counts three times: its pair is 0.6, that of anchor 3 is 0.8."""
    x = rows([U, (0.6, 0.8)])
    refs = {"ref_embeddings": rows([U, (0.8, 0.6)]), "ref_labels": [0, 1]}
    got = losses.threshold_consistent_margin_loss(x, [0, 0], weights=[1.0, 3.0], **refs)
    # Lacks of 0.9: none (1.0), 0.3; excesses over 0.5: 0.3, 0.46.
    assert got == pytest.approx(0.3 + (1 * 0.3 + 3 * 0.46) / 4, rel=1e-6)
