"""SphereFace and large-margin softmax: the multiplied angle, and lengths."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import SAME

import jaxmetric

# Untyped: a loss may return its statistics.
jm: Any = jaxmetric

ZERO = jnp.array([0])
NAMES = ["sphereface_loss", "large_margin_softmax_loss"]


def psi(angle: float, margin: int) -> float:
    """Return the multiplied angle's curve, piece by piece as in the papers."""
    k = min(math.floor(angle * margin / math.pi), margin - 1)
    return (-1) ** k * math.cos(margin * angle) - 2 * k


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("margin", [2, 3, 4])
def test_the_own_logit_falls_from_end_to_end_of_the_angle(name, margin):
    angles = np.linspace(0, math.pi, 41)
    with jax.enable_x64(True):
        # Rows of length 2; a proxy of length 3, another orthogonal to everything.
        x = 2 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
        proxies = jnp.array([[3.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        labels = jnp.zeros(len(angles), int)
        loss = getattr(jm.losses, name)
        stats = loss(jnp.asarray(x), labels, proxies, margin=margin, reduction="none")
    own = -np.log(np.expm1(stats.total)) / (2 if "sphere" in name else 6)
    np.testing.assert_allclose(own, [psi(t, margin) for t in angles], atol=1e-9)
    assert (np.diff(own) < 1e-9).all()
    assert own[0] == pytest.approx(1)
    assert own[-1] == pytest.approx(1 - 2 * margin)


@pytest.mark.parametrize("name", NAMES)
def test_values_by_hand(name):
    # 45 degrees to the own proxy: psi(45) is cos(180) = -1 for a margin of 4.
    x, proxies = jnp.array([[3.0, 3.0]]), jnp.array([[5.0, 0.0], [0.0, 2.0]])
    length = math.sqrt(18)
    other = length * math.sqrt(0.5)
    if "sphere" in name:
        want = np.logaddexp(0, other + length)
    else:
        want = np.logaddexp(0, 2 * other + 5 * length)
    loss = getattr(jm.losses, name)(x, ZERO, proxies)
    assert loss == pytest.approx(want, rel=1e-6)


def batch():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(12, 6)), rng.normal(size=(5, 6))
    labels = jnp.asarray(rng.integers(0, 5, 12), jnp.int32)
    return jnp.asarray(x, jnp.float32), labels, jnp.asarray(w, jnp.float32)


@pytest.mark.parametrize("name", NAMES)
def test_a_margin_of_one_is_the_softmax_of_inner_products(name):
    x, labels, w = batch()
    plain = jm.l2_normalize(w) if "sphere" in name else w
    want = jm.losses.weighted_softmax_loss(x, labels, plain, scale=0.5)
    got = getattr(jm.losses, name)(x, labels, w, margin=1, scale=0.5)
    assert got == pytest.approx(float(want), rel=SAME["float32"])
    # So is annealing without an end.
    got = getattr(jm.losses, name)(x, labels, w, scale=0.5, annealing=1e7)
    assert got == pytest.approx(float(want), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [0.0, 1e-7])
def test_rows_and_proxies_without_direction_stay_finite(name, length):
    x, labels, w = batch()
    x, labels = x.at[2].multiply(length), labels.at[2].set(1)
    w = w.at[3].multiply(length)
    loss = getattr(jm.losses, name)
    value, (grad, proxy_grad) = jax.value_and_grad(loss, (0, 2))(x, labels, w)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
    assert np.isfinite(proxy_grad).all()
    assert not grad[2].any()
    assert not proxy_grad[3].any()
    # All its logits are 0.
    stats = loss(x, labels, w, reduction="none")
    assert stats.total[2] == pytest.approx(math.log(5), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_along_the_own_proxy_is_finite_and_right(name):
    """With arccos it would be 0/0: the angle is 0, or a half turn."""
    w = jnp.array([[3.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    for sign in (1.0, -1.0):
        x = jnp.array([[2.0 * sign, 0.0, 0.0]])
        value, grad = jax.value_and_grad(getattr(jm.losses, name))(x, ZERO, w)
        slope = (1 if "sphere" in name else 3) * (1.0 if sign > 0 else 7.0)
        # z_y = slope * sign * |x|, the other logit is 0 and moves along (0, 0, 1).
        p = 1 / (1 + math.exp(2 * slope * sign))
        want = [[-p * slope, 0.0, p]]
        np.testing.assert_allclose(grad, want, rtol=1e-5, atol=1e-6)
        assert value == pytest.approx(np.logaddexp(0, -2 * slope * sign), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"margin": 2.5},
            "`margin` must be a positive int, got 2.5. Use 1 to 4; it is the degree of "
            "a polynomial.",
        ),
        (
            {"annealing": -1.0},
            "`annealing` must be >= 0, got -1.0. Use 0 for the loss itself, 5 to 1000 "
            "to begin with.",
        ),
    ],
)
def test_mistakes_are_told(name, arguments, text):
    with pytest.raises(ValueError, match=re.escape(f"{name}: {text}")):
        getattr(jm.losses, name)(jnp.ones((1, 2)), ZERO, jnp.eye(2), **arguments)
