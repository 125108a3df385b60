"""Several proxies a class: the nearest, a soft choice, and devices that share them."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tolerances import SAME

import jaxmetric

# Untyped: a loss may return its statistics.
jm: Any = jaxmetric

ZERO = jnp.array([0])
NAMES = ["subcenter_arcface_loss", "soft_triple_loss"]


def batch(num_centers: int = 3):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(16, 6)), rng.normal(size=(5, num_centers, 6))
    labels = jnp.asarray(rng.integers(0, 5, 16), jnp.int32)
    return jnp.asarray(x, jnp.float32), labels, jnp.asarray(w, jnp.float32)


def test_values_by_hand():
    # Cosines 0 and 1 to the own class, 0 and -1 to the other.
    x = jnp.array([[1.0, 0.0]])
    w = jnp.array([[[0.0, 1.0], [2.0, 0.0]], [[0.0, 3.0], [-1.0, 0.0]]])
    loss = jm.losses.subcenter_arcface_loss(x, ZERO, w, margin=0.5, scale=1.0)
    assert loss == pytest.approx(math.log1p(math.exp(-math.cos(0.5))), rel=1e-6)
    loss = jm.losses.soft_triple_loss(x, ZERO, w, la=2.0, gamma=0.5, margin=0.25)
    own = math.exp(2) / (1 + math.exp(2))
    other = -math.exp(-2) / (1 + math.exp(-2))
    want = math.log1p(math.exp(2 * (other - own + 0.25)))
    assert loss == pytest.approx(want, rel=1e-6)


def test_one_center_a_class_is_the_loss_of_one_proxy_a_class():
    x, labels, w = batch(1)
    got = jm.losses.subcenter_arcface_loss(x, labels, w, margin=0.3, scale=10.0)
    want = jm.losses.arcface_loss(x, labels, w[:, 0], margin=0.3, scale=10.0)
    assert got == pytest.approx(float(want), rel=SAME["float32"])
    got = jm.losses.soft_triple_loss(x, labels, w, la=10.0, margin=0.3)
    want = jm.losses.cosface_loss(x, labels, w[:, 0], margin=0.3, scale=10.0)
    assert got == pytest.approx(float(want), rel=SAME["float32"])


def test_a_cold_choice_takes_the_nearest_center():
    x, labels, w = batch()
    got = jm.losses.soft_triple_loss(x, labels, w, gamma=1e-3, margin=0.0)
    want = jm.losses.subcenter_arcface_loss(x, labels, w, scale=20.0, margin=0.0)
    assert got == pytest.approx(float(want), rel=1e-4)


def test_equally_near_centers_leave_the_gradient_to_the_first():
    x, labels, w = batch()
    w = w.at[:, 2].set(w[:, 1])
    grad = jax.grad(jm.losses.subcenter_arcface_loss, 2)(x, labels, w)
    assert not grad[:, 2].any()
    assert grad[:, 1].any()


def test_the_order_of_the_centers_of_a_class_does_not_matter():
    x, labels, w = batch()
    for name in NAMES:
        loss = getattr(jm.losses, name)
        one, other = loss(x, labels, w), loss(x, labels, w[:, ::-1])
        assert one == pytest.approx(float(other), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("proxies", "text"),
    [
        (
            jnp.eye(3),
            "`proxies` must have shape (classes, centers, dim), got (3, 3). Use "
            "proxies[:, None, :] for one center a class.",
        ),
        (
            jnp.ones((2, 3, 4)),
            "`proxies` must have 3 columns like `embeddings`, got shape (6, 4). Make "
            "the head's width match.",
        ),
    ],
)
def test_mistakes_are_told(name, proxies, text):
    with pytest.raises(ValueError, match=re.escape(f"{name}: {text}")):
        getattr(jm.losses, name)(jnp.ones((1, 3)), ZERO, proxies)
    with pytest.raises(ValueError, match=r"lie in 0\.\.2 to name a row of `proxies`"):
        getattr(jm.losses, name)(jnp.ones((1, 3)), [3], jnp.ones((3, 3, 3)))


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "subcenter_arcface_loss",
        "center_loss",
        pytest.param("arcface_loss", marks=pytest.mark.slow),
        pytest.param("large_margin_softmax_loss", marks=pytest.mark.slow),
        pytest.param("sphereface_loss", marks=pytest.mark.slow),
        pytest.param("soft_triple_loss", marks=pytest.mark.slow),
        pytest.param("proxy_nca_loss", marks=pytest.mark.slow),
    ],
)
def test_devices_share_the_proxies_and_split_the_batch(name, check_vma):
    x, labels, w = batch()
    w = w if name in NAMES else w[:, 0]
    where = jnp.arange(16) != 5
    loss = getattr(jm.losses, name)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows, whole = PartitionSpec("data"), PartitionSpec()

    def local(x, w, labels, where):
        return loss(x, labels, w, where=where, axis_name="data")

    mapped = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(rows, whole, rows, rows),
        out_specs=whole,
        check_vma=check_vma,
    )
    shards = [jax.device_put(a, NamedSharding(mesh, rows)) for a in (x, labels, where)]
    value, grads = jax.jit(jax.value_and_grad(mapped, (0, 1)))(
        shards[0], w, *shards[1:]
    )

    def single(x, w):
        return loss(x, labels, w, where=where)

    want, want_grads = jax.jit(jax.value_and_grad(single, (0, 1)))(x, w)
    assert value == pytest.approx(float(want), rel=2e-6)
    for got, expected in zip(grads, want_grads, strict=True):
        largest = 64 * np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * largest)
