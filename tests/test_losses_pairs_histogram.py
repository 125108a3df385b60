"""The histogram loss: its bins, its dtype and its size."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_rows import FAN_LABELS, PAIRS, U, fan, rows

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


def test_a_similarity_of_one_has_a_bin_and_a_finite_gradient():
    """PML fails at exactly 1 (defect 8)."""
    x = rows(np.random.default_rng(0).normal(size=(4, 3))).at[1].set(0.5)
    x = x.at[0].set(x[1])
    value, grad = jax.value_and_grad(losses.histogram_loss)(x, jnp.array(PAIRS))
    assert 0 <= value <= 1
    assert jnp.isfinite(grad).all()


def test_a_histogram_of_float64_rows_is_float64():
    """PML's bins are float32 (defect 8)."""
    with jax.enable_x64(True):
        loss = losses.histogram_loss(jnp.asarray(fan()), FAN_LABELS)
        assert loss.dtype == jnp.float64


def test_the_histogram_loss_is_the_probability_of_a_wrong_order():
    """Similarities at nodes: the bins are the values, ties count as wrong."""
    x = rows([U, (0.6, 0.8), (0.8, 0.6), (-1.0, 0.0)])
    # Positives 0.6 and -0.8; negatives 0.8, -1, 0.96 and -0.6: 2 + 3 of 8 pairs.
    got = losses.histogram_loss(x, PAIRS)
    assert got == pytest.approx(5 / 8, abs=1e-5)


@pytest.mark.parametrize("tiny", [1e-30, 1e-3])
def test_the_histogram_loss_does_not_depend_on_the_scale_of_the_weights(tiny):
    x = rows(fan())
    one = losses.histogram_loss(x, FAN_LABELS, weights=jnp.full(5, 3.0))
    got = losses.histogram_loss(x, FAN_LABELS, weights=jnp.full(5, tiny))
    assert got == pytest.approx(float(one), rel=1e-5)


def test_no_array_has_a_number_for_every_pair_and_bin():
    rows_, bins = 12, 40

    def loss(x):
        labels = jnp.arange(rows_) % 3
        return losses.histogram_loss(x, labels, num_bins=bins)

    text = jax.jit(jax.value_and_grad(loss)).lower(jnp.ones((rows_, 3))).as_text()
    sizes = [
        math.prod(int(n) for n in shape.split("x")[:-1])
        for shape in {s.split(">")[0] for s in text.split("tensor<")[1:]}
        if "x" in shape
    ]
    assert max(sizes) < rows_ * rows_ * bins / 4
    assert max(sizes) >= rows_ * 2 * bins  # the histograms of the rows


def test_similarities_that_are_not_finite_reach_no_bin_outside():
    x = rows(fan()).at[0, 0].set(jnp.nan)
    assert jnp.isnan(losses.histogram_loss(x, FAN_LABELS))
    x = x.at[0, 0].set(jnp.inf)
    assert jnp.isnan(losses.histogram_loss(x, FAN_LABELS))
