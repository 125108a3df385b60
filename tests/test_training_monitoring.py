"""What a training step reports about itself."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmetric.reductions import LossStats
from jaxmetric.training import monitoring


def describe(embeddings, labels, ids=None):
    metrics = monitoring.describe_embeddings(embeddings, labels, ids)
    return {name: float(value) for name, value in metrics.items()}


def test_active_fraction_is_active_over_valid_terms():
    stats = LossStats(jnp.ones(2), jnp.array([3, 5]), jnp.array([2, 0]))
    assert float(monitoring.active_fraction(stats)) == 2 / 8
    empty = LossStats(jnp.zeros(2), jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.int32))
    assert float(monitoring.active_fraction(empty)) == 0
    assert np.isnan(float(monitoring.active_fraction(None)))


def test_active_fraction_does_not_overflow():
    many = jnp.full(4, 2**30, jnp.int32)
    assert float(monitoring.active_fraction(LossStats(jnp.ones(4), many, many))) == 1


def test_distances_come_from_the_first_256_rows():
    x = jnp.concatenate([jnp.zeros((255, 1)), jnp.ones((1, 1)), jnp.full((9, 1), 99.0)])
    y = jnp.zeros(265, jnp.int32)
    # 2 * 255 of the 256 * 255 ordered pairs are at distance 1, the others at 0.
    got = describe(x, y)
    np.testing.assert_allclose(got["positive_distance"], 2 / 256, rtol=1e-6)
    assert np.isnan(got["negative_distance"])
    np.testing.assert_allclose(got["embedding_norm"], (1 + 9 * 99) / 265, rtol=1e-6)


@pytest.mark.parametrize(
    ("embeddings", "labels"),
    [
        (jnp.ones((3, 2)), None),
        (jnp.ones((3, 2)), jnp.ones((3, 3), bool)),
        ((jnp.ones((3, 2)), jnp.ones((3, 4))), jnp.arange(3)),
        ((jnp.ones((3, 2)), jnp.ones((3, 2)).at[0].set(jnp.nan)), jnp.arange(3)),
        (jnp.ones((3, 2)).at[0].set(jnp.nan), jnp.array([0, 0, 1])),
    ],
    ids=["no labels", "masks", "two widths", "NaN keys", "NaN rows"],
)
def test_distances_that_mean_nothing_are_nan(embeddings, labels):
    got = describe(embeddings, labels)
    assert np.isnan(got["positive_distance"])
    assert np.isnan(got["negative_distance"])


@pytest.mark.parametrize("labels", [None, [0, 0, 1]])
def test_of_two_towers_rows_of_one_index_are_pairs(labels):
    queries = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    keys = jnp.array([[0.0, 1.0], [3.0, 2.0], [0.0, 1.0]])
    x, y = np.asarray(queries), np.asarray(keys)
    d = np.linalg.norm(x[:, None] - y[None], axis=-1)
    is_other = ~np.eye(3, dtype=bool)
    if labels is not None:
        is_other &= np.not_equal.outer(labels, labels)
        labels = {"labels": jnp.array(labels)}
    got = describe((queries, keys), labels)
    np.testing.assert_allclose(got["positive_distance"], np.diag(d).mean(), rtol=1e-5)
    np.testing.assert_allclose(got["negative_distance"], d[is_other].mean(), rtol=1e-5)


def test_collapse_is_seen_as_distance_zero():
    got = describe(jnp.full((4, 40), 3.7), jnp.array([0, 0, 1, 1]))
    assert got["positive_distance"] == got["negative_distance"] == 0


def test_global_norm_and_finiteness_look_at_every_leaf():
    tree = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]], jnp.bfloat16)}
    assert float(monitoring.global_norm(tree)) == 5
    assert bool(monitoring.all_finite(tree))
    tree["b"] = jnp.array([[jnp.inf]])
    assert not bool(monitoring.all_finite(tree))
