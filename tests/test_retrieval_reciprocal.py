"""Re-ranking against the paper's algorithm, written out with whole matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxmetric import retrieval


def dense(x, first, *, k1, k2, lambda_value, name="sqeuclidean"):
    """Return final distances of all rows to those from `first` on, step by step.

    The paper: rows are probe and gallery; N(p, k) the k nearest, p itself with them;
    R(p, k) those that have p among theirs; R* with the sets of neighbours that overlap.
    """
    rows, n = x.tolist(), len(x)
    d = np.array([[oracles.distance(a, b, name) for b in rows] for a in rows])
    d = d / d.max(1, keepdims=True)
    order = np.argsort(d, axis=1, kind="stable")

    def nearest(p, k):
        return set(order[p, : k + 1].tolist())

    def reciprocal(p, k):
        return {g for g in nearest(p, k) if p in nearest(g, k)}

    v = np.zeros((n, n))
    for p in range(n):
        found = reciprocal(p, k1)
        extended = set(found)
        for q in found:
            half = reciprocal(q, int(np.around(k1 / 2)))
            if len(found & half) > 2 / 3 * len(half):
                extended |= half
        for g in extended:
            v[p, g] = np.exp(-d[p, g])
        v[p] /= v[p].sum()
    v = np.stack([v[order[p, :k2]].mean(0) for p in range(n)])
    final = np.empty((n, n - first))
    for p in range(n):
        for column, g in enumerate(range(first, n)):
            jaccard = 1 - np.minimum(v[p], v[g]).sum() / np.maximum(v[p], v[g]).sum()
            final[p, column] = (1 - lambda_value) * jaccard + lambda_value * d[p, g]
    return final


def clusters(seed, n, dim=5):
    """Rows around a few centres, whose neighbours are often reciprocal."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, dim))[rng.integers(0, 6, n)]
    return (x + 0.4 * rng.normal(size=(n, dim))).astype(np.float32)


def check(found, final, k):
    """Require the k smallest distances of each row, and indices that have them."""
    assert found.indices.shape == found.distances.shape == (len(final), k)
    assert found.indices.dtype == jnp.int32
    np.testing.assert_allclose(found.distances, np.sort(final)[:, :k], atol=2e-6)
    at = np.take_along_axis(final, np.asarray(found.indices), 1)
    np.testing.assert_allclose(found.distances, at, atol=2e-6)
    for row in np.asarray(found.indices):
        assert len(set(row.tolist())) == k


@pytest.mark.parametrize(
    ("k1", "k2", "lambda_value", "name"),
    [
        (20, 6, 0.3, "sqeuclidean"),
        (5, 1, 0.0, "sqeuclidean"),
        (3, 9, 0.7, "euclidean"),
        (7, 2, 0.5, "cosine"),
    ],
)
def test_two_sides_equal_the_paper(k1, k2, lambda_value, name):
    # Seeds for which a neighbour that is not reciprocal overlaps enough to be added.
    x, y = clusters(1, 12), clusters(2, 50)
    options = dict(k1=k1, k2=k2, lambda_value=lambda_value)
    final = dense(np.concatenate([x, y]), 12, name=name, **options)[:12]
    found = retrieval.rerank(x, y, k=50, distance=name, **options)
    check(found, final, 50)
    # It is another order than that of the distances.
    plain = retrieval.nearest_neighbors(x, y, k=50, distance=name)
    assert not np.array_equal(plain.indices, found.indices)


def test_one_set_equals_the_paper_without_the_query_itself():
    x = clusters(3, 40)
    final = dense(x, 0, k1=6, k2=3, lambda_value=0.3)
    np.fill_diagonal(final, np.inf)
    found = retrieval.rerank(x, k=10, k1=6, k2=3)
    check(found, final, 10)
    assert (np.asarray(found.indices) != np.arange(40)[:, None]).all()


def test_block_size_changes_nothing():
    x, y = clusters(3, 12), clusters(4, 50)
    whole = retrieval.rerank(x, y, k=9, k1=6)
    for block_size in (1, 5):
        found = retrieval.rerank(x, y, k=9, k1=6, block_size=block_size)
        assert np.array_equal(found.indices, whole.indices)
        np.testing.assert_allclose(found.distances, whole.distances, rtol=1e-6)


def test_fewer_rows_than_neighbours():
    for n in (2, 3):
        x = clusters(5, n)
        final = dense(x, 0, k1=20, k2=6, lambda_value=0.3)
        np.fill_diagonal(final, np.inf)
        check(retrieval.rerank(x, k=n - 1), final, n - 1)
    alone = retrieval.rerank(
        np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), k=1
    )
    assert alone.indices.tolist() == [[0]]
    assert alone.distances.tolist() == [[0]]


def test_rows_that_are_none_take_no_part():
    x, y = clusters(6, 12), clusters(7, 30)
    where, ref_where = np.arange(12) != 4, np.arange(30) % 7 != 0
    bad = y.copy()
    bad[[1, 20]], bad[~ref_where] = np.inf, np.nan
    queries = x.copy()
    queries[4], queries[6] = np.nan, np.nan
    is_query, is_kept = where.copy(), ref_where.copy()
    is_query[6], is_kept[[1, 20]] = False, False
    kept = np.flatnonzero(is_kept)
    expected = retrieval.rerank(x[is_query], y[is_kept], k=kept.size, k1=6)
    found = retrieval.rerank(queries, bad, k=30, k1=6, where=where, ref_where=ref_where)
    indices, distances = map(np.asarray, found)
    assert np.array_equal(indices[is_query, : kept.size], kept[expected.indices])
    np.testing.assert_allclose(
        distances[is_query, : kept.size], expected.distances, rtol=1e-6
    )
    # Then the non-finite ones, then those that do not exist.
    assert indices[0, kept.size :].tolist() == [1, 20, 0, 7, 14, 21, 28]
    np.testing.assert_array_equal(
        distances[0, kept.size :], [np.nan] * 2 + [np.inf] * 5
    )
    assert np.isinf(distances[4]).all()
    assert np.isnan(distances[6]).all()
    assert ((indices >= 0) & (indices < 30)).all()
    alone = retrieval.rerank(queries, k=11, k1=6, where=where)
    assert 4 not in alone.indices[0, :9]
    assert alone.indices[0, 9:].tolist() == [6, 4]
    nobody = retrieval.rerank(x, y, k=3, ref_where=np.zeros(30, bool))
    assert jnp.isinf(nobody.distances).all()


def test_equal_rows_are_no_trouble():
    found = retrieval.rerank(np.ones((9, 3), np.float32), k=8, k1=3)
    assert jnp.isfinite(found.distances).all()
    assert (found.indices != jnp.arange(9)[:, None]).all()


def test_metrics_of_the_result_by_looking_distances_up():
    x, y = clusters(8, 12), clusters(9, 30)
    labels, ref_labels = np.arange(12) % 4, np.arange(30) % 4
    found = retrieval.rerank(x, y, k=30, k1=6)
    matrix = np.empty((12, 30), np.float32)
    np.put_along_axis(matrix, np.asarray(found.indices), found.distances, 1)

    def look_up(i, j):
        return jnp.asarray(matrix)[i.astype(int)[:, 0]][:, j.astype(int)[:, 0]]

    rows, columns = (np.arange(n, dtype=np.float32)[:, None] for n in (12, 30))
    metrics = retrieval.evaluate(
        rows, labels, columns, ref_labels, distance=look_up, ks=(1,)
    )
    first = np.asarray(found.indices)[:, 0]
    assert metrics["precision_at_1"] == pytest.approx(
        np.mean(ref_labels[first] == labels)
    )


def test_bad_calls_name_the_argument_and_the_remedy():
    x = np.ones((4, 2), np.float32)
    with pytest.raises(ValueError, match="rerank") as error:
        retrieval.rerank(x, k=4)
    assert str(error.value) == (
        "rerank: `k` must be at most 3, the number of candidates without the query "
        "itself, got 4. Use k=3."
    )
    with pytest.raises(ValueError, match="rerank") as error:
        retrieval.rerank(x, k=1, lambda_value=2)
    assert str(error.value) == (
        "rerank: `lambda_value` must lie between 0 and 1, got 2. Use lambda_value=0.3."
    )
    with pytest.raises(ValueError, match="rerank") as error:
        retrieval.rerank(x, k=1, distance="dot")
    assert str(error.value) == (
        "rerank: `distance` must be one of 'sqeuclidean', 'euclidean', 'cosine', "
        "'manhattan', got 'dot'. Use 'sqeuclidean'."
    )
    with pytest.raises(TypeError, match="rerank") as error:
        jax.jit(lambda x: retrieval.rerank(x, k=1))(x)
    assert str(error.value) == (
        "rerank: `query` must hold numbers that are known, got a traced array. "
        "Call it outside of jax.jit, vmap and shard_map."
    )
