"""Sums of numbers in [0, 1] that no order of the terms changes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmetric.retrieval import fixed_point


@pytest.mark.parametrize("n", [60_000, 2**20 + 5, 2**23 + 5])
def test_sums_of_many_numbers_are_exact(n):
    values = np.random.default_rng(10).random(n).astype(np.float32)
    numbers = fixed_point.encode(jnp.asarray(values))
    total = fixed_point.total(numbers, jnp.dtype(jnp.float32))
    mean = math.fsum(values.tolist()) / n
    assert abs(float(total) / n - mean) < 2e-7
    ones = jnp.full(n, fixed_point.encode(jnp.float32(1)))
    assert fixed_point.total(ones, jnp.dtype(jnp.float32)) == np.float32(n)


def test_the_order_changes_no_bit():
    values = np.random.default_rng(0).random(10_001).astype(np.float32)
    means = [
        fixed_point.mean(jnp.asarray(a), jnp.ones(a.shape, bool))
        for a in (values, values[::-1], np.sort(values))
    ]
    assert means[0] == means[1] == means[2]


def test_a_mean_is_over_what_is_counted():
    values = jnp.array([0.25, np.nan, 0.75])
    assert fixed_point.mean(values, jnp.array([True, False, True])) == 0.5
    assert jnp.isnan(fixed_point.mean(values, jnp.zeros(3, bool)))
    with jax.enable_x64(True):
        wide = jnp.array([0.1, 0.2], jnp.float64)
        mean = fixed_point.mean(wide, jnp.ones(2, bool))
        assert mean.dtype == jnp.float64
        assert abs(mean - 0.15) < 1e-12
