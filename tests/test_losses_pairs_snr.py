"""Noise-to-signal ratios: rows without a signal, and what changes nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_rows import TRIO, rows
from tolerances import SAME

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


def test_a_constant_row_has_no_signal_and_is_not_counted():
    """PML divides by 0: inf, and a NaN gradient (defect 14)."""
    x = jnp.array([[0.1, 0.1, 0.1], [0.3, -0.2, 0.7], [1.0, 0.4, 0.0]])

    def loss(x, **options):
        return losses.snr_contrastive_loss(x, TRIO, margin=9.0, **options)

    assert loss(x, reduction="none").num_terms.tolist() == [0, 2, 2]
    assert jnp.isfinite(jax.grad(loss)(x)).all()
    flat = jnp.full((3, 3), 0.7)
    assert loss(flat) == 0
    assert not jax.grad(loss)(flat).any()


def test_signal_to_noise_depends_on_neither_scale_nor_offset_of_the_rows():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, labels = jnp.asarray(rng.normal(size=(6, 4))), [0, 0, 1, 1, 2, 2]
        want = losses.snr_contrastive_loss(x, labels, margin=3.0)
        offsets = jnp.asarray(rng.normal(size=(6, 1)))
        for other in (1e-3 * x, 1e100 * x, x + offsets):
            got = losses.snr_contrastive_loss(other, labels, margin=3.0)
            assert got == pytest.approx(float(want), rel=100 * SAME["float64"])


@pytest.mark.parametrize("reduction", ["mean", "mean_active", "mean_per_anchor"])
def test_the_zero_mean_regulariser_adds_the_mean_over_anchors(reduction):
    """To each mean the same, however many hinges are active (15 of 30 here)."""
    x, labels = rows(np.random.default_rng(0).normal(size=(6, 4))), [0, 0, 1, 1, 2, 2]

    def loss(weight, reduction=reduction):
        return losses.snr_contrastive_loss(
            x, labels, zero_mean_weight=weight, reduction=reduction
        )

    penalty = 0.3 * np.mean(np.abs(np.sum(np.asarray(x), -1)))
    assert loss(0.3) - loss(0.0) == pytest.approx(penalty, rel=1e-5)
    active = loss(0.3, "none").num_active
    assert active.sum() == 15
    np.testing.assert_array_equal(active, loss(0.0, "none").num_active)
