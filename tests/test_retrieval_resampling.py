"""Confidence intervals by resampling."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmetric import retrieval

KEY = jax.random.key(0)


def test_the_interval_of_a_share_is_that_of_a_binomial():
    # 60 of 200, and 40 that are not counted: the mean's deviation is known.
    values = np.full(240, np.nan, np.float32)
    values[::4] = 1
    values[1::6] = 0
    counted = values[~np.isnan(values)]
    share, n = counted.mean(), counted.size
    assert n < 240
    found = retrieval.bootstrap(KEY, values, num_samples=4000)
    assert isinstance(found, retrieval.Interval)
    assert found.value == pytest.approx(share)
    half = 1.96 * math.sqrt(share * (1 - share) / n)
    assert found.low == pytest.approx(share - half, abs=0.15 * half)
    assert found.high == pytest.approx(share + half, abs=0.15 * half)
    # Less confidence, a narrower interval.
    middle = retrieval.bootstrap(KEY, values, num_samples=4000, confidence=0.5)
    expected = 0.6745 / 1.96 * half
    assert middle.high - middle.low == pytest.approx(2 * expected, rel=0.15)


def test_the_interval_covers_as_often_as_it_says():
    # 200 data sets from one distribution, whose mean is known: 0.9 of them, give or
    # take four deviations of 0.02.
    values = jax.random.exponential(jax.random.key(1), (200, 60))
    one = lambda key, v: retrieval.bootstrap(  # noqa: E731
        key, v, num_samples=300, confidence=0.9
    )
    found = jax.jit(jax.vmap(one))(jax.random.split(KEY, 200), values)
    covered = jnp.mean((found.low <= 1) & (found.high >= 1))
    assert 0.8 < covered < 0.97


def test_metrics_of_the_same_queries_are_drawn_together():
    values = np.random.default_rng(0).random(50).astype(np.float32)
    metrics = dict(b=2 * values, a=values, num_queries=np.ones(50, np.int32))
    found = retrieval.bootstrap(KEY, metrics, num_samples=50)
    assert list(found) == ["b", "a"]
    assert found["b"] == pytest.approx(tuple(2 * float(x) for x in found["a"]))
    again = retrieval.bootstrap(KEY, metrics, num_samples=50)
    assert again == found
    other = retrieval.bootstrap(jax.random.key(1), metrics, num_samples=50)
    assert other["a"].value == found["a"].value
    assert other["a"].low != found["a"].low


def test_nothing_that_is_counted_is_nan_and_one_query_is_certain():
    nobody = retrieval.bootstrap(KEY, np.full(5, np.nan, np.float32), num_samples=9)
    assert all(jnp.isnan(x) for x in nobody)
    one = np.array([np.nan, 0.25, np.nan, np.nan, np.nan], np.float32)
    assert retrieval.bootstrap(KEY, one, num_samples=9) == (0.25, 0.25, 0.25)


def test_a_statistic_of_resampled_pairs():
    rng = np.random.default_rng(2)
    is_same = rng.random(300) < 0.5
    distances = (rng.normal(size=300) - is_same).astype(np.float32)
    sizes = []

    def statistic(pairs):
        sizes.append(pairs[0].shape)
        return retrieval.verification(*pairs, far=0.1)

    found = retrieval.bootstrap(
        KEY, (distances, is_same), statistic=statistic, num_samples=300
    )
    assert set(sizes) == {(300,)}
    whole = retrieval.verification(distances, is_same, far=0.1)
    assert found["auc"].value == whole["auc"]
    # Hanley and McNeil's deviation of an area of about 0.76.
    half = (found["auc"].high - found["auc"].low) / 2
    assert half == pytest.approx(1.96 * 0.0275, rel=0.25)
    assert found["auc"].low < whole["auc"] < found["auc"].high


def test_bad_calls_name_the_argument_and_the_remedy():
    values = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="bootstrap") as error:
        retrieval.bootstrap(KEY, values, confidence=95)
    assert str(error.value) == (
        "bootstrap: `confidence` must lie between 0 and 1, got 95. Use confidence=0.95."
    )
    with pytest.raises(ValueError, match="bootstrap") as error:
        retrieval.bootstrap(KEY, values, num_samples=0)
    assert str(error.value) == (
        "bootstrap: `num_samples` must be a positive int, got 0. Use 1000."
    )
    with pytest.raises(ValueError, match="bootstrap") as error:
        retrieval.bootstrap(KEY, dict(num_queries=np.ones(3, np.int32)))
    assert str(error.value) == (
        "bootstrap: `metrics` must hold arrays with equally many rows, got none. "
        'Use what a metric returns with reduction="none".'
    )
