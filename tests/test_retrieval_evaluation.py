"""Retrieval metrics against a sort in plain Python, whatever the path and blocks."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import sklearn.metrics
import tolerances
from jax.sharding import PartitionSpec

from jaxmetric import retrieval
from jaxmetric.retrieval import evaluation, sides

KS = (1, 2, 4, 8)
DISTANCES = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")


def oracle(x, labels, y=None, ref_labels=None, *, ks=KS, name="euclidean", where=None):
    """Sort the candidates of each query by (distance, relevance, index) and count."""
    is_self = y is None
    y, ref_labels = (x, labels) if y is None or ref_labels is None else (y, ref_labels)
    where = [True] * len(x) if where is None else where
    scores = []
    for i, row in enumerate(x):
        if not where[i]:
            continue
        candidates = [
            (oracles.distance(row, other, name), ref_labels[j] == labels[i], j)
            for j, other in enumerate(y)
            if not (is_self and (j == i or not where[j]))
        ]
        relevance = [is_relevant for _, is_relevant, _ in sorted(candidates)]
        num_relevant = sum(relevance)
        if num_relevant == 0:
            continue
        ranks_ = [k for k, is_relevant in enumerate(relevance, 1) if is_relevant]
        terms = [hits / rank for hits, rank in enumerate(ranks_, 1)]
        within = [rank <= num_relevant for rank in ranks_]
        score = {f"recall_at_{k}": float(ranks_[0] <= k) for k in ks}
        score["precision_at_1"] = float(ranks_[0] == 1)
        score["r_precision"] = sum(within) / num_relevant
        score["mean_average_precision"] = math.fsum(terms) / num_relevant
        score["mean_average_precision_at_r"] = (
            math.fsum(t for t, w in zip(terms, within, strict=True) if w) / num_relevant
        )
        trapezoids = [
            (hits / rank + ((hits - 1) / (rank - 1) if rank > 1 else 1)) / 2
            for hits, rank in enumerate(ranks_, 1)
        ]
        score["mean_average_precision_trapezoid"] = math.fsum(trapezoids) / num_relevant
        score["mean_reciprocal_rank"] = 1 / ranks_[0]
        scores.append(score)
    means = {k: math.fsum(s[k] for s in scores) / len(scores) for k in scores[0]}
    return means | {"num_queries": len(scores)}


def check(metrics, expected, bound=5e-7):
    """Require the same names in the same order, and the same numbers."""
    assert list(metrics) == list(expected)
    for name, value in expected.items():
        assert abs(float(metrics[name]) - float(value)) <= bound, name


def evaluate_with(
    most_counted, x, labels, *, distance="euclidean", block_size=None, **options
):
    """Evaluate with another limit of counting, beyond which rows are sorted."""
    arguments: dict[str, Any] = dict(where=None, ref_where=None, axis_name=None)
    arguments |= options | dict(distance=distance)
    comparison = sides.compare("evaluate", x, labels, None, None, **arguments)
    options = (KS, "mean", block_size, most_counted)
    metrics = evaluation._evaluate(comparison, options)
    names = [f"recall_at_{k}" for k in KS] + list(evaluation._NAMES)
    return {name: metrics[name] for name in names}


def whole_rows(seed, n, dim, num_classes, high=2):
    """Small whole numbers: many ties and duplicates, exact in every dtype."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, high, (n, dim)).astype(np.float32)
    return x, rng.integers(0, num_classes, n).astype(np.int32)


def test_values_by_hand():
    x = jnp.array([[0.0], [1.0], [3.0], [7.0]])
    metrics = retrieval.evaluate(x, jnp.array([0, 0, 1, 1]), ks=(1, 2))
    expected = {"recall_at_1": 3 / 4, "recall_at_2": 3 / 4, "precision_at_1": 3 / 4}
    expected |= {"r_precision": 3 / 4, "mean_average_precision": 5 / 6}
    expected |= {"mean_average_precision_at_r": 3 / 4}
    expected |= {"mean_average_precision_trapezoid": (3 + 1 / 6) / 4}
    expected |= {"mean_reciprocal_rank": 5 / 6}
    check(metrics, expected | {"num_queries": 4}, tolerances.PRINTED["hand"])


def test_values_of_a_list_worked_out_on_paper():
    # One query at 0, references at 1..6 with relevance 0 1 1 0 1 0: R = 3.
    y = jnp.arange(1.0, 7.0)[:, None]
    metrics = retrieval.evaluate(
        jnp.zeros((1, 1)), jnp.array([5]), y, jnp.array([0, 5, 5, 0, 5, 0]), ks=(1, 2)
    )
    precision = (1 / 2 + 2 / 3 + 3 / 5) / 3
    expected = {"recall_at_1": 0, "recall_at_2": 1, "precision_at_1": 0}
    expected |= {"r_precision": 2 / 3, "mean_average_precision": precision}
    expected |= {"mean_average_precision_at_r": (1 / 2 + 2 / 3) / 3}
    before = (0 / 1 + 1 / 2 + 2 / 4) / 3
    expected |= {"mean_average_precision_trapezoid": (precision + before) / 2}
    check(metrics, expected | {"mean_reciprocal_rank": 1 / 2, "num_queries": 1}, 1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "euclidean",
        "dot",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("sqeuclidean", "manhattan")
        ),
    ],
)
@pytest.mark.parametrize("dim", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_whole_numbers_with_ties_rank_exactly(name, dim):
    x, labels = whole_rows(dim, 61, dim, 5)
    if dim == 40:
        x[20:40] = x[:20]
    x -= 1.0 if name == "dot" else 0.0
    metrics = retrieval.evaluate(x, labels, distance=name)
    check(metrics, oracle(x.tolist(), labels.tolist(), name=name))


@pytest.mark.parametrize("name", DISTANCES)
def test_random_rows_agree_with_the_oracle(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(23, 6)), rng.normal(size=(31, 6))
    labels, ref_labels = rng.integers(0, 4, 23), rng.integers(1, 6, 31)
    metrics = retrieval.evaluate(
        x.astype(np.float32), labels, y.astype(np.float32), ref_labels, distance=name
    )
    expected = oracle(
        x.tolist(), labels.tolist(), y.tolist(), ref_labels.tolist(), name=name
    )
    check(metrics, expected)
    assert metrics["num_queries"].dtype == jnp.int32


def test_float64_is_as_exact_as_float64():
    x, labels = whole_rows(1, 50, 3, 4)
    expected = oracle(x.tolist(), labels.tolist())
    with jax.enable_x64():
        wide = jnp.asarray(x, jnp.float64)
        for most_counted in (128, 1):
            metrics = evaluate_with(most_counted, wide, labels)
            check(metrics, expected, tolerances.VALUE["float64"])


@pytest.mark.parametrize(
    "name", ["euclidean", pytest.param("dot", marks=pytest.mark.slow)]
)
def test_sorting_and_counting_give_the_same_bits(name):
    # One large class, some small ones, and lone rows.
    x, labels = whole_rows(2, 64, 3, 3)
    labels = np.where(np.arange(64) < 9, np.arange(64) + 10, labels).astype(np.int32)
    x -= 1.0 if name == "dot" else 0.0
    counted = evaluate_with(64, x, labels, distance=name)
    for most_counted, block_size in ((1, None), (20, 7)):
        other = evaluate_with(
            most_counted, x, labels, distance=name, block_size=block_size
        )
        for key, value in counted.items():
            assert value == other[key], (key, most_counted)
    check(counted, oracle(x.tolist(), labels.tolist(), name=name))


@pytest.mark.slow
@pytest.mark.parametrize("dim", [3, 40])
def test_block_size_changes_no_bit(dim):
    x, labels = whole_rows(3, 30, dim, 4)
    whole = retrieval.evaluate(x, labels)
    for block_size in (1, 7) if dim == 3 else (29,):
        metrics = retrieval.evaluate(x, labels, block_size=block_size)
        check(metrics, whole, 0)


def test_metrics_of_each_query_average_to_the_metrics():
    x, labels = whole_rows(11, 30, 3, 4)
    labels[3], where = 77, np.arange(30) != 5
    each = retrieval.evaluate(x, labels, where=where, reduction="none")
    mean = retrieval.evaluate(x, labels, where=where)
    assert list(each) == list(mean)
    is_counted = np.asarray(each.pop("num_queries"))
    # A class of its own, and a row that does not exist.
    assert np.flatnonzero(is_counted == 0).tolist() == [3, 5]
    assert mean["num_queries"] == is_counted.sum()
    for name, values in each.items():
        assert values.shape == (30,)
        assert np.array_equal(np.isnan(values), is_counted == 0)
        assert abs(np.nanmean(values) - mean[name]) < 1e-6, name
        assert values[0] == pytest.approx(one_query(x, labels, where)[name])
    x[0, 0] = np.nan
    broken = retrieval.evaluate(x, labels, where=where, reduction="none")
    assert np.array_equal(broken.pop("num_queries"), is_counted)
    assert all(np.isnan(values).all() for values in broken.values())


def one_query(x, labels, where):
    """Return the metrics of the first row, as one query against the others."""
    others = np.flatnonzero(where)[1:]
    return oracle(
        x[:1].tolist(), labels[:1], x[others].tolist(), labels[others].tolist()
    )


def test_average_precision_is_that_of_scikit_learn():
    rng = np.random.default_rng(12)
    x, y = rng.normal(size=(23, 6)), rng.normal(size=(31, 6))
    labels, ref_labels = np.arange(23) % 4, np.arange(31) % 4
    distances = np.linalg.norm(x[:, None] - y[None], axis=-1)
    expected = [
        sklearn.metrics.average_precision_score(ref_labels == label, -row)
        for label, row in zip(labels, distances, strict=True)
    ]
    found = retrieval.evaluate(
        x.astype(np.float32),
        labels,
        y.astype(np.float32),
        ref_labels,
        reduction="none",
    )
    np.testing.assert_allclose(found["mean_average_precision"], expected, atol=1e-6)


def test_ties_count_against():
    # A collapsed model: the relevant references come last, whatever their index.
    for labels in ([0, 0, 1, 1, 1], [1, 0, 1, 0, 1]):
        metrics = retrieval.evaluate(jnp.ones((5, 2)), jnp.array(labels), ks=(1, 3, 4))
        assert metrics["precision_at_1"] == 0
        assert metrics["recall_at_3"] == pytest.approx(3 / 5)
        assert metrics["recall_at_4"] == 1
    mixed = retrieval.evaluate(
        jnp.zeros((1, 1)), jnp.array([1]), jnp.ones((3, 1)), jnp.array([1, 0, 1])
    )
    assert mixed["mean_average_precision"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_minus_zero_ties_with_zero():
    def zeros_of_both_signs(x, y):
        return jnp.broadcast_to(y[:, 0][None, :], (x.shape[0], y.shape[0]))

    y = jnp.array([[-0.0], [0.0]])
    for labels in ([0, 1], [1, 0]):
        metrics = retrieval.evaluate(
            jnp.ones((1, 1)),
            jnp.array([0]),
            y,
            jnp.array(labels),
            distance=zeros_of_both_signs,
        )
        assert metrics["mean_reciprocal_rank"] == 0.5


def test_self_is_excluded_by_index_and_duplicates_stay():
    x, labels = jnp.array([[0.0], [0.0], [5.0]]), jnp.array([0, 1, 1])
    metrics = retrieval.evaluate(x, labels)
    assert metrics["num_queries"] == 2
    assert metrics["precision_at_1"] == 0
    assert metrics["mean_reciprocal_rank"] == pytest.approx(1 / 2)
    # As two sets, every row finds itself.
    both = retrieval.evaluate(x, labels, x, labels)
    assert both["num_queries"] == 3
    assert both["precision_at_1"] == pytest.approx(1 / 3)


def test_queries_without_a_relevant_reference_are_left_out():
    x = jnp.array([[0.0], [1.0], [10.0]])
    metrics = retrieval.evaluate(x, jnp.array([0, 0, 7]))
    assert metrics["num_queries"] == 2
    assert metrics["mean_average_precision"] == 1
    nobody = retrieval.evaluate(x, jnp.array([0, 1, 2]))
    assert nobody.pop("num_queries") == 0
    assert all(jnp.isnan(value) for value in nobody.values())
    one_row = retrieval.evaluate(x[:1], jnp.array([0]))
    assert one_row["num_queries"] == 0


def test_k_beyond_the_references_means_all_of_them():
    x = jnp.array([[0.0], [1.0], [3.0]])
    metrics = retrieval.evaluate(x, jnp.array([0, 1, 0]), ks=[1, 50])
    assert metrics["recall_at_50"] == 1


def test_masked_rows_change_nothing():
    x, labels = whole_rows(4, 30, 3, 4)
    where = np.random.default_rng(0).random(30) < 0.7
    x[~where] = np.nan
    expected = retrieval.evaluate(x[where], labels[where])
    check(retrieval.evaluate(x, labels, where=where), expected, 0)
    check(expected, oracle(x.tolist(), labels.tolist(), where=where.tolist()))
    as_sets = retrieval.evaluate(
        x, labels, x, labels, where=where, ref_where=jnp.asarray(where)
    )
    sliced = retrieval.evaluate(x[where], labels[where], x[where], labels[where])
    check(as_sets, sliced, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_rows_make_the_metrics_nan(value):
    x, labels = whole_rows(5, 12, 3, 3)
    bad = x.copy()
    bad[4, 1] = value
    for arguments in (
        (bad, labels),
        (bad, labels, x, labels),
        (x, labels, bad, labels),
    ):
        metrics = retrieval.evaluate(*arguments)
        assert metrics.pop("num_queries") == 12
        assert all(jnp.isnan(v) for v in metrics.values())


def test_an_infinite_row_is_none_where_its_products_are_numbers():
    x = jnp.array([[1.0], [2.0], [jnp.inf], [3.0]])
    metrics = retrieval.evaluate(x, jnp.array([0, 0, 1, 1]), distance="dot")
    assert jnp.isnan(metrics["precision_at_1"])


def test_a_distance_that_is_no_number_makes_the_metrics_nan():
    def broken(x, y):
        d = jnp.abs(x[:, :1] - y[:, :1].T)
        return jnp.where(d > 2, jnp.nan, d)

    labels = jnp.array([0, 0, 1])
    x = jnp.array([[0.0], [1.0], [2.5]])  # of two queries, not of the one between
    assert jnp.isnan(retrieval.evaluate(x, labels, distance=broken)["precision_at_1"])
    x = jnp.array([[0.0], [1.0], [2.0]])
    assert retrieval.evaluate(x, labels, distance=broken)["precision_at_1"] == 0.5


def test_labels_are_compared_as_integers():
    # Labels beyond 2^24 merge in float32.
    labels = np.arange(2**24, 2**24 + 4)
    metrics = retrieval.evaluate(jnp.arange(4.0)[:, None], labels)
    assert metrics["num_queries"] == 0
    extreme = np.array([-(2**31), 2**31 - 1, 2**31 - 1, -(2**31)])
    where = np.array([True, True, False, True])
    metrics = retrieval.evaluate(jnp.arange(4.0)[:, None], extreme, where=where)
    assert metrics["num_queries"] == 2
    other = retrieval.evaluate(
        jnp.zeros((1, 1)), jnp.array([3], jnp.int8), jnp.ones((1, 1)), np.array([3])
    )
    assert other["precision_at_1"] == 1


def test_close_rows_of_wide_embeddings_keep_their_order():
    # Two tight clusters, each of two classes: the product form has no digits left.
    rng = np.random.default_rng(6)
    centres = rng.normal(size=(2, 1, 40))
    parts = rng.normal(size=(2, 2, 40)) * 1e-4
    noise = rng.normal(size=(2, 2, 5, 40)) * 1e-5
    x = (centres[:, :, None] + parts[:, :, None] + noise).reshape(20, 40)
    x = x.astype(np.float32)
    labels = np.repeat(np.arange(4), 5)
    for name in ("euclidean", "cosine"):
        expected = oracle(x.tolist(), labels.tolist(), name=name)
        assert expected["precision_at_1"] == 1
        check(retrieval.evaluate(x, labels, distance=name), expected)


def test_wide_whole_rows_far_from_the_origin_keep_their_order():
    # Too large for exact products, while all distances are far above the noise.
    x = np.random.default_rng(14).integers(-30, 31, (24, 64)).astype(np.float32)
    distances = np.sum((x[:, None] - x) ** 2, -1)[np.triu_indices(24, 1)]
    assert len(set(distances)) == distances.size
    labels = np.arange(24, dtype=np.int32) % 4
    check(retrieval.evaluate(x + 4000, labels), oracle(x.tolist(), labels.tolist()))


def test_wide_fractions_far_from_whole_rows_keep_their_order():
    # Only whole numbers on both sides have exact products.
    rng = np.random.default_rng(0)
    x = (rng.integers(-1, 2, (24, 64)) + 30).astype(np.float32)
    y = (x[0] + rng.normal(size=(24, 64)) / 16).astype(np.float32)
    labels = np.arange(24) % 4
    for query, reference in ((x, y), (y, x)):
        expected = oracle(query.tolist(), labels, reference.tolist(), labels)
        check(retrieval.evaluate(query, labels, reference, labels), expected)


@pytest.mark.parametrize("exponent", [-100, 100])
def test_the_scale_of_the_rows_does_not_matter(exponent):
    # Squares of such rows underflow or overflow.
    x, labels = whole_rows(7, 30, 3, 4)
    expected = retrieval.evaluate(x, labels)
    check(retrieval.evaluate(np.ldexp(x, exponent), labels), expected, 0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_equals_float32_of_the_same_numbers(dtype):
    x, labels = whole_rows(8, 30, 3, 4)
    x = jnp.asarray(x).astype(dtype)
    metrics = retrieval.evaluate(x, labels)
    assert metrics["mean_average_precision"].dtype == jnp.float32
    check(metrics, retrieval.evaluate(x.astype(jnp.float32), labels), 0)


def test_jit_and_vmap_equal_a_loop():
    # A mean may differ by a rounding: under vmap XLA divides by a shared count as it
    # likes.
    rows, labels = zip(*(whole_rows(s, 30, 3, 4) for s in range(3)), strict=True)
    rows, labels = jnp.stack(rows), jnp.stack(labels)
    mapped = jax.jit(jax.vmap(partial(retrieval.evaluate, block_size=7)))(rows, labels)
    shared = jax.vmap(retrieval.evaluate, (0, None))(rows, labels[0])
    for i in range(3):
        expected = retrieval.evaluate(rows[i], labels[i])
        check({key: mapped[key][i] for key in expected}, expected, 6e-8)
        expected = retrieval.evaluate(rows[i], labels[0])
        check({key: shared[key][i] for key in expected}, expected, 6e-8)


@pytest.mark.parametrize("most_counted", [pytest.param(128, marks=pytest.mark.slow), 5])
def test_devices_give_the_bits_of_one(most_counted):
    x, labels = whole_rows(9, 32, 3, 4)
    where = np.arange(32) >= 4
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("data")

    def local(x, labels, where):
        return evaluate_with(most_counted, x, labels, where=where, axis_name="data")

    sharded = jax.shard_map(
        local, mesh=mesh, in_specs=(spec, spec, spec), out_specs=PartitionSpec()
    )
    expected = retrieval.evaluate(x, labels, where=where)
    metrics = jax.jit(sharded)(x, labels, where)
    check({key: metrics[key] for key in expected}, expected, 0)
    two_sides = jax.shard_map(
        lambda x, labels: retrieval.evaluate(x, labels, x, labels, axis_name="data"),
        mesh=mesh,
        in_specs=(spec, spec),
        out_specs=PartitionSpec(),
    )
    expected = retrieval.evaluate(x, labels, x, labels)
    metrics = jax.jit(two_sides)(x, labels)
    check({key: metrics[key] for key in expected}, expected, 0)


@pytest.mark.fusion
def test_sizes_past_the_width_of_fused_loops():
    # 32,769 references of whole numbers: every rank is known.
    n = 32_769
    y = np.arange(n, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    ref_labels = (np.arange(n) % 300).astype(np.int32)
    x, labels = np.full((2, 3), -1, np.float32), np.array([299, 0], np.int32)
    metrics = retrieval.evaluate(x, labels, y, ref_labels)
    first = [299 + 1, 1]
    assert metrics["mean_reciprocal_rank"] == pytest.approx(
        sum(1 / f for f in first) / 2
    )
    precision = []
    for label in labels:
        found = np.flatnonzero(ref_labels == label) + 1
        precision.append(np.mean(np.arange(1, found.size + 1) / found))
    assert abs(metrics["mean_average_precision"] - np.mean(precision)) < 1e-6


BAD_CALLS = {
    "reduction": (
        dict(reduction="sum"),
        "evaluate: `reduction` must be one of 'mean', 'none', got 'sum'. Use 'mean'.",
    ),
    "ks": (
        dict(ks=(1, 0)),
        "evaluate: `ks` must hold positive ints, got 0. Use ks=(1, 2, 4, 8).",
    ),
    "labels": (
        dict(query_labels=jnp.zeros((4, 1), jnp.int32)),
        "evaluate: `query_labels` must have shape (4,) to match `query` of shape "
        "(4, 2), got (4, 1). Use query_labels[:, 0].",
    ),
    "big": (
        dict(query_labels=[1, 2, 3, 9_000_000_000]),
        "evaluate: `query_labels` must fit int32, got 9000000000 (outside int32). "
        "Use np.unique(query_labels, return_inverse=True)[1].",
    ),
    "reference_labels": (
        dict(reference=jnp.ones((3, 2))),
        "evaluate: `reference_labels` must come with `reference`, got None. "
        "Pass one integer a reference.",
    ),
    "width": (
        dict(reference=jnp.ones((3, 5)), reference_labels=jnp.zeros(3, jnp.int32)),
        "evaluate: `reference` must have 2 columns like `query`, got shape (3, 5). "
        "Embed both sides to the same width.",
    ),
    "alone": (
        dict(ref_where=jnp.ones(3, bool)),
        "evaluate: `ref_where` must come with `reference`, got it alone. "
        "Pass both, or neither to compare the queries with each other.",
    ),
    "distance": (
        dict(distance="cosin"),
        "evaluate: `distance` must be one of 'euclidean', 'sqeuclidean', 'cosine', "
        "'dot', 'manhattan', got 'cosin'. Use 'cosine'.",
    ),
    "block_size": (
        dict(block_size=0),
        "evaluate: `block_size` must be a positive int or None, got 0. "
        "Use None to let the library choose.",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_name_the_argument_and_the_remedy(case):
    changes, text = BAD_CALLS[case]
    arguments = dict(query=jnp.ones((4, 2)), query_labels=jnp.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="evaluate") as error:
        retrieval.evaluate(**(arguments | changes))
    assert str(error.value) == text
