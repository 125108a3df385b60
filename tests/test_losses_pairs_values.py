"""Values of the losses over weighted pairs and their distributions, worked by hand.

The fixtures and the regression values are those of the formula sheet: F1 four numbers
in two classes, F2 two equal pairs of unit vectors, F4 three numbers, F5 four equal
rows; the fan is five unit rows at unequal angles. Regression values are from PyTorch
Metric Learning 2.9.0 in float64, or from loops where the two differ on purpose.
"""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import oracles
import pytest
from hand_rows import F2, F4, F5, FAN_LABELS, PAIRS, TRIO, fan, rows, sp
from tolerances import PRINTED

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses

SIGNALS = [(1.0, -1.0), (2.0, -2.0), (-1.0, 1.0)]
E = math.e

HAND = [
    # u, u, v, v: positives cost nothing, the four negatives exceed -1/2 by a half.
    ("cosine_embedding_loss", F2, PAIRS, {}, 0.0),
    ("cosine_embedding_loss", F2, PAIRS, {"margin": -0.5}, 8 * 0.5 / 12),
    ("lifted_structure_loss", F4, TRIO, {"margin": 3.0}, (1 + sp(1)) ** 2 / 2),
    ("generalized_lifted_structure_loss", F4, TRIO, {"margin": 3.0}, (1 + 2) / 2),
    ("multi_similarity_loss", F2, PAIRS, {}, math.log(1 + 1 / E) / 2),
    (
        "circle_loss",
        F2,
        PAIRS,
        {"m": 0.25, "gamma": 1.0},
        math.log(1 + 2 * math.exp(-1 / 8)),
    ),
    ("intra_pair_variance_loss", F2, PAIRS, {}, 0.0),
    ("snr_contrastive_loss", SIGNALS, TRIO, {}, (1 + 1 / 4) / 6),
    ("histogram_loss", F5, PAIRS, {}, 1.0),
    ("histogram_loss", F2, PAIRS, {}, 0.0),
    # The positives at 2 are 1.2 beyond 0.8; of the negatives only the one at 1 is
    # inside of 1.2, by 0.2.
    (
        "ranked_list_loss",
        [[0.0], [2.0], [3.0]],
        TRIO,
        {},
        (1.2 / 2 + (1.2 + 0.2) / 2 + 0.2 / 2) / 3,
    ),
    # Collapse: the negatives exceed their margin by all that is left to 1.
    ("threshold_consistent_margin_loss", F5, PAIRS, {}, 1 - 0.5),
    ("threshold_consistent_margin_loss", F2, PAIRS, {}, 0.0),
    ("cosine_embedding_loss", F5, PAIRS, {}, 8 / 12),
    ("multi_similarity_loss", F5, PAIRS, {}, sp(-1) / 2 + (25 + math.log(2)) / 50),
]


@pytest.mark.parametrize(
    ("name", "x", "labels", "options", "value"),
    HAND,
    ids=[f"{k}-{case[0]}" for k, case in enumerate(HAND)],
)
def test_hand_values(name, x, labels, options, value):
    got = getattr(losses, name)(rows(x), labels, **options)
    assert got == pytest.approx(value, abs=PRINTED["float32"] * (1 + value))
    case = {"embeddings": x, "labels": labels}
    assert oracles.value(name, case, **options) == pytest.approx(value, rel=1e-6)


REGRESSION = [
    ("circle_loss", {}, 51.1102669164),
    ("circle_loss", {"m": 0.25, "gamma": 256.0}, 213.3890857080),
    ("multi_similarity_loss", {}, 0.5846771409),
    (
        "multi_similarity_loss",
        {"alpha": 0.1, "beta": 40.0, "base": 0.5},
        5.8109821134,
    ),
    ("lifted_structure_loss", {}, 3.2379395060),
    ("generalized_lifted_structure_loss", {}, 1.8491285345),
    ("intra_pair_variance_loss", {}, 0.0076907753),
    ("ranked_list_loss", {"negative_temperature": 1.0}, 0.3796423026),
    ("threshold_consistent_margin_loss", {}, 0.3311811717),
]


@pytest.mark.parametrize(
    ("name", "options", "value"),
    REGRESSION,
    ids=[f"{k}-{case[0]}" for k, case in enumerate(REGRESSION)],
)
def test_regression_values(name, options, value):
    with jax.enable_x64(True):
        got = getattr(losses, name)(jnp.asarray(fan()), FAN_LABELS, **options)
        assert got.dtype == jnp.float64
    # The sheet prints ten decimals.
    assert got == pytest.approx(value, abs=PRINTED["regression"])


def test_regression_value_of_the_histogram():
    """PML places float64 rows in float32 bins: 0.1792940068 there, 8.5e-7 more."""
    with jax.enable_x64(True):
        got = losses.histogram_loss(jnp.asarray(fan()), FAN_LABELS)
    assert got == pytest.approx(0.1792940068, abs=2 * PRINTED["hand"])
    case = {"embeddings": fan(), "labels": FAN_LABELS}
    assert got == pytest.approx(oracles.value("histogram_loss", case), rel=1e-12)


def test_regression_value_of_snr_in_the_form_of_pml():
    """Each side averaged over its own active terms."""

    def form_of_pml(x, labels):
        # A side is silent where no pair of its kind is beyond its margin.
        pull = losses.snr_contrastive_loss(
            x, labels, margin=0.0, reduction="mean_active"
        )
        push = losses.snr_contrastive_loss(
            x, labels, positive_margin=1e3, reduction="mean_active"
        )
        return pull + push

    with jax.enable_x64(True):
        got = form_of_pml(jnp.asarray(fan()), FAN_LABELS)
    assert got == pytest.approx(0.8414208239, abs=PRINTED["regression"])
    assert form_of_pml(rows(SIGNALS), TRIO) == pytest.approx(0.625)


# Nothing to compute -------------------------------------------------------------------

# What is left of a loss where there is one kind of pair only.
KEEPS_POSITIVES = {
    "cosine_embedding_loss",
    "multi_similarity_loss",
    "intra_pair_variance_loss",
    "snr_contrastive_loss",
    "ranked_list_loss",
    "threshold_consistent_margin_loss",
}
NAMES = sorted(
    {case[0] for case in HAND} | {case[0] for case in REGRESSION} | KEEPS_POSITIVES
)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_pair_value_and_gradient_are_exactly_zero(name):
    x = jax.random.normal(jax.random.key(0), (5, 3))
    loss = jax.jit(jax.value_and_grad(getattr(losses, name)))
    value, grad = loss(x, jnp.arange(5), where=jnp.arange(5) < 1)
    assert value == 0
    assert not grad.any()
    one_class, grad = loss(x, jnp.zeros(5, jnp.int32), where=jnp.ones(5, bool))
    assert bool(one_class != 0) == bool(grad.any()) == (name in KEEPS_POSITIVES)


# Mistakes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        (
            "multi_similarity_loss",
            {"beta": 0.0},
            "multi_similarity_loss: `beta` must be > 0, got 0.0. Typical is 40 to 50.",
        ),
        (
            "circle_loss",
            {"gamma": -1.0},
            "circle_loss: `gamma` must be > 0, got -1.0. Typical is 80 to 256.",
        ),
        (
            "ranked_list_loss",
            {"negative_temperature": -1.0},
            "ranked_list_loss: `negative_temperature` must be >= 0, got -1.0. "
            "Give a finite number.",
        ),
        (
            "histogram_loss",
            {"num_bins": 0},
            "histogram_loss: `num_bins` must be a positive int, got 0. "
            "Shapes must be known when tracing.",
        ),
        (
            "lifted_structure_loss",
            {"reduction": "avg"},
            "lifted_structure_loss: `reduction` must be one of 'mean', 'mean_active', "
            "'mean_per_anchor', 'sum', 'none', got 'avg'. Use 'mean'.",
        ),
        (
            "intra_pair_variance_loss",
            {"block_size": 0},
            "intra_pair_variance_loss: `block_size` must be a positive int or None, "
            "got 0. Use None to let the library choose.",
        ),
    ],
)
def test_mistakes_are_told(name, options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        getattr(losses, name)(rows(F2), PAIRS, **options)
