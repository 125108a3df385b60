"""From per-anchor statistics to a number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmetric as jm

TOTAL = np.array([3.0, 0.0, 5.0, 0.5])
TERMS = np.array([2, 0, 4, 1])
ACTIVE = np.array([1, 0, 2, 1])
WEIGHTS = np.array([1e-3, 1.0, 2e-3, 0.0])


def stats(*slots: int) -> jm.LossStats:
    rows = list(slots or range(4))
    arrays = (TOTAL.astype(np.float32), TERMS, ACTIVE)
    return jm.LossStats(*(jnp.asarray(a[rows]) for a in arrays))


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("mean", 8.5 / 7),
        ("mean_active", 8.5 / 4),
        ("mean_per_anchor", (3 / 2 + 5 / 4 + 0.5) / 3),
        ("sum", 8.5),
    ],
)
def test_reduction_is_its_formula(reduction, expected):
    assert jm.reduce(stats(), reduction) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("mean", (3e-3 + 10e-3) / (2e-3 + 8e-3)),
        ("mean_active", (3e-3 + 10e-3) / (1e-3 + 4e-3)),
        ("mean_per_anchor", (1e-3 * 3 / 2 + 2e-3 * 5 / 4) / 3e-3),
        ("sum", 13e-3),
    ],
)
def test_small_weights_give_a_weighted_mean(reduction, expected):
    # A divisor of max(count, 1) would be wrong here: every count is below 1.
    weights = jnp.asarray(WEIGHTS, jnp.float32)
    assert jm.reduce(stats(), reduction, weights=weights) == pytest.approx(expected)


@pytest.mark.parametrize("reduction", ["mean", "mean_active", "mean_per_anchor", "sum"])
def test_nothing_to_average_is_exactly_zero(reduction):
    zero = jnp.zeros(3)

    def loss(total):
        counts = jnp.zeros(3, jnp.int32)
        return jm.reduce(jm.LossStats(total, counts, counts), reduction)

    value, gradient = jax.value_and_grad(loss)(zero)
    assert value == 0
    if reduction != "sum":
        assert not gradient.any()


def test_statistics_of_batches_add_up():
    parts = [stats(0, 1), stats(2), stats(3)]
    joined = jm.LossStats(*(jnp.concatenate(a) for a in zip(*parts, strict=True)))
    for reduction in ("mean", "mean_active", "mean_per_anchor", "sum"):
        assert jm.reduce(joined, reduction) == jm.reduce(stats(), reduction)


@pytest.mark.parametrize("reduction", ["mean", "mean_active", "mean_per_anchor", "sum"])
def test_statistics_of_a_mapped_axis_are_added_before_the_division(reduction):
    weights = jnp.asarray(WEIGHTS + 0.5, jnp.float32)
    mapped = jax.vmap(
        lambda s, w: jm.reduce(s, reduction, weights=w, axis_name="rows"),
        axis_name="rows",
    )
    shards = jax.tree.map(lambda a: a.reshape(2, 2), (stats(), weights))
    whole = jm.reduce(stats(), reduction, weights=weights)
    np.testing.assert_allclose(mapped(*shards), [whole, whole], rtol=1e-6)


def test_none_returns_weighted_statistics():
    kept = jm.reduce(stats(), "none")
    assert isinstance(kept, jm.LossStats)
    assert kept.num_terms.dtype == jnp.int32
    weighted = jm.reduce(stats(), "none", weights=jnp.asarray(WEIGHTS, jnp.float32))
    assert isinstance(weighted, jm.LossStats)
    np.testing.assert_allclose(weighted.num_terms, TERMS * WEIGHTS, rtol=1e-6)
    assert weighted.num_terms.dtype == jnp.float32


def test_counts_beyond_int32_are_exact():
    # Two classes in a batch of 4096: 1.7e10 triplets, past 2**31 and float32's 2**24.
    count = jnp.full(4096, 2047 * 2048, jnp.int32)
    total = jnp.full(4096, 2047 * 2048 * 0.25, jnp.float32)
    mean = jm.reduce(jm.LossStats(total, count, count), "mean")
    np.testing.assert_allclose(mean, 0.25, rtol=1e-6)


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match="`reduction` must be one of 'mean', "):
        jm.reduce(stats(), "avg")  # pyright: ignore (the mistake under test)
