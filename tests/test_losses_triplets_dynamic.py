"""Dynamic soft margin: the histogram by hand, from batch to batch, and kept."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracle_rows import batch_of
from oracles_triplets_more import violation_histogram
from tolerances import PRINTED, SAME

import jaxmetric as jm

# Violations of the eight triplets: -2, -3 and -1, -2, twice.
F6 = np.array([[0.0], [1.0], [3.0], [4.0]], np.float32)
PAIRS = jnp.array([0, 0, 1, 1])

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


def batches(count: int = 2) -> np.ndarray:
    """Return unit rows in float64, [count, 6, 3]."""
    rows = np.random.default_rng(0).normal(size=(count, 6, 3))
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


LABELS = np.array([0, 0, 1, 1, 1, 2])


def test_values_by_hand():
    """-3 is beyond the first bin, -2 is where it starts, -1 between bins 2 and 3."""
    loss, histogram = losses.dynamic_soft_margin_loss(
        jnp.asarray(F6), PAIRS, return_histogram=True
    )
    want = [0.75, 0, 0.125, 0.125, 0, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(histogram, want, atol=1e-6)
    assert loss == pytest.approx((-0.75 * 14 - 0.875 * 2) / 8, rel=PRINTED["float32"])
    stats, again = losses.dynamic_soft_margin_loss(
        jnp.asarray(F6), PAIRS, return_histogram=True, reduction="none"
    )
    assert stats.num_terms.tolist() == [2, 2, 2, 2]
    assert not stats.num_active.any()
    np.testing.assert_array_equal(again, histogram)


def test_regression_value_of_a_first_batch():
    """PML 2.9.0 in float64."""
    with jax.enable_x64(True):
        got = losses.dynamic_soft_margin_loss(jnp.asarray(batches()[0]), LABELS)
    assert got == pytest.approx(0.097928479169, abs=PRINTED["regression"])


def test_regression_value_of_a_second_batch():
    """PML 2.9.0 in float64, momentum 0.5; a batch has the weight of its counts."""
    with jax.enable_x64(True):
        one, two = jnp.asarray(batches())
        _, state = losses.dynamic_soft_margin_loss(one, LABELS, return_histogram=True)
        got = losses.dynamic_soft_margin_loss(
            two, LABELS, momentum=0.5, histogram=state
        )
    assert got == pytest.approx(0.170983730183, abs=PRINTED["regression"])


def test_violations_beyond_both_ends_count_at_the_ends():
    """Violations of -3 and 3 with bins from -1 to 1."""
    loss, histogram = losses.dynamic_soft_margin_loss(
        jnp.zeros((1, 1)), jnp.array([0]), min_value=-1.0, num_bins=4,
        ref_embeddings=jnp.array([[0.0], [6.0], [3.0]]),
        ref_labels=jnp.array([0, 0, 1]), return_histogram=True,
    )  # fmt: skip
    assert histogram.tolist() == [0.5, 0, 0, 0.5]
    assert loss == (0.5 * -3 + 1 * 3) / 2


def test_the_state_goes_through_a_scan():
    """Two steps with gradients (PML's second backward pass raises; defect 18)."""

    def step(state, x):
        (loss, state), grad = jax.value_and_grad(
            lambda x: losses.dynamic_soft_margin_loss(
                x, LABELS, histogram=state, momentum=0.5, return_histogram=True
            ),
            has_aux=True,
        )(x)
        return state, (loss, grad, state)

    with jax.enable_x64(True):
        rows = jnp.asarray(batches(3))
        _, (values, grads, states) = jax.lax.scan(step, jnp.zeros(10), rows)
    before: Any = None
    for x, value, grad, state in zip(rows, values, grads, states, strict=True):
        case = {"embeddings": x, "labels": LABELS}
        options = {"momentum": 0.5, "histogram": before}
        want = oracles.value("dynamic_soft_margin_loss", case, **options)
        assert value == pytest.approx(want, rel=1e-9)
        batch = batch_of(case, "euclidean")
        before = violation_histogram(batch, -2.0, 10, 0.5, before)
        np.testing.assert_allclose(state, before, atol=1e-12)
        assert np.isfinite(grad).all()
        assert grad.any()


def test_a_histogram_of_zeros_is_none():
    x = jnp.asarray(batches()[0], jnp.float32)
    one = losses.dynamic_soft_margin_loss(x, LABELS)
    # However slowly it forgets, a first batch is all there is.
    for momentum in (0.01, 0.0):
        two = losses.dynamic_soft_margin_loss(
            x, LABELS, histogram=np.zeros(10), momentum=momentum
        )
        assert two == pytest.approx(float(one), rel=SAME["float32"])


@pytest.mark.parametrize("kind", ["one class", "all masked", "not finite"])
def test_what_cannot_be_counted_leaves_the_histogram(kind):
    x, y = jnp.asarray(batches()[0], jnp.float32), jnp.asarray(LABELS)
    where = jnp.ones(6, bool)
    if kind == "one class":
        y = jnp.zeros(6, jnp.int32)
    elif kind == "all masked":
        where = ~where
    else:
        x = x.at[2, 0].set(jnp.nan)
    before = jnp.linspace(0.0, 1.0, 10)
    loss, after = losses.dynamic_soft_margin_loss(
        x, y, where=where, histogram=before, return_histogram=True
    )
    np.testing.assert_array_equal(after, before)
    assert jnp.isnan(loss) if kind == "not finite" else loss == 0


def test_weights_of_anchors_do_not_enter_the_histogram():
    x = jnp.asarray(batches()[0], jnp.float32)
    weights = jnp.arange(6.0)
    one, two = (
        losses.dynamic_soft_margin_loss(x, LABELS, weights=w, return_histogram=True)[1]
        for w in (None, weights)
    )
    np.testing.assert_array_equal(one, two)


def test_there_is_no_gradient_through_the_histogram():
    """Neither to what came before, nor to the place of the bins."""

    def loss(histogram, min_value, momentum):
        return losses.dynamic_soft_margin_loss(
            jnp.asarray(batches()[0], jnp.float32), LABELS,
            histogram=histogram, min_value=min_value, momentum=momentum,
        )  # fmt: skip

    grads = jax.grad(loss, (0, 1, 2))(jnp.full(10, 0.1), -2.0, 0.5)
    assert not any(grad.any() for grad in grads)


def test_many_bins_and_rows_by_blocks():
    rng = np.random.default_rng(1)
    x, y = jnp.asarray(rng.normal(size=(40, 8)), jnp.float32), np.arange(40) % 3
    dense, blocks = (
        losses.dynamic_soft_margin_loss(
            x, y, num_bins=512, min_value=-5.0, block_size=b, return_histogram=True
        )
        for b in (40, 7)
    )
    for one, two in zip(dense, blocks, strict=True):
        np.testing.assert_allclose(one, two, rtol=SAME["float32"], atol=1e-7)
    assert blocks[1].sum() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"min_value": 0.0}, "`min_value` must be < 0, got 0.0"),
        ({"momentum": -0.1}, "`momentum` must be >= 0, got -0.1"),
        ({"num_bins": 0}, "`num_bins` must be a positive int, got 0"),
        ({"histogram": np.ones(9)}, r"`histogram` must have shape \(10,\)"),
    ],
)
def test_mistakes_are_told(options, text):
    with pytest.raises(ValueError, match=text):
        losses.dynamic_soft_margin_loss(jnp.asarray(F6), PAIRS, **options)
