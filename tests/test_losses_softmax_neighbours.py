"""NCA and the instance loss: values by hand, stored values, and what is particular."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import PRINTED, SAME

import jaxmetric as jm

losses: Any = jm.losses
U, V = (1.0, 0.0), (0.0, 1.0)
F2 = jnp.array([U, U, V, V])
PAIRS = jnp.array([0, 0, 1, 1])
E = math.e


def fan() -> tuple[np.ndarray, np.ndarray]:
    """Return five unit rows in float64, at unequal angles, and their labels."""
    angles = np.radians([0.0, 20.0, 40.0, 60.0, 80.0])
    rows = np.stack([2 * np.cos(angles), 0.5 * np.sin(angles)], axis=-1)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows, np.array([0, 0, 1, 1, 2])


@pytest.mark.parametrize(
    ("name", "labels", "options", "value"),
    [
        ("nca_loss", [0, 0, 1, 1], {}, math.log(1 + 2 * math.exp(-2))),
        # The row itself and its positive, at similarity 1, against two at 0.
        ("instance_loss", [0, 0, 1, 1], {"gamma": 1.0}, math.log(1 + 2 / (2 * E))),
        # All labels different: the row itself against all others.
        ("instance_loss", [0, 1, 2, 3], {"gamma": 1.0}, math.log(2 + 2 / E)),
        ("instance_loss", [0, 1, 2, 3], {}, math.log(2)),
    ],
)
def test_hand_values(name, labels, options, value):
    got = getattr(losses, name)(F2, jnp.array(labels), **options)
    assert got == pytest.approx(value, rel=PRINTED["float32"])
    case = {"embeddings": F2, "labels": labels}
    assert oracles.value(name, case, **options) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "value"),
    [({}, 1.2443404402), ({"scale": 10.0}, 0.8379415450)],
)
def test_regression_values_of_nca(options, value):
    rows, labels = fan()
    with jax.enable_x64(True):
        x = jnp.asarray(rows)
        got = losses.nca_loss(x, labels, **options)
        # On unit rows the cosine distance is half the squared Euclidean one.
        scale = 2 * options.get("scale", 1.0)
        cosine = losses.nca_loss(x, labels, distance="cosine", scale=scale)
    assert got == pytest.approx(value, abs=PRINTED["regression"])
    assert cosine == pytest.approx(float(got), rel=1e-9)


@pytest.mark.parametrize("name", ["nca_loss", "instance_loss"])
def test_one_class_gives_zero(name):
    x = jax.random.normal(jax.random.key(0), (4, 3))
    value, grad = jax.value_and_grad(getattr(losses, name))(x, jnp.zeros(4, int))
    assert value == 0
    assert not grad.any()


def test_nca_without_any_positive_is_zero():
    """PML 2.9 gives NaN (defect 6)."""
    x = jax.random.normal(jax.random.key(0), (4, 3))
    value, grad = jax.value_and_grad(losses.nca_loss)(x, jnp.arange(4))
    assert value == 0
    assert not grad.any()


def test_a_probability_that_underflows_is_a_large_loss():
    """PML 2.9 drops such rows. The positive is at 100, the negative at 1."""
    refs = {"ref_embeddings": jnp.array([[100.0], [1.0]])}
    refs["ref_labels"] = jnp.array([0, 1])

    def loss(x):
        return losses.nca_loss(x, jnp.array([0]), **refs)

    value, grad = jax.value_and_grad(loss)(jnp.zeros((1, 1)))
    assert value == pytest.approx(100.0**2 - 1, rel=1e-6)
    assert grad[0, 0] == pytest.approx(-2 * 100 + 2 * 1, rel=1e-6)


def test_the_instance_loss_does_not_depend_on_the_order_of_the_batch():
    """PML takes the rank of a label for a column (defect 10)."""
    x = jax.random.normal(jax.random.key(1), (6, 3))
    labels = jnp.array([3, 1, 3, 9, 9, 4])
    order = jnp.array([4, 2, 0, 5, 1, 3])
    one = losses.instance_loss(x, labels, gamma=2.0)
    two = losses.instance_loss(x[order], labels[order], gamma=2.0)
    assert two == pytest.approx(float(one), rel=SAME["float32"])


def test_with_all_labels_different_it_is_instance_discrimination():
    x = jax.random.normal(jax.random.key(2), (5, 3))
    unit = jm.l2_normalize(x)
    logits = 4.0 * (unit @ unit.T)
    want = -jnp.mean(jnp.diag(jax.nn.log_softmax(logits)))
    got = losses.instance_loss(x, jnp.arange(5), gamma=4.0)
    assert got == pytest.approx(float(want), rel=1e-5)


def test_with_references_an_anchor_is_not_its_own_positive():
    x, refs = jnp.array([U]), jnp.array([U, V])
    loss = losses.instance_loss(
        x, jnp.array([0]), gamma=1.0, ref_embeddings=refs, ref_labels=jnp.array([0, 1])
    )
    assert loss == pytest.approx(math.log(1 + 1 / E), rel=PRINTED["float32"])
    stats = losses.instance_loss(
        x, jnp.array([2]), ref_embeddings=refs, ref_labels=jnp.array([0, 1]),
        reduction="none",
    )  # fmt: skip
    assert stats.num_terms.tolist() == [0]


def test_the_gradient_of_its_own_similarity_is_zero():
    """A row alone with one negative is only pushed by it, along the sphere."""
    x = jnp.array([[2.0, 0.0], [3.0, 4.0]])
    grad = jax.grad(losses.instance_loss)(x, jnp.array([0, 1]), gamma=2.0)
    np.testing.assert_allclose(jnp.sum(grad * x, -1), 0, atol=1e-6)
    assert grad[0, 1] > 0
