"""Miners: what they choose, against loops, and the shape in which they say it."""

import functools
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from cases import REFERENCES
from degenerate import DIM, ROWS

import jaxmetric as jm

SIDE = ("embeddings", "labels", "where", "ids")
REFS = ("ref_embeddings", "ref_labels", "ref_where", "ref_ids")


def random_case(rng, *, mode):
    """Return a random batch on a grid of integers, so that distances tie exactly."""

    def side(rows):
        x = rng.integers(-2, 3, size=(rows, DIM)).astype(np.float32)
        labels = rng.integers(0, 3, rows).astype(np.int32)
        return x, labels, rng.random(rows) < 0.8, rng.integers(0, 12, rows)

    case: dict[str, Any] = dict(zip(SIDE, side(ROWS), strict=True))
    if mode == "ref":
        case |= dict(zip(REFS, side(REFERENCES), strict=True))
    return case


@functools.cache
def compiled(name, options):
    miner = functools.partial(getattr(jm.miners, name), **dict(options))
    return jax.jit(lambda case: miner(**case))


def mined(name, case, **options):
    return compiled(name, tuple(options.items()))(case)


@pytest.mark.parametrize("mode", ["self", "ref"])
@pytest.mark.parametrize("name", ["batch_hard", "semi_hard"])
@pytest.mark.parametrize("block_size", [None, 3])
def test_miner_equals_loops(name, mode, block_size):
    rng = np.random.default_rng(0)
    oracle = getattr(oracles, f"mined_{name}")
    num_valid = 0
    for _ in range(40):
        case = random_case(rng, mode=mode)
        found = mined(name, case, block_size=block_size)
        expected = [np.asarray(a) for a in zip(*oracle(case), strict=True)]
        num_valid += int(expected[3].sum())
        for slot, answer in zip(found, expected, strict=True):
            np.testing.assert_array_equal(slot, answer)
    assert num_valid > 100


def test_hand_values():
    x = jnp.arange(9.0)[:, None]
    y = jnp.array([0, 0, 1, 1, 0, 2, 1, 1, 1])
    a, p, n, valid = jm.miners.batch_hard(x, y)
    kept = np.asarray(valid)
    np.testing.assert_array_equal(a[kept], [0, 1, 2, 3, 4, 6, 7, 8])
    np.testing.assert_array_equal(p[kept], [4, 4, 8, 8, 0, 2, 2, 2])
    np.testing.assert_array_equal(n[kept], [2, 2, 1, 4, 3, 5, 5, 5])


def test_size_keeps_the_first_valid_slots():
    case = random_case(np.random.default_rng(1), mode="self")
    full = mined("semi_hard", case)
    valid = np.flatnonzero(full.valid)
    for size in (3, valid.size + 4):
        kept = mined("semi_hard", case, size=size)
        count = min(size, valid.size)
        for some, every in zip(kept, full, strict=True):
            np.testing.assert_array_equal(some[:count], every[valid[:count]])
        assert not kept.valid[count:].any()
        assert not kept.anchor[count:].any()


def test_mined_triplets_give_the_mined_loss():
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=(24, 8)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 5, 24), jnp.int32)
    pairs = [("batch_hard", "batch_hard_triplet_loss"), ("semi_hard",) * 2]
    for miner, loss in pairs:
        loss = loss if loss.endswith("_loss") else f"{loss}_triplet_loss"

        def by_hand(x, miner=miner):
            triplets = getattr(jm.miners, miner)(x, y)
            return jm.losses.triplet_loss(x, triplets, margin=0.5)

        def at_once(x, loss=loss):
            return getattr(jm.losses, loss)(x, y, margin=0.5)

        value, gradient = jax.value_and_grad(by_hand)(x)
        expected, expected_gradient = jax.value_and_grad(at_once)(x)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


@pytest.mark.parametrize("mode", ["self", "ref"])
def test_random_triplets_follow_their_distribution(mode):
    case = random_case(np.random.default_rng(3), mode=mode)
    sides = {k: v for k, v in case.items() if "embeddings" not in k}
    draws = 40_000
    drawn = jm.miners.random_triplets(jax.random.key(0), num_triplets=draws, **sides)
    assert bool(drawn.valid.all())
    counts = Counter(zip(*(a.tolist() for a in drawn[:3]), strict=True))
    probabilities = oracles.triplet_probabilities(case)
    assert set(counts) <= set(probabilities)
    for triplet, p in probabilities.items():
        # Five standard deviations of a binomial count.
        assert abs(counts[triplet] - draws * p) < 5 * np.sqrt(draws * p) + 1


def test_no_triplet_is_no_valid_slot():
    for labels in ([0, 0, 0], [0, 1, 2], [4]):
        drawn = jm.miners.random_triplets(
            jax.random.key(0), jnp.array(labels), num_triplets=5
        )
        assert not drawn.valid.any()
        assert not drawn.positive.any()
        x = jnp.ones((len(labels), 2))
        assert not jm.miners.batch_hard(x, jnp.array(labels)).valid.any()
        assert not jm.miners.semi_hard(x, jnp.array(labels)).valid.any()


def test_bad_arguments_are_told():
    key, labels = jax.random.key(0), jnp.array([0, 1])
    with pytest.raises(ValueError, match="`num_triplets` must be a positive int"):
        jm.miners.random_triplets(key, labels, num_triplets=0)
    with pytest.raises(ValueError, match="semi_hard: `size` must be a positive int"):
        jm.miners.semi_hard(jnp.ones((2, 2)), labels, size=-1)
