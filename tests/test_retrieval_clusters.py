"""Agreement of clusters and classes."""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.cluster
import sklearn.metrics

from jaxmetric import retrieval


def blobs(seed, spread=0.05):
    """Four classes around the corners of a square, in a mixed order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([5, -2, 9, 0], 8))
    corners = {5: (0, 0), -2: (0, 1), 9: (1, 0), 0: (1, 1)}
    x = np.array([corners[c] for c in labels]) + rng.normal(size=(32, 2)) * spread
    return x.astype(np.float32), labels


def test_clear_clusters_agree_whatever_their_names():
    x, labels = blobs(0)
    found = retrieval.clustering(x, labels)
    assert found == {"nmi": pytest.approx(1), "ami": pytest.approx(1)} | {
        "num_clusters": 4
    }


def test_the_numbers_are_those_of_scikit_learn():
    x, labels = blobs(1, spread=0.5)
    clusters = sklearn.cluster.KMeans(3, n_init=2, random_state=7)  # pyright: ignore
    clusters = clusters.fit_predict(x)
    found = retrieval.clustering(x, labels, num_clusters=3, num_restarts=2, seed=7)
    nmi = sklearn.metrics.normalized_mutual_info_score(labels, clusters)
    ami = sklearn.metrics.adjusted_mutual_info_score(labels, clusters)
    assert found == {"nmi": nmi, "ami": ami, "num_clusters": 3}
    assert 0 < ami < nmi < 1


def test_fewer_distinct_rows_than_clusters_are_the_clusters():
    labels = np.repeat([0, 1, 2], 4)
    collapsed = retrieval.clustering(np.ones((12, 2), np.float32), labels)
    assert collapsed == {"nmi": 0, "ami": 0, "num_clusters": 1}
    x = np.repeat([[0.0], [0.0], [1.0]], 4, axis=0).astype(np.float32)
    two = retrieval.clustering(x, labels)
    assert two["num_clusters"] == 2
    assert two["nmi"] == pytest.approx(
        sklearn.metrics.normalized_mutual_info_score(labels, np.repeat([0, 0, 1], 4))
    )


def test_masked_rows_change_nothing():
    x, labels = blobs(2, spread=0.5)
    where = np.arange(32) % 3 > 0
    expected = retrieval.clustering(x[where], labels[where], num_restarts=1)
    x[~where] = np.nan
    found = retrieval.clustering(x, labels, where=where, num_restarts=1)
    assert found == expected
    nobody = retrieval.clustering(x, labels, where=np.zeros(32, bool))
    assert math.isnan(nobody["nmi"])
    assert math.isnan(retrieval.clustering(x, labels)["ami"])


def test_half_precision_is_taken():
    x, labels = blobs(3)
    half = jnp.asarray(x).astype(jnp.bfloat16)
    assert retrieval.clustering(half, labels, num_restarts=1)["nmi"] > 0.99


def test_a_missing_library_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError) as error:
        retrieval.clustering(*blobs(0))
    assert str(error.value) == (
        "clustering: scikit-learn is needed for k-means, and is not installed. "
        "Run pip install 'jaxmetric[cli]'."
    )


def test_bad_calls_name_the_argument_and_the_remedy():
    x, labels = blobs(0)
    with pytest.raises(ValueError, match="clustering") as error:
        retrieval.clustering(x, labels, num_clusters=0)
    assert str(error.value) == (
        "clustering: `num_clusters` must be a positive int, got 0. "
        "Use None for the number of classes."
    )
    with pytest.raises(TypeError, match="clustering") as error:
        jax.jit(lambda x: retrieval.clustering(x, labels))(x)
    assert str(error.value) == (
        "clustering: `embeddings` must hold numbers that are known, got a traced "
        "array. Call it outside of jax.jit, vmap and shard_map."
    )
