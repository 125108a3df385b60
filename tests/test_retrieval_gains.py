"""NDCG against a sort in plain Python, and against scikit-learn where nothing ties."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import sklearn.metrics

from jaxmetric import retrieval


def oracle(x, gains, y=None, *, k=None, where=None):
    """Sort by (distance, gain) and discount: each query's, NaN where left out."""
    is_self = y is None
    y = x if is_self else y
    found = []
    for i, row in enumerate(x):
        candidates = sorted(
            (oracles.distance(row, other), float(gains[i][j]))
            for j, other in enumerate(y)
            if (where is None or where[j]) and not (is_self and i == j)
        )
        ordered = [gain for _, gain in candidates]
        best = sorted(ordered, reverse=True)
        if not any(ordered) or (is_self and where is not None and not where[i]):
            found.append(math.nan)
            continue
        dcg, ideal = (
            math.fsum(g / math.log2(1 + r) for r, g in enumerate(some[:k], 1))
            for some in (ordered, best)
        )
        found.append(dcg / ideal)
    return found


def rows_and_gains(seed, n, m=None):
    """Small whole numbers with many ties; gains 0 to 3, a query without any."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, (n, 3)).astype(np.float32)
    gains = rng.integers(0, 4, (n, m or n))
    gains[1] = 0
    return x, gains


def close(found, expected):
    """Require equal numbers, and NaN in the same places."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [None, 1, 4])
def test_a_matrix_of_gains(k):
    x, gains = rows_and_gains(0, 20)
    expected = oracle(x.tolist(), gains, k=k)
    assert np.isnan(expected[1])
    each = retrieval.ndcg(x, gain=gains, k=k, reduction="none")
    close(each, expected)
    mean = retrieval.ndcg(x, gain=gains, k=k)
    close(mean, np.nanmean(expected))
    for block_size in (1, 7) if k == 4 else ():
        close(retrieval.ndcg(x, gain=gains, k=k, block_size=block_size), mean)


def test_a_function_of_labels_and_two_sides():
    x, _ = rows_and_gains(1, 20)
    y, _ = rows_and_gains(2, 31)
    rng = np.random.default_rng(0)
    labels, ref_labels = rng.integers(0, 6, 20), rng.integers(0, 6, 31)

    def closeness(a, b):
        return jnp.maximum(3 - jnp.abs(a[:, None] - b[None, :]), 0)

    gains = np.maximum(3 - np.abs(labels[:, None] - ref_labels[None, :]), 0)
    expected = oracle(x.tolist(), gains, y.tolist())
    found = retrieval.ndcg(x, labels, y, ref_labels, gain=closeness, reduction="none")
    close(found, expected)
    # Row numbers as labels look gains up in a matrix.
    matrix = jnp.asarray(gains)

    def look_up(rows, columns):
        return matrix[rows[:, None], columns[None, :]]

    looked_up = retrieval.ndcg(
        x, np.arange(20), y, np.arange(31), gain=look_up, reduction="none"
    )
    close(looked_up, found)


def test_without_gains_equal_labels_gain_one():
    x, _ = rows_and_gains(3, 20)
    labels = np.random.default_rng(1).integers(0, 4, 20)
    gains = labels[:, None] == labels[None, :]
    close(
        retrieval.ndcg(x, labels, reduction="none"),
        oracle(x.tolist(), gains),
    )


def test_without_ties_the_numbers_are_those_of_scikit_learn():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(9, 4)), rng.normal(size=(31, 4))
    gains = rng.random((9, 31))
    distances = np.linalg.norm(x[:, None] - y[None], axis=-1)
    for k in (None, 5):
        peer = sklearn.metrics.ndcg_score(gains, -distances, k=k)
        rows = (x.astype(np.float32), None, y.astype(np.float32))
        close(retrieval.ndcg(*rows, gain=gains.astype(np.float32), k=k), peer)


def test_by_hand_and_the_tie_that_counts_against():
    # Gains 1 and 3 at distances 1 and 2.
    x, y = jnp.zeros((1, 1)), jnp.array([[1.0], [2.0]])
    found = retrieval.ndcg(x, None, y, gain=jnp.array([[1, 3]]))
    log3 = math.log2(3)
    assert found == pytest.approx((1 + 3 / log3) / (3 + 1 / log3))
    tied = retrieval.ndcg(x, None, jnp.ones((2, 1)), gain=jnp.array([[3, 1]]))
    assert tied == found
    assert retrieval.ndcg(x, None, y, gain=jnp.array([[3, 1]])) == 1


def test_close_rows_of_wide_embeddings_keep_their_order():
    # Two clusters: the product form has no digits left inside them.
    rng = np.random.default_rng(5)
    y = rng.normal(size=(2, 1, 40)) + rng.normal(size=(2, 6, 40)) * 1e-5
    y, gains = y.reshape(12, 40).astype(np.float32), rng.random((12, 12))
    close(
        retrieval.ndcg(y, gain=gains.astype(np.float32), k=4, reduction="none"),
        oracle(y.tolist(), gains, k=4),
    )


def test_masked_rows_change_nothing():
    x, gains = rows_and_gains(6, 20)
    where = np.random.default_rng(0).random(20) < 0.7
    expected = oracle(x.tolist(), gains, where=where)
    x[~where] = np.nan
    gains = np.where(where[:, None] & where[None, :], gains, np.nan)
    gains = gains.astype(np.float32)
    found = retrieval.ndcg(x, gain=gains, where=where, reduction="none")
    close(found, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_gains_that_are_none_are_nan(value):
    x, gains = rows_and_gains(7, 20)
    gains = gains.astype(np.float32)
    gains[5, 5] = value  # its own gain is not looked at
    assert jnp.isfinite(retrieval.ndcg(x, gain=gains))
    gains[5, 6] = value
    assert jnp.isnan(retrieval.ndcg(x, gain=gains))
    gains[5, 6], x[3, 1] = 0, np.nan
    assert jnp.isnan(retrieval.ndcg(x, gain=gains))


def test_huge_gains_do_not_overflow():
    x, gains = rows_and_gains(8, 20)
    big = gains.astype(np.float32) * np.float32(1e38)
    close(retrieval.ndcg(x, gain=big), retrieval.ndcg(x, gain=gains))


def test_jit_and_vmap_equal_a_loop():
    rows, gains = map(
        jnp.stack, zip(*(rows_and_gains(s, 12) for s in range(3)), strict=True)
    )

    def one(x, gains):
        return retrieval.ndcg(x, gain=gains, k=5)

    mapped = jax.jit(jax.vmap(one))(rows, gains)
    close(mapped, jnp.stack([one(*pair) for pair in zip(rows, gains, strict=True)]))


def test_bad_calls_name_the_argument_and_the_remedy():
    x = jnp.ones((4, 2))
    with pytest.raises(ValueError, match="ndcg") as error:
        retrieval.ndcg(x)
    assert str(error.value) == (
        "ndcg: `query_labels` must come with `query`, got None. "
        "Pass one integer a query, or gain= as a matrix."
    )
    with pytest.raises(ValueError, match="ndcg") as error:
        retrieval.ndcg(x, jnp.arange(4), gain=lambda a, b: a)
    assert str(error.value) == (
        "ndcg: `gain` must have shape (4, 4), a row a query and a column a reference, "
        "got (4,). Map labels [b] and [n] to gains [b, n]."
    )
    with pytest.raises(ValueError, match="ndcg") as error:
        retrieval.ndcg(x, gain=np.ones((4, 3)))
    assert "got (4, 3)" in str(error.value)
    with pytest.raises(TypeError, match="ndcg") as error:
        retrieval.ndcg(x, gain=np.full((4, 4), "a"))
    assert str(error.value) == (
        "ndcg: `gain` must be real numbers, got <U1. Give numbers of 0 or more."
    )
    with pytest.raises(ValueError, match="reference_labels"):
        retrieval.ndcg(x, None, x, jnp.arange(4), gain=np.ones((4, 4)))
