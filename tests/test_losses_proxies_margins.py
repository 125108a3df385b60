"""ArcFace and CosFace: values by hand, the ends of the angle, small angles."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import PRINTED, SAME

import jaxmetric

# Untyped: a loss may return its statistics.
jm: Any = jaxmetric

U = jnp.array([[1.0, 0.0]])
EYE = jnp.eye(2)
ZERO = jnp.array([0])


def batch(rows: int = 12, dim: int = 6, classes: int = 5):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(rows, dim)), rng.normal(size=(classes, dim))
    labels = jnp.asarray(rng.integers(0, classes, rows), jnp.int32)
    return jnp.asarray(x, jnp.float32), labels, jnp.asarray(w, jnp.float32)


def test_values_by_hand():
    with jax.enable_x64(True):
        x, proxies = jnp.array([[1.0, 0.0]]), jnp.eye(2)
        loss = jm.losses.arcface_loss(x, ZERO, proxies, margin=0.5, scale=1.0)
        assert loss == pytest.approx(0.3476854, abs=PRINTED["hand"])
        loss = jm.losses.cosface_loss(x, ZERO, proxies, margin=0.5, scale=1.0)
        assert loss == pytest.approx(0.4740770, abs=PRINTED["hand"])


@pytest.mark.parametrize("angle", [0.0, 1.0, 2.5, math.pi - 0.5001, 2.7, 3.0, math.pi])
def test_arcface_beyond_the_last_angle_goes_on_falling(angle):
    with jax.enable_x64(True):
        x = jnp.array([[math.cos(angle), math.sin(angle)]])
        # The other class is orthogonal to everything.
        x, proxies = jnp.pad(x, ((0, 0), (0, 1))), jnp.eye(3)[::2]
        loss = jm.losses.arcface_loss(x, ZERO, proxies, margin=0.5, scale=3.0)
    own = math.cos(angle + 0.5)
    if angle > math.pi - 0.5:
        own = math.cos(angle) - 0.5 * math.sin(0.5)
    assert loss == pytest.approx(math.log1p(math.exp(-3 * own)), rel=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_gradient_at_the_ends_of_the_angle_is_that_of_the_cosines(dtype, sign):
    """There the sine has no gradient, and so the own logit has none."""
    x, proxies = sign * U.astype(dtype), EYE.astype(dtype)
    grad = jax.grad(jm.losses.arcface_loss)(x, ZERO, proxies, margin=0.5, scale=2.0)
    own = math.cos(0.5) if sign > 0 else -1 - 0.5 * math.sin(0.5)
    other = 1 / (1 + math.exp(2 * own))
    np.testing.assert_allclose(
        grad.astype(jnp.float32), [[0, 2 * other]], atol=float(jnp.finfo(dtype).eps)
    )


@pytest.mark.parametrize("angle", [1e-2, 1e-3, 1e-4, 1e-5])
def test_small_angles_keep_their_digits(angle):
    """1 - cos is rounding there, and its root would be wrong by 3e-4."""
    x = jnp.array([[math.cos(angle), math.sin(angle), 0.0]], jnp.float32)
    angle = math.atan2(x[0, 1], x[0, 0])
    proxies = jnp.eye(3)[::2]

    def loss(x):
        return jm.losses.arcface_loss(x, ZERO, proxies, margin=0.5, scale=8.0)

    value, grad = jax.value_and_grad(loss)(x)
    want = math.log1p(math.exp(-8 * math.cos(angle + 0.5)))
    assert value == pytest.approx(want, rel=1e-5)
    # Along the circle, d/d angle of log(1 + exp(-8 cos(angle + 1/2))).
    slope = 8 * math.sin(angle + 0.5) / (1 + math.exp(8 * math.cos(angle + 0.5)))
    assert grad[0, 1] == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize("name", ["arcface_loss", "cosface_loss"])
def test_without_a_margin_both_are_the_normalized_softmax(name):
    x, labels, w = batch()
    got = getattr(jm.losses, name)(x, labels, w, margin=0.0, scale=10.0)
    want = jm.losses.normalized_softmax_loss(x, labels, w, temperature=0.1)
    assert got == pytest.approx(float(want), rel=SAME["float32"])


@pytest.mark.parametrize(
    "name", ["arcface_loss", "cosface_loss", "subcenter_arcface_loss"]
)
def test_every_anchor_may_have_a_margin(name):
    x, labels, w = batch()
    w = jnp.stack([w, w[::-1]], 1) if "subcenter" in name else w
    loss = getattr(jm.losses, name)
    margin = jnp.linspace(0, 1, x.shape[0])
    stats = loss(x, labels, w, margin=margin, reduction="none", block_size=5)
    for i in range(x.shape[0]):
        one = loss(x[i : i + 1], labels[i : i + 1], w, margin=margin[i])
        assert stats.total[i] == pytest.approx(float(one), rel=1e-5)


def test_a_clear_win_still_has_a_loss():
    proxies = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    loss = jm.losses.cosface_loss(U, ZERO, proxies, margin=0.25, scale=20.0)
    assert loss == pytest.approx(math.exp(-20 * 1.75), rel=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_labels_of_few_bits_name_proxies_among_many(dtype):
    x, labels, _ = batch()
    w = jnp.asarray(np.random.default_rng(1).normal(size=(300, 6)), jnp.float32)
    got = jm.losses.cosface_loss(x, labels.astype(dtype), w)
    assert got == jm.losses.cosface_loss(x, labels, w)
    with pytest.raises(ValueError, match=r"lie in 0\.\.4 to"):
        jm.losses.cosface_loss(x, np.full(12, 200, np.uint8), w[:5])


SINGLE = [
    "arcface_loss",
    "cosface_loss",
    "large_margin_softmax_loss",
    "proxy_nca_loss",
    "soft_triple_loss",
    "sphereface_loss",
    "subcenter_arcface_loss",
]


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_class_is_certain(name):
    x = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    has_centers = name in ("soft_triple_loss", "subcenter_arcface_loss")
    proxies = jnp.ones((1, 2, 2) if has_centers else (1, 2))
    loss = jax.value_and_grad(getattr(jm.losses, name), (0, 2))
    value, grads = loss(x, jnp.zeros(2, int), proxies)
    assert value == 0
    assert not any(g.any() for g in grads)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"scale": 0.0}, "`scale` must be > 0, got 0.0. Typical values are 16 to 64."),
        (
            {"margin": jnp.ones(2)},
            "`margin` must have shape () or (1,), got shape (2,). Use jax.vmap to "
            "sweep over values.",
        ),
    ],
)
def test_mistakes_are_told(arguments, text):
    for name in ("arcface_loss", "cosface_loss"):
        with pytest.raises(ValueError, match=re.escape(f"{name}: {text}")):
            getattr(jm.losses, name)(U, ZERO, EYE, **arguments)
