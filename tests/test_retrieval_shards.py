"""Queries and references spread over devices find what one device finds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmetric import retrieval

ROWS = PartitionSpec("data")
ALIKE = PartitionSpec()


def mapped(function, *arrays, out=ALIKE, specs=None, axis_type=AxisType.Auto, **kw):
    """Return the result of a function on eight devices, its arrays cut into shards."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    specs = tuple(specs or [ROWS] * len(arrays))
    with jax.set_mesh(mesh):
        arrays = [
            jax.device_put(a, NamedSharding(mesh, spec))
            for a, spec in zip(arrays, specs, strict=True)
        ]
        sharded = jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=out, **kw
        )
        return jax.jit(sharded)(*arrays)


def tight_clusters(seed, n):
    """Wide rows in tight clusters of two classes each, some with duplicates.

    The product form has no digits left inside a cluster, so pairs must be settled in
    difference form, on whatever device they meet.
    """
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(3, 1, 40)) + rng.normal(size=(3, 2, 40)) * 1e-4
    cluster, part = rng.integers(0, 3, n), rng.integers(0, 2, n)
    x = parts[cluster, part] + rng.normal(size=(n, 40)) * 1e-5
    x[n // 2] = x[0]
    return x.astype(np.float32), (2 * cluster + part).astype(np.int32)


def same(found, expected):
    """Require the same bits."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("axis_type", "check_vma", "block_size"),
    [(AxisType.Explicit, True, 2), (AxisType.Auto, False, None)],
)
def test_metrics_of_one_set(axis_type, check_vma, block_size):
    # 29 of 40 rows exist, so nothing divides; one device has none, one has one class.
    x, labels = tight_clusters(0, 40)
    x[5:10], labels[5:10] = x[5:10] + 50, 99
    where = np.random.default_rng(0).random(40) < 0.8
    where[10:15] = False
    x[~where] = np.nan
    assert where.sum() % 8
    find = partial(retrieval.evaluate, axis_name="data", block_size=block_size)
    found = mapped(
        lambda x, labels, where: find(x, labels, where=where),
        *(x, labels, where),
        axis_type=axis_type,
        check_vma=check_vma,
    )
    same(found, retrieval.evaluate(x, labels, where=where))


@pytest.mark.slow
def test_metrics_of_each_query_and_of_two_sides():
    x, labels = tight_clusters(1, 16)
    y, ref_labels = tight_clusters(2, 40)
    y[:8], ref_labels[:8] = x[:8], labels[:8]
    arrays = (x, labels, y, ref_labels)
    find = partial(retrieval.evaluate, axis_name="data", reduction="none")
    each = mapped(find, *arrays, out=ROWS)
    same(each, retrieval.evaluate(*arrays, reduction="none"))
    # References that are alike on all devices are used as they are.
    find = partial(retrieval.evaluate, axis_name="data")
    specs = (ROWS, ROWS, ALIKE, ALIKE)
    same(mapped(find, *arrays, specs=specs), retrieval.evaluate(*arrays))
    # And where the queries are too, there is nothing to share.
    alone = mapped(find, x, labels, specs=[ALIKE] * 2)
    same(alone, retrieval.evaluate(x, labels))


def test_a_close_pair_is_settled_on_the_device_of_its_reference():
    # Row 0 and its only relevant reference, row 2, which is the first row of the second
    # device as row 0 is of the first; rows 4 and 6 are a little farther.
    rng = np.random.default_rng(10)
    x, labels = rng.normal(size=(16, 40)), np.arange(16)
    x[[2, 4, 6]] = x[0]
    x[[2, 4, 6], 0] += [1e-5, 3e-5, 4e-5]
    labels[2] = labels[0]
    x, labels = x.astype(np.float32), labels.astype(np.int32)
    find = partial(retrieval.evaluate, axis_name="data", ks=(1,))
    assert mapped(find, x, labels)["recall_at_1"] == 1
    assert retrieval.evaluate(x, labels)["recall_at_1"] == 1


@pytest.mark.parametrize(
    "distance", [pytest.param("cosine", marks=pytest.mark.slow), "dot"]
)
def test_large_classes_and_other_distances(distance):
    # 200 of a class are sorted, not counted.
    rng = np.random.default_rng(3)
    x = rng.integers(-2, 3, (400, 3)).astype(np.float32)
    labels = (np.arange(400) % 2).astype(np.int32)
    find = partial(retrieval.evaluate, axis_name="data", distance=distance)
    same(mapped(find, x, labels), retrieval.evaluate(x, labels, distance=distance))


def test_the_scale_is_that_of_all_devices():
    # Squares of the rows of one device overflow, and those of another underflow.
    x, labels = tight_clusters(4, 40)
    x *= np.float32(2.0) ** np.repeat(np.arange(-70, 90, 20), 5)[:, None]
    find = partial(retrieval.evaluate, axis_name="data")
    same(mapped(find, x, labels), retrieval.evaluate(x, labels))


def test_a_row_that_is_not_finite_is_told_to_all():
    x, labels = tight_clusters(5, 40)
    x[3, 0] = np.inf
    find = partial(retrieval.evaluate, axis_name="data", reduction="none")
    each = mapped(find, x, labels, out=ROWS)
    assert np.isnan(each["recall_at_1"]).all()
    assert each["num_queries"].sum() == 40


def check_neighbors(found, expected):
    """Require the same indices and distances."""
    assert found.indices.dtype == jnp.int32
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.distances, expected.distances)


@pytest.mark.parametrize("distance", ["euclidean", "dot"])
def test_neighbors_of_one_set(distance):
    # More neighbours than a device has references; rows that are none of all kinds.
    x = np.random.default_rng(6).integers(0, 3, (40, 3)).astype(np.float32)
    where = np.random.default_rng(0).random(40) < 0.7
    where[10:15] = False
    x[~where] = np.nan
    bad = np.flatnonzero(where)[[2, 9]]
    x[bad] = np.inf
    find = partial(retrieval.nearest_neighbors, k=39, distance=distance)
    spread = partial(find, axis_name="data", block_size=2)
    found = mapped(lambda x, w: spread(x, where=w), x, where, out=ROWS)
    expected = find(x, where=where)
    is_query = where.copy()
    is_query[bad] = False
    check_neighbors(
        jax.tree.map(lambda a: a[is_query], found),
        jax.tree.map(lambda a: a[is_query], expected),
    )
    np.testing.assert_array_equal(found.distances, expected.distances)


def test_neighbors_of_two_sides():
    x, _ = tight_clusters(7, 16)
    y, _ = tight_clusters(8, 40)
    y[:8] = x[:8]
    find = partial(retrieval.nearest_neighbors, k=4)
    spread = partial(find, axis_name="data")
    found = mapped(spread, x, y, out=ROWS, axis_type=AxisType.Explicit)
    check_neighbors(found, find(x, y))
    # References that are alike on all devices are used as they are.
    check_neighbors(mapped(spread, x, y, out=ROWS, specs=(ROWS, ALIKE)), find(x, y))


def test_too_many_neighbors_are_counted_over_all_devices():
    with pytest.raises(ValueError, match="nearest_neighbors") as error:
        mapped(
            partial(retrieval.nearest_neighbors, k=16, axis_name="data"),
            np.ones((16, 2), np.float32),
            out=ROWS,
        )
    assert "must be at most 15, the number of candidates" in str(error.value)


def gathered(jaxpr):
    """Return the shapes of all that is gathered in a program."""
    shapes = []
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith("all_gather"):
            shapes += [v.aval.shape for v in equation.outvars]
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                shapes += gathered(inner)
    return shapes


@pytest.mark.parametrize("name", ["evaluate", "nearest_neighbors"])
def test_no_device_gathers_the_references(name):
    x, labels = tight_clusters(9, 80)
    arrays = (x, labels) if name == "evaluate" else (x,)
    options = dict(axis_name="data", block_size=2)
    options |= {} if name == "evaluate" else dict(k=3)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.shard_map(
        partial(getattr(retrieval, name), **options),
        mesh=mesh,
        in_specs=(ROWS,) * len(arrays),
        out_specs=ALIKE if name == "evaluate" else ROWS,
    )
    shapes = gathered(jax.make_jaxpr(sharded)(*arrays).jaxpr)
    # Two queries of every device go round; the references stay where they are.
    assert (16, 40) in shapes
    assert (80, 40) not in shapes
    assert max(np.prod(shape) for shape in shapes) == 16 * 40
