"""Recall and NDCG over what a query has not seen, against loops in plain Python."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxmetric import retrieval

METRICS = ["recall_at_1", "ndcg_at_1", "recall_at_3", "ndcg_at_3"]


def oracle(x, y, relevant, seen, k, *, distance="euclidean"):
    """Sort what is unseen by (distance, whether it is relevant), and count."""
    recalls, gains = [], []
    for i, row in enumerate(x):
        left_out = {j for u, j in seen if u == i}
        wanted = {j for u, j in relevant if u == i} - left_out
        ordered = sorted(
            (oracles.distance(row, other, distance), j in wanted)
            for j, other in enumerate(y)
            if j not in left_out
        )
        hits = [is_wanted for _, is_wanted in ordered[:k]]
        best = math.fsum(1 / math.log2(2 + r) for r in range(min(k, len(wanted))))
        gained = math.fsum(hit / math.log2(2 + r) for r, hit in enumerate(hits))
        recalls.append(sum(hits) / len(wanted) if wanted else math.nan)
        gains.append(gained / best if wanted else math.nan)
    return recalls, gains


def case(seed, *, q=9, n=12, width=3, values=3):
    """Small whole numbers with many ties; a query without anything relevant."""
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, values, (m, width)).astype(np.float32) for m in (q, n))
    relevant, seen = (
        np.stack([rng.integers(0, q, m), rng.integers(0, n, m)], 1) for m in (25, 40)
    )
    return x, y, relevant[relevant[:, 0] != 2], seen


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "dot"])
@pytest.mark.parametrize("width", [3, 24])
def test_each_query_is_as_in_the_loops(distance, width):
    for seed in range(4):
        x, y, relevant, seen = case(seed, width=width)
        if distance == "cosine":
            # Lengths of whole rows are rounded, and so ties are broken by chance.
            rng = np.random.default_rng(seed)
            x, y = (rng.normal(size=a.shape).astype(np.float32) for a in (x, y))
        found = retrieval.recommendation(
            x, y, relevant, seen, ks=(1, 3), distance=distance, reduction="none"
        )
        assert list(found) == METRICS
        for k in (1, 3):
            rows, pairs = (x.tolist(), y.tolist()), (relevant.tolist(), seen.tolist())
            want = oracle(*rows, *pairs, k, distance=distance)
            assert any(math.isnan(v) for v in want[0])
            for name, values in zip(("recall", "ndcg"), want, strict=True):
                np.testing.assert_allclose(found[f"{name}_at_{k}"], values, atol=1e-6)


def test_means_are_over_the_queries_with_something_relevant_left():
    x, y, relevant, seen = case(5)
    each = retrieval.recommendation(x, y, relevant, seen, ks=(3,), reduction="none")
    mean = retrieval.recommendation(x, y, relevant, seen, ks=(3,))
    assert list(mean) == ["recall_at_3", "ndcg_at_3", "num_queries"]
    for name, values in each.items():
        assert mean[name] == pytest.approx(np.nanmean(values), rel=1e-6)
    assert mean["num_queries"] == np.isfinite(each["recall_at_3"]).sum()


@pytest.mark.parametrize("block_size", [1, 2, 4, 100])
def test_blocks_change_nothing(block_size):
    x, y, relevant, seen = case(6)
    want = retrieval.recommendation(x, y, relevant, seen, ks=(1, 3))
    found = retrieval.recommendation(
        x, y, relevant, seen, ks=(1, 3), block_size=block_size
    )
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(a == b), want, found))


def test_the_order_of_the_pairs_and_repeated_ones_change_nothing():
    x, y, relevant, seen = case(7)
    want = retrieval.recommendation(x, y, relevant, seen)
    again = [np.concatenate([p, p])[::-1] for p in (relevant, seen)]
    assert want == retrieval.recommendation(x, y, *again)


def test_what_is_seen_is_not_found_again():
    users, items = jnp.zeros((1, 2)), jnp.array([[0.0, 0], [1, 0], [2, 0]])
    wanted = [[0, 1]]
    assert retrieval.recommendation(users, items, wanted, ks=(1,))["recall_at_1"] == 0
    found = retrieval.recommendation(users, items, wanted, [[0, 0]], ks=(1,))
    assert found["recall_at_1"] == 1
    # Both: there is nothing left to find.
    nothing = retrieval.recommendation(users, items, wanted, wanted, ks=(1,))
    assert nothing["num_queries"] == 0
    assert jnp.isnan(nothing["recall_at_1"])


def test_ties_count_against():
    users, items = jnp.zeros((1, 2)), jnp.ones((4, 2))
    found = retrieval.recommendation(users, items, [[0, 0]], ks=(3, 4))
    assert found["recall_at_3"] == 0
    assert found["recall_at_4"] == 1


def test_more_than_all_references_means_all():
    x, y, relevant, seen = case(8)
    found = retrieval.recommendation(x, y, relevant, seen, ks=(50,))
    assert found["recall_at_50"] == 1


def test_a_row_that_is_not_finite_makes_all_of_it_nan():
    x, y, relevant, seen = case(9)
    for rows in ((np.where(x > 1, np.nan, x), y), (x, np.where(y > 1, np.inf, y))):
        found = retrieval.recommendation(*rows, relevant, seen)
        assert jnp.isnan(found["recall_at_10"])
        assert jnp.isnan(found["ndcg_at_20"])


def test_never_the_whole_matrix():
    """Of 64 x 64 numbers, by blocks of 4 queries, no array has as many."""
    x, y, relevant, seen = case(10, q=64, n=64)
    sizes = []
    original = retrieval.recommendation.__globals__["_of_block"]

    def watched(rows, comparison, options):
        jaxpr = jax.make_jaxpr(lambda *a: original(*a, options))(rows, comparison)
        text = str(jaxpr)
        sizes.append("[64,64]" not in text and "[4,64]" in text)
        return original(rows, comparison, options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(retrieval.recommendation.__globals__, "_of_block", watched)
        retrieval.recommendation(x, y, relevant, seen, block_size=4)
    assert sizes == [True] * 16


X, Y = np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        (
            (X, Y, [[0, 4]]),
            {},
            "recommendation: `relevant` must hold rows from 0 to 3 in column 1, got 4. "
            "Give (row of `query`, row of `reference`).",
        ),
        (
            (X, Y, [[0, 1]], [[-1, 1]]),
            {},
            "recommendation: `seen` must hold rows from 0 to 1 in column 0, got -1. "
            "Give (row of `query`, row of `reference`).",
        ),
        (
            (X, Y, [0, 1, 2]),
            {},
            "recommendation: `relevant` must have shape (m, 2), got (3,). Give (row of "
            "`query`, row of `reference`).",
        ),
        (
            (X, Y, [[0.0, 1.0]]),
            {},
            "recommendation: `relevant` must be integer, got float64. Give (row of "
            "`query`, row of `reference`).",
        ),
        (
            (X, Y, [[0, 1]]),
            {"ks": (0,)},
            "recommendation: `ks` must hold positive ints, got 0. Use ks=(10, 20).",
        ),
    ],
)
def test_bad_calls(arguments, options, text):
    with pytest.raises((ValueError, TypeError)) as error:
        retrieval.recommendation(*arguments, **options)
    assert str(error.value) == text


def test_pairs_must_be_known():
    with pytest.raises(TypeError, match="outside of jax.jit"):
        jax.jit(lambda p: retrieval.recommendation(X, Y, p))(np.array([[0, 1]]))
