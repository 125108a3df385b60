"""Verification: every threshold by hand, by loops, and against scikit-learn."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from jaxmetric import retrieval

FAR = (0.0, 0.05, 0.3, 1.0)
NAMES = [f"tar_at_far_{f:g}" for f in FAR] + ["eer", "auc", "accuracy", "threshold"]


def oracle(distances, is_same, far=FAR):
    """Try every threshold, and every pair of pairs."""
    same = [d for d, s in zip(distances, is_same, strict=True) if s]
    different = [d for d, s in zip(distances, is_same, strict=True) if not s]
    points = []
    for t in [-math.inf, *sorted(set(distances))]:
        fa = sum(d <= t for d in different) / len(different)
        ta = sum(d <= t for d in same) / len(same)
        right = sum(d <= t for d in same) + sum(d > t for d in different)
        points.append((fa, ta, right / len(distances), t))
    found = {f"tar_at_far_{f:g}": max(p[1] for p in points if p[0] <= f) for f in far}
    for (fa0, ta0, *_), (fa1, ta1, *_) in itertools.pairwise(points):
        low, high = fa0 - (1 - ta0), fa1 - (1 - ta1)
        if low < 0 <= high:
            found["eer"] = fa0 - low / (high - low) * (fa1 - fa0)
    wins = [(s < d) + (s == d) / 2 for s in same for d in different]
    found["auc"] = math.fsum(wins) / len(wins)
    best = max(p[2] for p in points)
    found["accuracy"] = best
    found["threshold"] = min(p[3] for p in points if p[2] == best)
    return found


def check(found, expected, bound=1e-6):
    """Require the same names in the same order, and the same numbers."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=bound, err_msg=name)


def pairs(seed, n, share=0.5, high=None):
    """Distances that are smaller for same pairs; whole numbers (ties) up to `high`."""
    rng = np.random.default_rng(seed)
    is_same = rng.random(n) < share
    is_same[:2] = [True, False]
    distances = rng.normal(size=n) - is_same
    if high is not None:
        distances = np.round(distances * high)
    return distances.astype(np.float32), is_same


def test_values_by_hand():
    found = retrieval.verification(
        np.arange(1, 5), np.array([True, False] * 2), far=(0, 0.5)
    )
    expected = {"tar_at_far_0": 1 / 2, "tar_at_far_0.5": 1, "eer": 1 / 2}
    check(found, expected | {"auc": 3 / 4, "accuracy": 3 / 4, "threshold": 1})
    default = retrieval.verification(jnp.arange(4.0), jnp.arange(4) < 2)
    assert list(default)[:2] == ["tar_at_far_0.001", "tar_at_far_0.01"]
    check(
        default,
        dict.fromkeys(list(default)[:2], 1)
        | dict(eer=0, auc=1, accuracy=1, threshold=1),
    )


@pytest.mark.parametrize("high", [None, 1, 3])
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_random_pairs_with_and_without_ties(high, share):
    for seed in range(4):
        distances, is_same = pairs(seed, 80, share, high)
        found = retrieval.verification(distances, is_same, far=FAR)
        check(found, oracle(distances.tolist(), is_same.tolist()))


def test_the_numbers_are_those_of_scikit_learn():
    distances, is_same = pairs(10, 5000, high=20)
    found = retrieval.verification(distances, is_same, far=(0.01, 0.2))
    assert found["auc"] == pytest.approx(
        sklearn.metrics.roc_auc_score(is_same, -distances)
    )
    fa, ta, _ = sklearn.metrics.roc_curve(is_same, -distances, drop_intermediate=False)
    for f in (0.01, 0.2):
        assert found[f"tar_at_far_{f:g}"] == pytest.approx(ta[fa <= f].max())


def test_rates_that_are_met_exactly_are_allowed():
    # One of ten, one of a thousand: what is rounded is rounded alike on both sides.
    for number, f in ((10, 0.1), (3000, 1e-3)):
        d = np.arange(2 * number, dtype=np.float32)
        allowed = round(number * f)
        is_same = np.ones(2 * number, bool)
        # The different pairs: `allowed` in front, the rest at the end.
        is_same[5 : 5 + allowed] = False
        is_same[number + allowed :] = False
        found = retrieval.verification(d, is_same, far=f)
        assert found[f"tar_at_far_{f:g}"] == 1
        below = retrieval.verification(d, is_same, far=f * 0.99)
        assert next(iter(below.values())) < 1


def test_all_distances_equal():
    found = retrieval.verification(np.ones(8), np.arange(8) < 3, far=(0.5, 1))
    expected = {"tar_at_far_0.5": 0, "tar_at_far_1": 1, "eer": 0.5, "auc": 0.5}
    # Accepting nothing tells five of eight right.
    check(found, expected | dict(accuracy=5 / 8, threshold=-math.inf))


def test_a_missing_kind_or_a_nan_is_nan():
    for is_same in (np.ones(4, bool), np.zeros(4, bool)):
        found = retrieval.verification(np.arange(4.0), is_same, far=FAR)
        assert list(found) == NAMES
        assert all(jnp.isnan(value) for value in found.values())
    broken = retrieval.verification(np.array([0, np.nan, 1, 2]), np.arange(4) < 2)
    assert all(jnp.isnan(value) for value in broken.values())
    one = retrieval.verification(np.ones(1), np.ones(1, bool))
    assert jnp.isnan(one["accuracy"])


def test_infinite_and_signed_distances_have_their_place():
    distances = np.array([-np.inf, -2, -0.0, 0.0, 3, np.inf], np.float32)
    is_same = np.array([True, True, True, False, True, False])
    found = retrieval.verification(distances, is_same, far=FAR)
    check(found, oracle(distances.tolist(), is_same.tolist()))


def test_pairs_that_do_not_exist_change_nothing():
    distances, is_same = pairs(11, 80, high=3)
    where = np.random.default_rng(0).random(80) < 0.7
    expected = oracle(distances[where].tolist(), is_same[where].tolist())
    distances[~where] = np.nan
    found = retrieval.verification(distances, is_same, where=where, far=FAR)
    check(found, expected)
    nobody = retrieval.verification(distances, is_same, where=np.zeros(80, bool))
    assert jnp.isnan(nobody["auc"])


def test_the_order_of_the_pairs_changes_no_bit():
    distances, is_same = pairs(12, 80, high=3)
    order = np.random.default_rng(0).permutation(80)
    found = retrieval.verification(distances, is_same, far=FAR)
    assert found == retrieval.verification(distances[order], is_same[order], far=FAR)


def test_float64_is_as_exact_as_float64():
    with jax.enable_x64(True):
        distances, is_same = pairs(13, 80)
        distances = distances + 1e-12 * np.arange(80)
        found = retrieval.verification(distances, is_same, far=FAR)
        assert found["auc"].dtype == jnp.float64
        check(found, oracle(distances.tolist(), is_same.tolist()), 1e-11)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_equals_float32_of_the_same_numbers(dtype):
    distances, is_same = pairs(14, 80)
    distances = jnp.asarray(distances).astype(dtype)
    found = retrieval.verification(distances, is_same, far=FAR)
    assert found["auc"].dtype == jnp.float32
    assert found == retrieval.verification(
        distances.astype(jnp.float32), is_same, far=FAR
    )


def test_millions_of_pairs():
    # A uniform and its square: AUC and EER are known to a sampling error.
    rng = np.random.default_rng(15)
    distances = rng.random(2_000_000).astype(np.float32)
    is_same = np.arange(2_000_000) % 2 == 0
    distances[is_same] **= 2
    found = retrieval.verification(distances, is_same, far=0.01)
    assert found["auc"] == pytest.approx(2 / 3, abs=2e-3)
    assert found["tar_at_far_0.01"] == pytest.approx(0.1, abs=2e-3)
    # t = 1 - sqrt(t)
    assert found["eer"] == pytest.approx((3 - 5**0.5) / 2, abs=2e-3)


def test_jit_and_vmap_equal_a_loop():
    distances, is_same = map(
        jnp.stack, zip(*(pairs(s, 80) for s in range(3)), strict=True)
    )

    def one(distances, is_same):
        return retrieval.verification(distances, is_same, far=FAR)

    mapped = jax.jit(jax.vmap(one))(distances, is_same)
    for i in range(3):
        for name, value in one(distances[i], is_same[i]).items():
            np.testing.assert_allclose(mapped[name][i], value, rtol=1e-6)


BAD_CALLS = {
    "far": (
        dict(far=(0.1, 2)),
        ValueError,
        "verification: `far` must hold rates between 0 and 1, got 2. "
        "Use far=(1e-3, 1e-2).",
    ),
    "kind": (
        dict(is_same=jnp.array([1, 0])),
        TypeError,
        "verification: `is_same` must be bool, got int32. Use is_same > 0.",
    ),
    "length": (
        dict(is_same=[True]),
        ValueError,
        "verification: `is_same` must have shape (2,) to match `distances` of shape "
        "(2,), got (1,). Give one bool a row.",
    ),
    "matrix": (
        dict(distances=jnp.ones((2, 2))),
        ValueError,
        "verification: `distances` must have shape (pairs,) with at least one pair, "
        "got (2, 2). Use .ravel().",
    ),
    "text": (
        dict(distances=["a", "b"]),
        TypeError,
        "verification: `distances` must be real numbers, got <U1. "
        "Give one distance a pair.",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_name_the_argument_and_the_remedy(case):
    changes, kind, text = BAD_CALLS[case]
    arguments = dict(distances=[1.0, 2.0], is_same=[True, False])
    with pytest.raises(kind, match="verification") as error:
        retrieval.verification(**(arguments | changes))
    assert str(error.value) == text
