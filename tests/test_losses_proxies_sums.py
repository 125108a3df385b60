"""Proxy-anchor and distributional ranking: values by hand, and what is their own."""

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


def random_batch(dtype: Any = np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "embeddings": rng.normal(size=(12, 5)).astype(dtype),
        "labels": rng.integers(0, 4, 12).astype(np.int32),
        "proxies": rng.normal(size=(6, 5)).astype(dtype),
    }


def test_proxy_anchor_by_hand():
    eye, labels = jnp.eye(2), jnp.array([0, 1])
    value = losses.proxy_anchor_loss(eye, labels, eye, margin=0.0, alpha=1.0)
    assert value == pytest.approx(math.log(1 + 1 / math.e) + math.log(2), rel=1e-6)


def test_distributional_ranking_by_hand():
    x, labels = jnp.zeros((4, 2)), jnp.array([0, 1, 1, 0])
    value = losses.distributional_ranking_loss(x, labels, jnp.eye(3, 2))
    want = 2 / 3 * math.log(1 + math.exp(3))
    assert value == pytest.approx(want, rel=PRINTED["float32"])


def test_a_class_without_embeddings_keeps_its_second_part():
    batch = random_batch()
    x, labels = batch["embeddings"], batch["labels"]
    value_and_grad = jax.jit(
        jax.value_and_grad(lambda w: losses.proxy_anchor_loss(x, labels, w))
    )
    values = []
    # Nobody has the classes 4 and 5; one of them moves among the embeddings.
    for proxy in (-x.mean(0), x.mean(0)):
        batch["proxies"][5] = proxy
        value, grad = value_and_grad(batch["proxies"])
        values.append(float(value))
        assert grad[5].any()
    assert values[1] > values[0]


def test_a_margin_may_be_one_number_a_class():
    batch = random_batch()
    alike = losses.proxy_anchor_loss(**batch, margin=np.full(6, 0.1, np.float32))
    want = float(losses.proxy_anchor_loss(**batch))
    assert alike == pytest.approx(want, rel=SAME["float32"])
    grad = jax.grad(lambda m: losses.proxy_anchor_loss(**batch, margin=m))
    grads = grad(jnp.linspace(0, 0.5, 6))
    assert (grads > 0).all()
    with pytest.raises(ValueError, match=r"`margin` must have shape \(\) or \(6,\)"):
        losses.proxy_anchor_loss(**batch, margin=np.zeros(12))


def test_the_hardest_embedding_is_all_that_counts_for_a_large_alpha():
    """The log-sum-exp divided by alpha becomes a hinge of the hardest."""
    batch = random_batch(np.float64)
    alpha = 1e5
    with jax.enable_x64(True):
        value, grad = jax.value_and_grad(
            lambda x: losses.proxy_anchor_loss(
                x, batch["labels"], batch["proxies"], alpha=alpha
            )
        )(jnp.asarray(batch["embeddings"]))
    x, w = (
        batch[k] / np.linalg.norm(batch[k], axis=1, keepdims=True)
        for k in ("embeddings", "proxies")
    )
    s, is_own = x @ w.T, batch["labels"][:, None] == np.arange(6)
    own = np.where(is_own, 0.1 - s, -np.inf).max(0)
    others = np.where(is_own, -np.inf, s + 0.1).max(0)
    present = is_own.any(0)
    want = np.maximum(own[present], 0).mean() + np.maximum(others, 0).mean()
    assert float(value) / alpha == pytest.approx(want, abs=1e-4)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("temperature", [1e-3, 1e-2])
def test_small_temperatures_rank_the_hardest_score_of_the_batch(temperature):
    """exp(p / temperature) alone would overflow; the means become extremes."""
    batch = random_batch()
    case = {**batch, "where": np.arange(12) != 1}
    options = dict(positive_temperature=temperature, negative_temperature=temperature)

    def loss(x):
        given = {**case, "embeddings": x}
        return losses.distributional_ranking_loss(**given, **options)

    value, grad = jax.value_and_grad(loss)(jnp.asarray(batch["embeddings"]))
    s = batch["embeddings"].astype(float) @ batch["proxies"].astype(float).T
    scores = 1 / (1 + np.exp(-s[case["where"]]))
    is_own = batch["labels"][case["where"], None] == np.arange(6)
    gap = scores[~is_own].max() - scores[is_own].min() + 0.5
    want = 4 / 6 * math.log1p(math.exp(6 * gap))
    assert value == pytest.approx(want, rel=20 * temperature)
    assert np.isfinite(grad).all()
    assert grad.any()


def test_a_large_sharpness_does_not_overflow():
    batch = random_batch()
    value = losses.distributional_ranking_loss(**batch, L=1e4, tau=1.0)
    case = {key: array.astype(float).tolist() for key, array in batch.items()}
    case["labels"] = batch["labels"].tolist()
    want = oracles.value("distributional_ranking_loss", case, L=1e4, tau=1.0)
    assert 0 < value == pytest.approx(want, rel=1e-5)


def test_one_class_is_nothing_to_rank():
    x, labels, proxy = jnp.ones((3, 2)), jnp.zeros(3, jnp.int32), jnp.ones((1, 2))
    loss = losses.distributional_ranking_loss
    value, grads = jax.value_and_grad(loss, argnums=(0, 2))(x, labels, proxy)
    assert value == 0
    assert not any(grad.any() for grad in grads)


def test_rows_of_weight_zero_are_left_out_of_the_means():
    batch = random_batch()
    weights = np.where(np.arange(12) < 7, 0.5, 0.0)
    some = losses.distributional_ranking_loss(**batch, weights=weights)
    where = np.arange(12) < 7
    want = float(losses.distributional_ranking_loss(**batch, where=where))
    assert some == pytest.approx(want, rel=SAME["float32"])
    assert losses.distributional_ranking_loss(**batch, weights=np.zeros(12)) == 0


def test_the_two_losses_take_no_reduction():
    for loss in (losses.proxy_anchor_loss, losses.distributional_ranking_loss):
        with pytest.raises(TypeError, match="reduction"):
            loss(**random_batch(), reduction="sum")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpha": 0}, "proxy_anchor_loss: `alpha` must be > 0, got 0. The paper has"),
        ({"block_size": 0}, "proxy_anchor_loss: `block_size` must be a positive int"),
        (
            {"proxies": jnp.ones((10, 64))},
            "proxy_anchor_loss: `proxies` must have 5 columns like `embeddings`, got "
            "shape (10, 64). Make the head's width match.",
        ),
    ],
)
def test_mistakes_are_told(options, text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is below)
        losses.proxy_anchor_loss(**{**random_batch(), **options})
    assert str(caught.value).startswith(text)


def test_values_are_those_of_the_loops_at_the_defaults():
    batch = random_batch(np.float64)
    for name in ("proxy_anchor_loss", "distributional_ranking_loss"):
        want = oracles.value(name, batch)
        with jax.enable_x64(True):
            got = getattr(losses, name)(**jax.tree.map(jnp.asarray, batch))
        assert got == pytest.approx(want, rel=VALUE["float64"])
