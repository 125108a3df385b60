"""Cumulative matching over cameras against a sort in plain Python."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxmetric import retrieval

RANKS = (1, 2, 5)
KEY = "mean_average_precision"


def oracle(x, labels, groups, y=None, ref_labels=None, ref_groups=None, where=None):
    """Leave out the same label in the same group, sort, and count: each query's."""
    is_self = y is None
    if y is None or ref_labels is None:
        y, ref_labels, ref_groups = x, labels, groups
    found = []
    for i, row in enumerate(x):
        candidates = []
        for j, other in enumerate(y):
            is_same = ref_labels[j] == labels[i]
            if is_self and (i == j or (where is not None and not where[j])):
                continue
            if is_same and ref_groups is not None and ref_groups[j] == groups[i]:
                continue
            candidates.append((oracles.distance(row, other), is_same, j))
        relevance = [is_same for _, is_same, _ in sorted(candidates)]
        if not any(relevance) or (where is not None and not where[i]):
            found.append(None)
            continue
        places = [k for k, is_same in enumerate(relevance, 1) if is_same]
        score = {f"cmc_{k}": float(places[0] <= k) for k in RANKS}
        terms = [hits / k for hits, k in enumerate(places, 1)]
        found.append(score | {KEY: math.fsum(terms) / len(terms)})
    return found


def check(metrics, per_query, bound=5e-7):
    """Require the means of the queries that count."""
    counted = [score for score in per_query if score is not None]
    assert metrics["num_queries"] == len(counted)
    assert list(metrics) == [*counted[0], "num_queries"]
    for name in counted[0]:
        mean = math.fsum(score[name] for score in counted) / len(counted)
        assert abs(float(metrics[name]) - mean) <= bound, name


def pictures(seed, n, num_labels=5, num_groups=3, dim=3):
    """Small whole numbers, with many ties, of a few people and cameras."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, (n, dim)).astype(np.float32)
    labels = rng.integers(0, num_labels, n).astype(np.int32)
    return x, labels, rng.integers(0, num_groups, n).astype(np.int32)


def test_two_sides_with_cameras():
    x, labels, groups = pictures(0, 17)
    y, ref_labels, ref_groups = pictures(1, 40)
    expected = oracle(x.tolist(), labels, groups, y.tolist(), ref_labels, ref_groups)
    sides = (x, labels, y, ref_labels)
    cameras: dict[str, Any] = dict(query_groups=groups, reference_groups=ref_groups)
    whole = retrieval.cmc(*sides, ranks=RANKS, **cameras)
    check(whole, expected)
    for block_size in (1, 5):
        found = retrieval.cmc(*sides, ranks=RANKS, block_size=block_size, **cameras)
        assert found == whole
    # A camera matters: without groups more references are relevant.
    without = retrieval.cmc(*sides, ranks=RANKS)
    check(without, oracle(x.tolist(), labels, None, y.tolist(), ref_labels))
    assert without[KEY] != whole[KEY]


def test_one_set_with_cameras_masks_and_nan():
    x, labels, groups = pictures(2, 40)
    where = np.random.default_rng(0).random(40) < 0.8
    expected = oracle(x.tolist(), labels, groups, where=where)
    x[~where] = np.nan
    arguments: dict[str, Any] = dict(ranks=RANKS, query_groups=groups, where=where)
    check(retrieval.cmc(x, labels, **arguments), expected)
    each = retrieval.cmc(x, labels, reduction="none", **arguments)
    for i, score in enumerate(expected):
        assert bool(each["num_queries"][i]) == (score is not None)
        for name in (f"cmc_{RANKS[0]}", KEY):
            value = np.nan if score is None else score[name]
            np.testing.assert_allclose(each[name][i], value, atol=5e-7)
    x[where.argmax()] = np.inf
    broken = retrieval.cmc(x, labels, **arguments)
    assert jnp.isnan(broken["cmc_1"])
    assert broken["num_queries"] == sum(score is not None for score in expected)


def test_without_groups_the_numbers_are_those_of_evaluate():
    x, labels, _ = pictures(3, 40)
    metrics = retrieval.evaluate(x, labels, ks=RANKS)
    found = retrieval.cmc(x, labels, ranks=RANKS)
    for k in RANKS:
        assert found[f"cmc_{k}"] == metrics[f"recall_at_{k}"]
    assert found[KEY] == metrics[KEY]
    # One camera a picture leaves out no more than the query itself.
    alone = retrieval.cmc(x, labels, ranks=RANKS, query_groups=np.arange(40))
    assert alone == found


def test_many_relevant_references_are_sorted_not_counted():
    # More of a class than are counted; half of them by the camera of the query.
    x, labels, groups = pictures(4, 300, num_labels=2, num_groups=2)
    sides = (x[:9], labels[:9], x, labels)
    cameras: dict[str, Any] = dict(query_groups=groups[:9], reference_groups=groups)
    expected = oracle(x[:9].tolist(), labels, groups, x.tolist(), labels, groups)
    check(retrieval.cmc(*sides, ranks=RANKS, **cameras), expected)


def test_same_camera_references_of_other_people_stay():
    x, y = jnp.zeros((1, 1)), jnp.array([[1.0], [2.0], [3.0]])
    found = retrieval.cmc(
        x,
        jnp.array([7]),
        y,
        # The same person by the same camera, another by it, the same by another.
        jnp.array([7, 8, 7]),
        ranks=(1, 2),
        query_groups=jnp.array([0]),
        reference_groups=jnp.array([0, 0, 1]),
    )
    assert found["cmc_1"] == 0
    assert found["cmc_2"] == 1
    assert found[KEY] == 0.5


def test_nobody_left_is_nan():
    x = jnp.array([[0.0], [1.0]])
    same = jnp.array([0, 0])
    found = retrieval.cmc(x, jnp.array([3, 3]), ranks=(1,), query_groups=same)
    assert found.pop("num_queries") == 0
    assert all(jnp.isnan(value) for value in found.values())


def test_jit_and_vmap_equal_a_loop():
    rows, labels, groups = map(
        jnp.stack, zip(*(pictures(s, 12) for s in range(3)), strict=True)
    )

    def one(x, labels, groups):
        return retrieval.cmc(x, labels, ranks=(1,), query_groups=groups)

    mapped = jax.jit(jax.vmap(one))(rows, labels, groups)
    for i in range(3):
        expected = one(rows[i], labels[i], groups[i])
        for name, value in expected.items():
            np.testing.assert_allclose(mapped[name][i], value, atol=6e-8)


BAD_CALLS = {
    "alone": (
        dict(reference_groups=[0, 1]),
        "cmc: `query_groups` must come with `reference_groups`, got None. "
        "Pass one integer a row of both sides.",
    ),
    "no reference": (
        dict(query_groups=[0, 1], reference_groups=[0, 1]),
        "cmc: `reference_groups` must come with `reference`, got it alone. "
        "Pass `query_groups` alone to compare the queries with each other.",
    ),
    "one side": (
        dict(reference=[[1.0]], reference_labels=[0], query_groups=[0, 1]),
        "cmc: `reference_groups` must come with `query_groups`, got None. "
        "Pass one integer a row of both sides.",
    ),
    "ranks": (
        dict(ranks=(0,)),
        "cmc: `ranks` must hold positive ints, got 0. Use ranks=(1, 5, 10).",
    ),
    "reduction": (
        dict(reduction="sum"),
        "cmc: `reduction` must be one of 'mean', 'none', got 'sum'. Use 'mean'.",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_name_the_argument_and_the_remedy(case):
    changes, text = BAD_CALLS[case]
    arguments: dict[str, Any] = dict(query=jnp.ones((2, 1)), query_labels=[0, 1])
    with pytest.raises(ValueError, match="cmc") as error:
        retrieval.cmc(**(arguments | changes))
    assert str(error.value) == text
