"""Nearest neighbours: order, ties, self, masks and rows that are no numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.sharding import PartitionSpec

from jaxmetric import retrieval
from jaxmetric.distances import pairwise_distance


def oracle(x, y=None, *, k, name="euclidean"):
    """Sort the candidates of each query by (distance, index)."""
    is_self = y is None
    y = x if is_self else y
    found = []
    for i, row in enumerate(x):
        candidates = [
            (oracles.distance(row, other, name), j)
            for j, other in enumerate(y)
            if not (is_self and i == j)
        ]
        found.append(sorted(candidates)[:k])
    return (
        np.array([[j for _, j in row] for row in found]),
        np.array([[d for d, _ in row] for row in found]),
    )


def check(found, expected, bound=2e-6):
    """Require equal indices and close distances."""
    assert isinstance(found, retrieval.Neighbors)
    assert found.indices.dtype == jnp.int32
    assert np.array_equal(found.indices, expected[0])
    np.testing.assert_allclose(found.distances, expected[1], bound, bound)


def whole_rows(seed, n, dim, high=2):
    """Small whole numbers: many ties and duplicates, exact in every dtype."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, high, (n, dim)).astype(np.float32)


@pytest.mark.parametrize("name", ["euclidean", "sqeuclidean", "manhattan", "dot"])
def test_among_equal_distances_the_lowest_index_comes_first(name):
    x = whole_rows(0, 25, 3)
    found = retrieval.nearest_neighbors(x, k=6, distance=name)
    check(found, oracle(x.tolist(), k=6, name=name))


def test_wide_whole_rows_are_exact():
    x, y = whole_rows(1, 9, 40), whole_rows(2, 25, 40)
    y[13:20] = y[:7]
    found = retrieval.nearest_neighbors(x, y, k=25)
    check(found, oracle(x.tolist(), y.tolist(), k=25))


@pytest.mark.parametrize("name", ["euclidean", "cosine", "dot", "manhattan"])
def test_random_rows_agree_with_the_oracle(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 40)), rng.normal(size=(25, 40))
    x, y = x.astype(np.float32), y.astype(np.float32)
    expected = oracle(x.tolist(), y.tolist(), k=5, name=name)
    found = retrieval.nearest_neighbors(x, y, k=5, distance=name, block_size=4)
    check(found, expected, 1e-5)


def test_close_rows_are_told_apart_by_the_difference_form():
    # More rows than k whose product form is nothing but rounding.
    rng = np.random.default_rng(3)
    y = np.ones((12, 40)) + rng.normal(size=(12, 40)) * 1e-5
    y = np.concatenate([y, rng.normal(size=(4, 40))]).astype(np.float32)
    for name in ("euclidean", "cosine"):
        expected = oracle(y.tolist(), k=3, name=name)
        found = retrieval.nearest_neighbors(y, k=3, distance=name)
        assert np.array_equal(found.indices[:12], expected[0][:12])


def test_self_is_excluded_by_index_and_duplicates_stay():
    x = jnp.array([[1.0], [0.0], [1.0], [1.0]])
    found = retrieval.nearest_neighbors(x, k=3)
    assert found.indices.tolist() == [[2, 3, 1], [0, 2, 3], [0, 3, 1], [0, 2, 1]]
    assert found.distances[0].tolist() == [0, 0, 1]
    both = retrieval.nearest_neighbors(x, x, k=2)
    assert both.indices.tolist() == [[0, 2], [1, 0], [0, 2], [0, 2]]


def test_distances_are_those_of_pairwise_distance():
    x = np.random.default_rng(4).normal(size=(12, 5)).astype(np.float32)
    found = retrieval.nearest_neighbors(x, k=11)
    d = np.sort(np.asarray(pairwise_distance(jnp.asarray(x))), axis=1)[:, 1:]
    np.testing.assert_allclose(found.distances, d, rtol=1e-5)
    assert np.all(np.diff(found.distances) >= 0)


def test_non_finite_references_come_last():
    x = jnp.array([[0.0], [3.0]])
    y = jnp.array([[jnp.nan], [2.0], [jnp.inf], [0.0], [-jnp.inf]])
    found = retrieval.nearest_neighbors(x, y, k=5)
    assert found.indices.tolist() == [[3, 1, 0, 2, 4], [1, 3, 0, 2, 4]]
    np.testing.assert_array_equal(found.distances[0], [0, 2, np.nan, np.nan, np.nan])


def test_non_finite_queries_have_no_distances():
    x = jnp.array([[jnp.inf], [3.0], [4.0]])
    found = retrieval.nearest_neighbors(x, k=2)
    assert jnp.isnan(found.distances[0]).all()
    assert found.indices[1:].tolist() == [[2, 0], [1, 0]]
    np.testing.assert_array_equal(found.distances[1], [1, np.nan])


def test_masked_references_are_not_found():
    x, y = whole_rows(5, 7, 3), whole_rows(6, 20, 3)
    where = np.random.default_rng(0).random(20) < 0.6
    kept = np.flatnonzero(where)
    sliced = retrieval.nearest_neighbors(x, y[where], k=5)
    y[~where] = np.nan
    found = retrieval.nearest_neighbors(x, y, k=5, ref_where=where)
    check(found, (kept[sliced.indices], sliced.distances), 0)
    # When they run out, the rest is infinitely far, at indices that are in range.
    few = retrieval.nearest_neighbors(x, y, k=20, ref_where=where)
    assert jnp.isinf(few.distances[:, kept.size :]).all()
    assert jnp.isfinite(few.distances[:, : kept.size]).all()
    assert np.array_equal(np.sort(few.indices[0]), np.arange(20))


def test_masked_queries_change_nothing():
    x = whole_rows(7, 7, 3)
    where = np.array([True, True, False, True, True, False, True])
    kept = np.flatnonzero(where)
    sliced = retrieval.nearest_neighbors(x[where], k=4)
    x[~where] = np.nan
    found = retrieval.nearest_neighbors(x, k=4, where=where)
    assert np.array_equal(found.indices[kept], kept[sliced.indices])
    assert np.array_equal(found.distances[kept], sliced.distances)
    assert jnp.isinf(found.distances[~where]).all()


@pytest.mark.parametrize("scale", [1e-20, 1e25])
def test_ranges_that_squares_do_not_hold(scale):
    x = np.array([[0.0], [1.0], [3.0]], np.float32) * np.float32(scale)
    found = retrieval.nearest_neighbors(x, k=2)
    assert found.indices.tolist() == [[1, 2], [0, 2], [1, 0]]
    np.testing.assert_allclose(found.distances[0] / np.float32(scale), [1, 3], 1e-6)


def test_a_callable_distance_and_its_gaps():
    def forward_only(x, y):
        d = y[:, 0][None, :] - x[:, 0][:, None]
        return jnp.where(d < 0, jnp.nan, d)

    x = jnp.array([[1.0], [0.0], [2.0]])
    found = retrieval.nearest_neighbors(x, k=2, distance=forward_only)
    assert found.indices.tolist() == [[2, 1], [0, 2], [0, 1]]
    np.testing.assert_array_equal(found.distances[0], [1, np.nan])


def test_block_size_changes_nothing():
    x = whole_rows(8, 25, 3)
    whole = retrieval.nearest_neighbors(x, k=6)
    for block_size in (1, 7):
        check(retrieval.nearest_neighbors(x, k=6, block_size=block_size), whole, 0)


def test_jit_and_vmap_equal_a_loop():
    x = jnp.stack([whole_rows(s, 25, 3) for s in range(3)])
    mapped = jax.jit(jax.vmap(partial(retrieval.nearest_neighbors, k=6)))(x)
    for i in range(3):
        one = retrieval.nearest_neighbors(x[i], k=6)
        check(jax.tree.map(lambda a, i=i: a[i], mapped), one, 0)


def test_devices_find_global_indices():
    x = whole_rows(9, 32, 3)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("data")
    find = partial(retrieval.nearest_neighbors, k=4, axis_name="data")
    shard = partial(jax.shard_map, find, mesh=mesh, out_specs=spec)
    found = jax.jit(shard(in_specs=spec))(x)
    check(found, retrieval.nearest_neighbors(x, k=4), 0)
    found = jax.jit(shard(in_specs=(spec, spec)))(x, x)
    check(found, retrieval.nearest_neighbors(x, x, k=4), 0)


BAD_CALLS = {
    "many": (
        dict(k=4),
        "nearest_neighbors: `k` must be at most 3, the number of candidates without "
        "the query itself, got 4. Use k=3.",
    ),
    "more": (
        dict(k=6, reference=jnp.ones((5, 2))),
        "nearest_neighbors: `k` must be at most 5, the number of candidates, got 6. "
        "Use k=5.",
    ),
    "lone": (
        dict(k=1, query=jnp.ones((1, 2))),
        "nearest_neighbors: `k` must be at most 0, the number of candidates without "
        "the query itself, got 1. Give two rows.",
    ),
    "zero": (
        dict(k=0),
        "nearest_neighbors: `k` must be a positive int, got 0. "
        "Use k=1 for the nearest alone.",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_name_the_argument_and_the_remedy(case):
    changes, text = BAD_CALLS[case]
    arguments = dict(query=jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="nearest_neighbors") as error:
        retrieval.nearest_neighbors(**(arguments | changes))
    assert str(error.value) == text
