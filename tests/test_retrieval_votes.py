"""Classification by votes against a count in plain Python."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import sklearn.neighbors

from jaxmetric import retrieval


def oracle(x, labels, y=None, ref_labels=None, *, k, name="euclidean", where=None):
    """Sort by (distance, own label last, label) and let the first k vote."""
    is_self = y is None
    if y is None or ref_labels is None:
        y, ref_labels = x, labels
    found = []
    for i, row in enumerate(x):
        candidates = sorted(
            (oracles.distance(row, other, name), ref_labels[j] == labels[i], int(r))
            for j, (other, r) in enumerate(zip(y, ref_labels, strict=True))
            if (where is None or where[j]) and not (is_self and i == j)
        )
        is_counted = any(is_own for _, is_own, _ in candidates)
        if (is_self and where is not None and not where[i]) or not is_counted:
            found.append(math.nan)
            continue
        voters = [label for _, _, label in candidates[:k]]
        # `max` takes the first of equals: the nearest voter.
        winner = max(voters, key=voters.count)
        found.append(float(winner == labels[i]))
    return found


def whole_rows(seed, n, num_classes=4, dim=2):
    """Small whole numbers: many ties and duplicates."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, (n, dim)).astype(np.float32)
    return x, rng.integers(0, num_classes, n).astype(np.int32)


@pytest.mark.parametrize(
    "k",
    [
        pytest.param(1, marks=pytest.mark.slow),
        pytest.param(2, marks=pytest.mark.slow),
        5,
        pytest.param(23, marks=pytest.mark.slow),
    ],
)
def test_votes_with_many_ties(k):
    x, labels = whole_rows(0, 24)
    expected = oracle(x.tolist(), labels, k=k)
    each = retrieval.knn_accuracy(x, labels, k=k, reduction="none")
    np.testing.assert_array_equal(each, expected)
    share = retrieval.knn_accuracy(x, labels, k=k)
    assert abs(share - np.nanmean(expected)) < 1e-6
    for block_size in (1, 7):
        blocks = retrieval.knn_accuracy(x, labels, k=k, block_size=block_size)
        assert blocks == share


@pytest.mark.parametrize("name", ["cosine", "dot"])
def test_two_sides(name):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(9, 40)), rng.normal(size=(25, 40))
    labels, ref_labels = rng.integers(0, 4, 9), rng.integers(1, 6, 25)
    expected = oracle(x.tolist(), labels, y.tolist(), ref_labels, k=3, name=name)
    found = retrieval.knn_accuracy(
        x.astype(np.float32),
        labels,
        y.astype(np.float32),
        ref_labels,
        k=3,
        distance=name,
        reduction="none",
    )
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(expected).any()


def test_odd_votes_of_two_classes_are_those_of_scikit_learn():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(60, 3))
    labels, ref_labels = rng.integers(0, 2, 50), rng.integers(0, 2, 60)
    peer = sklearn.neighbors.KNeighborsClassifier(5).fit(y, ref_labels)
    x, y = x.astype(np.float32), y.astype(np.float32)
    found = retrieval.knn_accuracy(x, labels, y, ref_labels, k=5)
    assert abs(found - peer.score(x, labels)) < 1e-6


def test_the_order_of_the_references_plays_no_part():
    # All distances are equal; only the labels tell the rows apart.
    x, labels = np.ones((12, 2), np.float32), np.array([0] * 6 + [1] * 3 + [2] * 3)
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(labels)
        assert retrieval.knn_accuracy(x, shuffled, k=3) == 0
        assert retrieval.knn_accuracy(x, shuffled, k=11) == pytest.approx(1 / 2)


def test_close_rows_of_wide_embeddings_vote_by_their_true_order():
    # The product form has no digits left inside a cluster.
    rng = np.random.default_rng(3)
    parts = rng.normal(size=(3, 1, 40)) * 1e-4
    x = rng.normal(size=(1, 1, 40)) + parts + rng.normal(size=(3, 4, 40)) * 1e-5
    x = np.concatenate([x.reshape(12, 40), rng.normal(size=(12, 40))])
    labels = np.repeat(np.arange(6), 4)
    x = x.astype(np.float32)
    expected = oracle(x.tolist(), labels, k=3)
    assert np.mean(expected[:12]) == 1
    found = retrieval.knn_accuracy(x, labels, k=3, reduction="none")
    np.testing.assert_array_equal(found, expected)


def test_masked_rows_neither_vote_nor_count():
    x, labels = whole_rows(4, 24)
    where = np.random.default_rng(0).random(24) < 0.6
    expected = oracle(x.tolist(), labels, k=5, where=where)
    x[~where] = np.nan
    arguments: dict[str, Any] = dict(k=5, where=where, reduction="none")
    found = retrieval.knn_accuracy(x, labels, **arguments)
    np.testing.assert_array_equal(found, expected)
    # Fewer exist than may vote: all of them do.
    few = np.zeros(24, bool)
    few[:4] = True
    expected = oracle(np.ones((24, 2)).tolist(), labels, k=20, where=few)
    ones = np.ones((24, 2), np.float32)
    found = retrieval.knn_accuracy(ones, labels, k=20, where=few, reduction="none")
    np.testing.assert_array_equal(found, expected)


def test_nan_rows_and_nobody_are_nan():
    x, labels = whole_rows(5, 24)
    x[3, 0] = np.nan
    assert jnp.isnan(retrieval.knn_accuracy(x, labels, k=5))
    x = jnp.array([[0.0], [1.0]])
    assert jnp.isnan(retrieval.knn_accuracy(x, jnp.array([0, 1]), k=1))


def test_one_distance_that_is_no_number_makes_the_share_nan():
    def broken(x, y):
        d = jnp.abs(x[:, :1] - y[:, :1].T)
        return jnp.where(d > 2, jnp.nan, d)

    labels = jnp.array([0, 0, 1, 1])
    x = jnp.array([[0.0], [1.0], [1.5], [2.5]])  # only the first and the last
    for reduction in ("mean", "none"):
        share = retrieval.knn_accuracy(
            x, labels, k=1, distance=broken, reduction=reduction
        )
        assert jnp.isnan(share).all()


def test_jit_and_vmap_equal_a_loop():
    rows, labels = map(
        jnp.stack, zip(*(whole_rows(s, 12) for s in range(3)), strict=True)
    )

    def one(x, labels):
        return retrieval.knn_accuracy(x, labels, k=3)

    mapped = jax.jit(jax.vmap(one))(rows, labels)
    expected = [one(*pair) for pair in zip(rows, labels, strict=True)]
    np.testing.assert_allclose(mapped, jnp.stack(expected), atol=6e-8)


def test_bad_calls_name_the_argument_and_the_remedy():
    x, labels = jnp.ones((4, 2)), jnp.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match="knn") as error:
        retrieval.knn_accuracy(x, labels, k=4)
    assert str(error.value) == (
        "knn_accuracy: `k` must be at most 3, the number of candidates without the "
        "query itself, got 4. Use k=3."
    )
    with pytest.raises(ValueError, match="knn") as error:
        retrieval.knn_accuracy(x, labels, x, labels, k=5)
    assert str(error.value) == (
        "knn_accuracy: `k` must be at most 4, the number of candidates, got 5. Use k=4."
    )
    with pytest.raises(ValueError, match="knn") as error:
        retrieval.knn_accuracy(x, labels, k=True)
    assert str(error.value) == (
        "knn_accuracy: `k` must be a positive int, got True. "
        "Use k=1 for the nearest alone."
    )
