"""P2SGrad and seesaw: values by hand, and what is their own."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import PRINTED, SAME, VALUE

import jaxmetric as jm

losses: Any = jm.losses


def random_batch() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        "embeddings": jnp.asarray(rng.normal(size=(12, 5)), jnp.float32),
        "labels": jnp.asarray([0, 0, 0, 0, 0, 0, 1, 1, 2, 4, 4, 4], jnp.int32),
        "proxies": jnp.asarray(rng.normal(size=(6, 5)), jnp.float32),
    }


def test_p2s_grad_by_hand():
    x, proxies = jnp.array([[3.0, 4.0], [0.0, 1.0]]), jnp.array([[2.0, 0.0], [0.0, 1]])
    value = losses.p2s_grad_loss(x, jnp.array([0, 1]), proxies)
    assert value == pytest.approx((0.4**2 + 0.8**2 + 0 + 0) / 4, rel=1e-6)


def test_p2s_grad_of_a_zero_row_is_finite():
    batch = random_batch()
    x = batch["embeddings"].at[3].set(0)
    stats = losses.p2s_grad_loss(**{**batch, "embeddings": x}, reduction="none")
    # Its cosines are 0: only the own class misses something.
    assert stats.total[3] == 1
    assert (stats.num_terms[3], stats.num_active[3]) == (6, 1)
    grad = jax.grad(lambda x: losses.p2s_grad_loss(**{**batch, "embeddings": x}))(x)
    assert np.isfinite(grad).all()
    assert not grad[3].any()


def test_p2s_grad_of_the_own_proxy_is_zero_to_the_last_bit():
    proxies = jnp.eye(3)
    labels = jnp.array([0, 1, 2])
    loss = losses.p2s_grad_loss
    value, grad = jax.value_and_grad(loss)(7 * proxies, labels, proxies)
    assert value == 0
    assert not grad.any()


def test_seesaw_by_hand():
    x, proxies = jnp.array([[1.0, 1.0]]), jnp.eye(2)
    counts = jnp.array([2, 1])
    value = losses.seesaw_loss(x, jnp.array([0]), proxies, class_counts=counts)
    want = math.log(1 + 0.5**0.8)
    assert value == pytest.approx(want, rel=PRINTED["float32"])
    # The other way round nothing is spared.
    value = losses.seesaw_loss(x, jnp.array([1]), proxies, class_counts=counts)
    assert value == pytest.approx(math.log(2), rel=PRINTED["float32"])


def test_seesaw_without_factors_is_normalized_softmax():
    batch = random_batch()
    want = float(losses.normalized_softmax_loss(**batch, temperature=1 / 20))
    got = losses.seesaw_loss(**batch, p=0, q=0)
    assert got == pytest.approx(want, rel=SAME["float32"])


def test_seesaw_counts_the_existing_rows_of_the_batch():
    batch = random_batch()
    where = np.arange(12) != 7
    counts = np.bincount(np.asarray(batch["labels"])[where], minlength=6)
    got = losses.seesaw_loss(**batch, where=where)
    assert got == losses.seesaw_loss(**batch, where=where, class_counts=counts)
    case = {key: np.asarray(array) for key, array in batch.items()}
    want = oracles.value("seesaw_loss", {**case, "where": where})
    assert got == pytest.approx(want, rel=1e-5)
    # A row whose label is masked may have any label.
    other = {**batch, "labels": batch["labels"].at[7].set(-2)}
    assert losses.seesaw_loss(**other, where=where) == got


def test_seesaw_counts_of_zero_are_as_one():
    batch = random_batch()
    counts = jnp.array([6, 2, 1, 0, 3, 0])
    got = losses.seesaw_loss(**batch, class_counts=counts)
    assert got == losses.seesaw_loss(
        **batch, class_counts=jnp.where(counts == 0, 1, counts)
    )


def test_the_compensation_of_seesaw_has_a_value_but_no_gradient():
    """The gradient is that of the formula with K given as constants."""
    batch = random_batch()
    labels, counts = batch["labels"], jnp.array([9.0, 3.0, 1.0, 1.0, 5.0, 1.0])

    def logits(x):
        return 20 * (jm.l2_normalize(x) @ jm.l2_normalize(batch["proxies"]).T)

    z = logits(batch["embeddings"])
    scores = jax.nn.softmax(z)
    own = jnp.take_along_axis(scores, labels[:, None], 1)
    k = jnp.maximum(scores / jnp.maximum(own, 0.01), 1) ** 2
    m = jnp.minimum(counts[None, :] / counts[labels][:, None], 1) ** 0.8

    def frozen(x):
        z = logits(x)
        gap = z - jnp.take_along_axis(z, labels[:, None], 1)
        is_other = labels[:, None] != jnp.arange(6)[None, :]
        return jnp.mean(
            jnp.log1p(jnp.sum(jnp.where(is_other, m * k * jnp.exp(gap), 0), 1))
        )

    def loss(x):
        return losses.seesaw_loss(**{**batch, "embeddings": x}, class_counts=counts)

    got, want = (
        jax.jit(jax.value_and_grad(f))(batch["embeddings"]) for f in (loss, frozen)
    )
    assert (k > 1).any()
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    np.testing.assert_allclose(got[1], want[1], atol=1e-5)


@pytest.mark.parametrize("name", ["p2s_grad_loss", "seesaw_loss"])
def test_values_are_those_of_the_loops_at_the_defaults(name):
    case = {key: np.asarray(array) for key, array in random_batch().items()}
    want = oracles.value(name, case)
    with jax.enable_x64(True):
        x, w = (jnp.asarray(case[k], jnp.float64) for k in ("embeddings", "proxies"))
        got = getattr(losses, name)(x, case["labels"], w)
    assert got == pytest.approx(want, rel=VALUE["float64"])


def test_mistakes_are_told():
    batch = random_batch()
    with pytest.raises(ValueError, match=r"`class_counts` must have shape \(6,\)"):
        losses.seesaw_loss(**batch, class_counts=np.ones(5))
    with pytest.raises(ValueError, match=r"`epsilon` must be > 0, got 0"):
        losses.seesaw_loss(**batch, epsilon=0)
    with pytest.raises(ValueError, match=r"`p` must be >= 0, got -1"):
        losses.seesaw_loss(**batch, p=-1)
