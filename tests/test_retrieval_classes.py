"""Averages class by class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmetric import retrieval

LABELS = np.array([7, -3, 7, 7, 2**31 - 1, -3])
VALUES = np.array([0.5, 1.0, np.nan, 0.0, np.nan, 0.25], np.float32)


def test_averages_leave_out_what_is_not_counted():
    metrics = dict(score=VALUES, num_queries=np.array([1, 1, 0, 1, 0, 1], np.int32))
    found = retrieval.per_class(metrics, LABELS)
    assert isinstance(found, retrieval.PerClass)
    assert found.labels.tolist() == [-3, 7, 2**31 - 1]
    np.testing.assert_array_equal(found.metrics["score"], [0.625, 0.25, np.nan])
    # Whole numbers are counts.
    assert found.metrics["num_queries"].tolist() == [2, 2, 0]
    assert found.metrics["num_queries"].dtype == jnp.int32


def test_classes_in_the_order_that_is_asked_for():
    classes = np.array([7, 5, -3])
    found = retrieval.per_class(VALUES, LABELS, classes=classes)
    assert found.labels.tolist() == [7, 5, -3]
    np.testing.assert_array_equal(found.metrics, [0.25, np.nan, 0.625])
    inside = jax.jit(lambda v, y: retrieval.per_class(v, y, classes=jnp.array(classes)))
    np.testing.assert_array_equal(inside(VALUES, LABELS).metrics, found.metrics)
    # Labels of another width are compared as integers.
    narrow = retrieval.per_class(VALUES[:4], jnp.array([7, -3, 7, 7], jnp.int8))
    np.testing.assert_array_equal(narrow.metrics, [1, 0.25])


def test_averages_of_evaluate_and_its_mean():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(30, 3)).astype(np.float32), rng.integers(0, 4, 30)
    each = retrieval.evaluate(x, labels, ks=(1,), reduction="none")
    mean = retrieval.evaluate(x, labels, ks=(1,))
    found = retrieval.per_class(each, labels).metrics
    assert list(each) == list(mean) == list(found)
    assert np.sum(found["num_queries"]) == mean["num_queries"]
    for name in ("recall_at_1", "mean_average_precision"):
        expected = [np.mean(np.asarray(each[name])[labels == c]) for c in range(4)]
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)
        total = np.sum(found[name] * found["num_queries"].astype(np.float32))
        assert total / 30 == pytest.approx(float(mean[name]), rel=1e-6)


def test_bad_calls_name_the_argument_and_the_remedy():
    with pytest.raises(TypeError, match="per_class") as error:
        jax.jit(retrieval.per_class)(VALUES, LABELS)
    assert str(error.value) == (
        "per_class: `classes` must be given for traced `labels`, got None. "
        "Pass classes=jnp.arange(num_classes)."
    )
    with pytest.raises(ValueError, match="per_class") as error:
        retrieval.per_class(VALUES, LABELS[:3])
    assert "`labels` must have shape (6,) to match `metrics`" in str(error.value)
    with pytest.raises(ValueError, match="per_class") as error:
        retrieval.per_class(dict(a=VALUES, b=VALUES[:2]), LABELS)
    assert str(error.value) == (
        "per_class: `metrics` must hold arrays with equally many rows, got shapes "
        '(6,), (2,). Use what a metric returns with reduction="none".'
    )
