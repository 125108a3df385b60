"""Miners that draw: only what may be drawn, and as often as it should be."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles_miners
import pytest
from test_miners_loops import random_case

import jaxmetric as jm

KEY = jax.random.key(0)


def is_likely(counts, shares, draws):
    """Require counts within five standard deviations of their expectation."""
    assert set(counts) <= set(shares)
    for choice, share in shares.items():
        deviation = np.sqrt(draws * share * (1 - share))
        assert abs(counts[choice] - draws * share) < 5 * deviation + 1


@pytest.mark.parametrize("mode", ["self", "ref"])
def test_distance_weighted_follows_its_weights(mode):
    case = random_case(np.random.default_rng(5), mode=mode, is_exact=False)
    case["embeddings"][:, 0] += 1.0  # nearer than at random: most are eligible
    shares = oracles_miners.weights_of_negatives(case, cutoff=0.7, limit=1.3)
    draws = 4000

    @jax.jit
    def mine(keys):
        miner = partial(
            jm.miners.distance_weighted, cutoff=0.7, nonzero_loss_cutoff=1.3, size=40
        )
        return jax.vmap(lambda key: miner(key, **case))(keys)

    found = mine(jax.random.split(KEY, draws))
    # Every positive pair with an eligible negative has its slot, in order.
    expected = sorted(shares)
    assert 3 < len(expected) < 40
    num_valid = np.asarray(found.valid).sum(-1)
    assert (num_valid == len(expected)).all()
    for slot, (a, p) in enumerate(expected):
        assert (found.anchor[:, slot] == a).all()
        assert (found.positive[:, slot] == p).all()
        counts = Counter(np.asarray(found.negative[:, slot]).tolist())
        is_likely(counts, shares[a, p], draws)


def test_distance_weighted_does_not_underflow():
    rng = np.random.default_rng(6)
    x = jnp.asarray(rng.normal(size=(12, 2048)), jnp.float32)
    # Rows 0, 1 and 2 are near each other, the rest at sqrt(2), where a weight is
    # hundreds of powers of e smaller.
    x = x.at[1:3].set(x[:1] + 0.5 * x[1:3])
    labels = jnp.array([0, 0, 1, *range(2, 11)])
    for limit, negatives in ((1.4, {2}), (3.0, set(range(2, 12)))):
        found = jm.miners.distance_weighted(
            KEY, x, labels, nonzero_loss_cutoff=limit, size=4
        )
        assert found.valid[:2].all()
        assert set(np.asarray(found.negative[:2]).tolist()) <= negatives


@pytest.mark.parametrize(
    "name",
    ["distance_weighted", pytest.param("uniform_histogram", marks=pytest.mark.slow)],
)
def test_draws_do_not_depend_on_blocks(name):
    case = random_case(np.random.default_rng(7), mode="ref", is_exact=False)
    miner = getattr(jm.miners, name)
    one, other = (miner(KEY, **case, block_size=size) for size in (None, 3))
    assert one.valid.any()
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    again = miner(jax.random.key(1), **case)
    assert any((a != b).any() for a, b in zip(one, again, strict=True))


@pytest.mark.parametrize("mode", ["self", "ref"])
def test_uniform_histogram_draws_evenly_from_each_bin(mode):
    case = random_case(np.random.default_rng(8), mode=mode, is_exact=True)
    num_bins, draws = 7, 3000
    bins = oracles_miners.bins_of_pairs(case, num_bins=num_bins)
    assert mode == "ref" or any(not pairs for pairs in bins[True] + bins[False])
    found = jm.miners.uniform_histogram(
        KEY,
        **case,
        num_bins=num_bins,
        positives_per_bin=draws,
        negatives_per_bin=draws,
        block_size=3,
    )
    slots = np.stack([np.asarray(a).astype(int) for a in found], -1)
    slots = slots.reshape(2, num_bins, draws, 4)
    for is_positive, of_kind in zip((True, False), slots, strict=True):
        for pairs, drawn in zip(bins[is_positive], of_kind, strict=True):
            assert (drawn[:, 3] == bool(pairs)).all()
            assert (drawn[:, 2] == (is_positive and bool(pairs))).all()
            if pairs:
                counts = Counter(map(tuple, drawn[:, :2].tolist()))
                is_likely(counts, dict.fromkeys(pairs, 1 / len(pairs)), draws)


def test_uniform_histogram_of_equal_distances_fills_the_last_bin():
    x, labels = jnp.zeros((4, 2)), jnp.array([0, 0, 1, 1])
    found = jm.miners.uniform_histogram(
        KEY, x, labels, num_bins=3, positives_per_bin=2, negatives_per_bin=1
    )
    expected = [False] * 4 + [True] * 2 + [False] * 2 + [True]
    np.testing.assert_array_equal(found.valid, expected)


def test_no_pair_of_a_kind_is_no_valid_slot():
    x = jnp.arange(6.0).reshape(3, 2)
    for labels, kind in (([0, 0, 0], True), ([0, 1, 2], False)):
        labels = jnp.array(labels)
        assert not jm.miners.distance_weighted(KEY, x, labels).valid.any()
        found = jm.miners.uniform_histogram(KEY, x, labels, num_bins=4)
        assert found.valid.any()
        np.testing.assert_array_equal(found.is_positive, found.valid & kind)


@pytest.mark.parametrize("mode", ["self", pytest.param("ref", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["distance_weighted", "uniform_histogram"])
def test_a_relation_equals_its_labels(name, mode):
    case = random_case(np.random.default_rng(7), mode=mode, is_exact=False)
    miner = jax.jit(partial(getattr(jm.miners, name), KEY))
    columns = case["ref_labels" if mode == "ref" else "labels"]
    is_equal = case["labels"][:, None] == columns[None, :]
    other = {k: v for k, v in case.items() if k not in ("labels", "ref_labels")}
    found = miner(**case)
    related = miner(**other, labels=jm.Relation(is_equal, ~is_equal))
    assert found.valid.any()
    for a, b in zip(found, related, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", ["self", "ref"])
def test_random_triplets_of_a_relation_equal_those_of_its_labels(mode):
    case = random_case(np.random.default_rng(3), mode=mode, is_exact=True)
    sides = {k: v for k, v in case.items() if "embeddings" not in k}
    draw = partial(jm.miners.random_triplets, KEY, num_triplets=50)
    columns = case["ref_labels" if mode == "ref" else "labels"]
    is_equal = case["labels"][:, None] == columns[None, :]
    found = draw(**sides)
    sides = {k: v for k, v in sides.items() if k not in ("labels", "ref_labels")}
    related = draw(**sides, labels=jm.Relation(is_equal, ~is_equal))
    assert found.valid.all()
    for a, b in zip(found, related, strict=True):
        np.testing.assert_array_equal(a, b)
