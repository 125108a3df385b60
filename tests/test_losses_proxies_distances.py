"""Proxy-NCA and center loss: values by hand, both denominators, fixed centres."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import random_cases
from subjects import Subject, first_order, run
from test_loss_contract_gradients import coordinates, frozen_differences
from tolerances import DIFFERENCE, PRINTED, SAME

import jaxmetric

# Untyped: a loss may return its statistics.
jm: Any = jaxmetric

ZERO = jnp.array([0])


def batch():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(12, 6)), rng.normal(size=(5, 6))
    labels = jnp.asarray(rng.integers(0, 5, 12), jnp.int32)
    return jnp.asarray(x, jnp.float32), labels, jnp.asarray(w, jnp.float32)


def test_proxy_nca_by_hand():
    with jax.enable_x64(True):
        x, proxies = jnp.array([[1.0, 0.0]]), jnp.eye(2)
        loss = jm.losses.proxy_nca_loss(x, ZERO, proxies)
        assert loss == pytest.approx(0.1269280, abs=PRINTED["hand"])
        loss = jm.losses.proxy_nca_loss(x, ZERO, proxies, exclude_positive=True)
        assert loss == pytest.approx(-2, abs=1e-12)


def test_on_unit_rows_the_cosine_with_twice_the_scale_is_the_same():
    x, labels, w = batch()
    unit, unit_w = jm.l2_normalize(x), jm.l2_normalize(w)
    want = jm.losses.proxy_nca_loss(unit, labels, unit_w, scale=3.0)
    got = jm.losses.proxy_nca_loss(x, labels, w, scale=6.0, distance="cosine")
    assert got == pytest.approx(float(want), rel=1e-5)
    softmax = jm.losses.normalized_softmax_loss(x, labels, w, temperature=1 / 6)
    assert got == pytest.approx(float(softmax), rel=1e-5)


def test_terms_below_zero_are_terms_but_not_active():
    x, labels = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 0])
    stats = jm.losses.proxy_nca_loss(
        x, labels, jnp.eye(2), exclude_positive=True, reduction="none"
    )
    np.testing.assert_allclose(stats.total, [-2, 2], rtol=1e-6)
    assert stats.num_terms.tolist() == [1, 1]
    assert stats.num_active.tolist() == [0, 1]


def test_center_loss_by_hand():
    x, centers = jnp.array([[3.0, 4.0], [1.0, 1.0]]), jnp.zeros((3, 2)).at[2].set(1.0)
    loss = jm.losses.center_loss(x[:1], ZERO, centers)
    assert loss == 12.5
    # A mean over the batch, exactly 0 at the centre.
    stats = jm.losses.center_loss(x, jnp.array([0, 2]), centers, reduction="none")
    assert stats.total.tolist() == [12.5, 0.0]
    assert jm.losses.center_loss(x, jnp.array([0, 2]), centers) == 6.25
    assert stats.num_active.tolist() == [1, 0]


def test_center_loss_keeps_the_digits_of_close_rows():
    rng = np.random.default_rng(0)
    offset = 1 + 1e-4 * rng.normal(size=(2, 4))
    x, centers = jnp.asarray(offset, jnp.float32)
    want = np.sum((np.asarray(x, float) - np.asarray(centers, float)) ** 2) / 2
    loss = jm.losses.center_loss(x[None], ZERO, centers[None])
    assert loss == pytest.approx(want, rel=1e-5)


def test_center_loss_reads_no_matrix():
    x, w = jnp.ones((512, 8)), jnp.ones((300, 8))
    labels = jnp.zeros(512, int)
    program = jax.make_jaxpr(jax.value_and_grad(jm.losses.center_loss))(x, labels, w)
    assert "512,300" not in str(program)


def test_fixed_centers_change_the_gradient_of_the_rows_in_nothing():
    x, labels, w = batch()
    loss = jm.losses.center_loss
    value, (grad, centers) = jax.value_and_grad(loss, (0, 2))(x, labels, w)
    fixed, (same, none) = jax.value_and_grad(
        lambda x, labels, w: loss(x, labels, w, stop_centers=True), (0, 2)
    )(x, labels, w)
    assert fixed == value
    np.testing.assert_array_equal(same, grad)
    assert centers.any()
    assert not none.any()
    # The paper's gradient of a row is its difference to the centre.
    np.testing.assert_allclose(grad, (x - w[labels]) / 12, rtol=1e-5, atol=1e-7)


def test_gradients_with_fixed_centers_agree_with_differences_of_the_oracle():
    subject = Subject("center_loss")
    found = [case for case, _ in random_cases(subject, 4, seed=3)]
    answers = run(subject, found, "float64", body=first_order, stop_centers=True)
    for case, got in zip(found, answers, strict=True):
        numeric = frozen_differences(subject, case, stop_centers=True)
        exact = np.array([got["grad"][name][at] for name, at in coordinates(case)])
        np.testing.assert_allclose(exact, numeric, rtol=0, atol=DIFFERENCE["float64"])
        assert np.abs(exact).max() > 0


def test_a_label_without_a_center_makes_the_loss_nan():
    x, labels, w = batch()
    assert np.isnan(jm.losses.center_loss(x, labels.at[3].set(5), w))
    where = jnp.arange(12) != 3
    masked = jm.losses.center_loss(x, labels.at[3].set(5), w, where=where)
    want = jm.losses.center_loss(x[where], labels[where], w)
    assert masked == pytest.approx(float(want), rel=SAME["float32"])


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="`scale` must be > 0, got -1"):
        jm.losses.proxy_nca_loss(jnp.ones((1, 2)), ZERO, jnp.eye(2), scale=-1)
    with pytest.raises(
        ValueError, match=r"center_loss: `labels` must lie in 0\.\.1 to"
    ):
        jm.losses.center_loss(jnp.ones((1, 2)), [2], jnp.eye(2))
