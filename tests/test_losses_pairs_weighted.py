"""Multi-similarity and circle: soft weights, at any sharpness."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import oracles
import pytest
from hand_rows import F1, FAN_LABELS, PAIRS, TRIO, U, fan, rows, sp
from tolerances import PRINTED

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


@pytest.mark.parametrize("beta", [1e-3, 50.0, 1e4])
@pytest.mark.parametrize("base", [-100.0, 0.5, 100.0])
def test_multi_similarity_is_finite_at_any_sharpness(beta, base):
    x, labels = rows(fan()), FAN_LABELS
    value, grad = jax.value_and_grad(
        lambda x: losses.multi_similarity_loss(x, labels, beta=beta, base=base)
    )(x)
    case = {"embeddings": x, "labels": labels}
    want = oracles.value("multi_similarity_loss", case, beta=beta, base=base)
    assert value == pytest.approx(want, rel=PRINTED["float32"])
    assert jnp.isfinite(grad).all()


def test_multi_similarity_of_a_distance_is_that_of_minus_the_distance():
    x, labels = rows(F1), PAIRS
    got = losses.multi_similarity_loss(
        x, labels, alpha=1.0, beta=1.0, base=-2.0, distance="euclidean"
    )
    pull = (sp(1 - 2) + sp(1 - 2) + sp(4 - 2) + sp(4 - 2)) / 4
    push = [(3, 7), (2, 6), (3, 2), (7, 6)]
    push = sum(math.log(1 + sum(math.exp(2 - d) for d in ds)) for ds in push) / 4
    assert got == pytest.approx(pull + push, rel=PRINTED["float32"])


def test_the_weights_of_a_circle_are_constants_in_its_gradient():
    """Along a line of similarity s_n, dL/ds_n is gamma w_n times a probability."""
    x, labels = rows([U, U, (0.6, 0.8)]), TRIO
    m, gamma = 0.25, 2.0

    def loss(angle):
        third = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        return losses.circle_loss(x.at[2].set(third), labels, m=m, gamma=gamma)

    angle = math.acos(0.6)
    slope = jax.grad(loss)(jnp.float32(angle))
    # Both anchors of the pair: -gamma w_p (1 - (1 - m)) of w_p = m, and s_n = 0.6.
    v = -gamma * m * m + gamma * (0.6 + m) * (0.6 - m)
    probability = 1 / (1 + math.exp(-v))
    want = probability * gamma * (0.6 + m) * -math.sin(angle)
    assert slope == pytest.approx(want, rel=1e-5)
