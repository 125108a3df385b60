"""Ranked lists: the worst violations, and weights that do not overflow."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import oracles
import pytest
from hand_rows import FAN_LABELS, PAIRS, fan, rows

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


def test_a_negative_at_distance_zero_is_the_worst_violation():
    """PML leaves it out, and adds 1e-5 a column to the weights (defect 13)."""
    x = rows([[0.0], [0.1], [0.0], [0.9]])
    got = losses.ranked_list_loss(
        x, PAIRS, negative_temperature=2.0, imbalance=1.0, reduction="none"
    )
    # Of row 0: the negatives at 0 and 0.9 are 1.2 and 0.3 inside.
    w = math.exp(2 * 1.2), math.exp(2 * 0.3)
    want = (w[0] * 1.2 + w[1] * 0.3) / (w[0] + w[1])
    assert got.total[0] == pytest.approx(want, rel=1e-6)


def test_ranked_list_weights_do_not_overflow():
    x = rows(fan())
    value, grad = jax.value_and_grad(
        lambda x: losses.ranked_list_loss(x, FAN_LABELS, negative_temperature=1e4)
    )(x)
    assert jnp.isfinite(value)
    assert jnp.isfinite(grad).all()
    # So hot, the mean is the largest violation.
    case = {"embeddings": x, "labels": FAN_LABELS}
    want = oracles.value("ranked_list_loss", case, negative_temperature=300.0)
    assert value == pytest.approx(want, rel=1e-4)


def test_alpha_follows_the_margin():
    x = rows(fan())
    one = losses.ranked_list_loss(x, FAN_LABELS, margin=0.5)
    assert one == losses.ranked_list_loss(x, FAN_LABELS, margin=0.5, alpha=1.25)
