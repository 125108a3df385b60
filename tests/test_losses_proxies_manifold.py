"""The manifold loss: values by hand, masks in the graph, and its limits."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import SAME, VALUE

import jaxmetric as jm

losses: Any = jm.losses


def random_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "embeddings": rng.normal(size=(12, 5)),
        "labels": rng.integers(0, 6, 12).astype(np.int32),
        "proxies": rng.normal(size=(6, 5)),
    }


def in_float64(batch: dict, **options) -> float:
    with jax.enable_x64(True):
        return float(
            losses.manifold_loss(**jax.tree.map(jnp.asarray, batch), **options)
        )


def test_a_graph_in_which_all_edges_are_alike():
    """All four nodes at right angles: every u is the margin."""
    x, labels = jnp.eye(2, 4), jnp.array([0, 1])
    value = losses.manifold_loss(x, labels, jnp.eye(4)[2:], context_weight=2.0)
    assert value == pytest.approx(3 * math.log(1 + math.exp(5e-4)), rel=1e-6)


def test_an_embedding_at_its_proxy_costs_nothing():
    value, grad = jax.value_and_grad(losses.manifold_loss)(
        jnp.eye(2), jnp.array([0, 1]), jnp.eye(2)
    )
    assert value == 0
    assert not grad.any()


def test_one_proxy_is_nothing_to_compare():
    value, grad = jax.value_and_grad(losses.manifold_loss)(
        jnp.eye(2), jnp.array([0, 0]), jnp.ones((1, 2))
    )
    assert value == 0
    assert not grad.any()


def test_the_value_at_the_defaults_is_that_of_the_loops():
    batch = random_batch()
    want = oracles.value("manifold_loss", batch)
    assert in_float64(batch) == pytest.approx(want, rel=VALUE["float64"])


def test_masked_rows_are_no_nodes_of_the_graph():
    batch = random_batch()
    where = np.arange(12) < 9
    masked = in_float64({**batch, "where": where})
    rest = {k: v[where] if k != "proxies" else v for k, v in batch.items()}
    assert masked == pytest.approx(in_float64(rest), rel=SAME["float64"])
    assert masked != pytest.approx(in_float64(batch), rel=1e-3)


def test_weights_are_those_of_a_mean():
    batch = random_batch()
    weights = np.where(np.arange(12) == 4, 0.25, 0.0)
    one = in_float64({**batch, "weights": weights})
    rows = [in_float64({**batch, "weights": np.eye(12)[k]}) for k in range(12)]
    assert one == pytest.approx(rows[4], rel=SAME["float64"])
    assert np.mean(rows) == pytest.approx(in_float64(batch), rel=SAME["float64"])


def test_an_alpha_near_one_stays_finite():
    batch = random_batch()
    x, w = (jnp.asarray(batch[k], jnp.float32) for k in ("embeddings", "proxies"))
    value, grad = jax.value_and_grad(
        lambda x: losses.manifold_loss(x, batch["labels"], w, alpha=0.999)
    )(x)
    want = oracles.value("manifold_loss", batch, alpha=0.999)
    assert value == pytest.approx(want, rel=1e-3)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpha": 1}, "`alpha` must be < 1, got 1. The paper has 0.8."),
        ({"alpha": 0}, "`alpha` must be > 0, got 0. The paper has 0.8."),
        ({"context_weight": math.inf}, "`context_weight` must be a finite number"),
        ({"context_weight": -1}, "`context_weight` must be >= 0, got -1"),
    ],
)
def test_mistakes_are_told(options, text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is below)
        in_float64(random_batch(), **options)
    assert str(caught.value).startswith(f"manifold_loss: {text}")
