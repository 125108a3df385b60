"""Semi-hard triplets of classes with more positives than are kept as indices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import jaxmetric as jm
from jaxmetric.losses import triplets_semi_hard

ROWS = 26


def batch(dim, kind):
    """Return rows of which some classes are far above the number kept, some below."""
    rng = np.random.default_rng(dim)
    x = rng.normal(size=(ROWS, dim))
    y = np.sort(rng.integers(0, 2, ROWS)) if kind == "large" else np.arange(ROWS) // 10
    y[:3] = 7
    where = rng.random(ROWS) < 0.9
    return x, y.astype(np.int32), where


@pytest.mark.parametrize(
    "kind", ["large", pytest.param("at the limit", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("block_size", [pytest.param(None, marks=pytest.mark.slow), 5])
def test_large_classes_equal_loops_and_finite_differences(kind, block_size):
    x, y, where = batch(4, kind)
    assert np.bincount(y).max() > triplets_semi_hard._KEPT_POSITIVES + 1
    case = dict(embeddings=x, labels=y, where=where)
    expected = oracles.evaluate("semi_hard_triplet_loss", case, margin=0.5)
    with jax.enable_x64(True):

        def loss(x) -> Any:
            return jm.losses.semi_hard_triplet_loss(
                x, y, margin=0.5, where=where, block_size=block_size, reduction="none"
            )

        x = jnp.asarray(x)
        stats = jax.jit(loss)(x)
        np.testing.assert_allclose(stats.total, expected.total, atol=1e-9)
        np.testing.assert_array_equal(stats.num_terms, expected.num_terms)
        np.testing.assert_array_equal(stats.num_active, expected.num_active)

        def total(x):
            return loss(x).total.sum()

        gradient = jax.jit(jax.grad(total))(x)
        steps = 1e-6 * jnp.eye(x.size).reshape(-1, *x.shape)
        difference = jax.jit(jax.vmap(lambda h: total(x + h) - total(x - h)))(steps)
        numerical = (difference / 2e-6).reshape(x.shape)
        np.testing.assert_allclose(gradient, numerical, atol=1e-6)


@pytest.mark.slow
def test_derivatives_do_not_depend_on_how_many_are_kept(monkeypatch):
    x, y, _ = batch(40, "large")
    x = jnp.asarray(x, jnp.float32)

    def derivatives():
        # A fresh function each time, so that the number is read anew.
        jax.clear_caches()

        def loss(x):
            return jm.losses.semi_hard_triplet_loss(x, y, margin=0.5)

        tangent = jnp.sin(x)
        value, gradient = jax.value_and_grad(loss)(x)
        return value, gradient, *jax.jvp(jax.grad(loss), (x,), (tangent,))

    some = derivatives()
    monkeypatch.setattr(triplets_semi_hard, "_KEPT_POSITIVES", ROWS)
    for found, expected in zip(some, derivatives(), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_further_positives_exactly_on_the_margin_are_inactive():
    """One anchor at 0, all its positives at 1, its negative at 3: the gap is 2."""
    num_positives = triplets_semi_hard._KEPT_POSITIVES + 4
    refs = jnp.array([[1.0]] * num_positives + [[3.0]])
    ref_labels = jnp.array([0] * num_positives + [1])

    def loss(x, refs, reduction) -> Any:
        return jm.losses.semi_hard_triplet_loss(
            x,
            jnp.array([0]),
            margin=2.0,
            ref_embeddings=refs,
            ref_labels=ref_labels,
            reduction=reduction,
        )

    stats = loss(jnp.zeros((1, 1)), refs, "none")
    assert stats.num_terms.tolist() == [num_positives]
    assert stats.num_active.tolist() == [0]
    gradients = jax.grad(loss, argnums=(0, 1))(jnp.zeros((1, 1)), refs, "sum")
    assert not any(gradient.any() for gradient in gradients)
