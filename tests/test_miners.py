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
from jax.sharding import AxisType, NamedSharding, PartitionSpec

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


# Rows 0, 1, .., 8 of one coordinate; row 5 is alone in its class.
LINE = jnp.arange(9.0)[:, None]
LINE_LABELS = jnp.array([0, 0, 1, 1, 0, 2, 1, 1, 1])
ANCHORS = [0, 1, 2, 3, 4, 6, 7, 8]


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        ("hard", "hard", (ANCHORS, [4, 4, 8, 8, 0, 2, 2, 2], [2, 2, 1, 4, 3, 5, 5, 5])),
        (
            "easy",
            "semihard",
            (ANCHORS, [1, 0, 3, 2, 1, 7, 6, 7], [2, 3, 0, 1, 8, 4, 5, 5]),
        ),
        ("hard", "semihard", ([0, 1, 6, 7, 8], [4, 4, 2, 2, 2], [5, 5, 1, 1, 1])),
        ("semihard", "hard", ([0, 7, 8], [1, 6, 6], [2, 5, 5])),
        ("easy", "easy", (ANCHORS, [1, 0, 3, 2, 1, 7, 6, 7], [8, 8, 5, 0, 8, 0, 0, 0])),
    ],
)
def test_hand_values(positive, negative, expected):
    found = jm.miners.batch_easy_hard(
        LINE, LINE_LABELS, positive=positive, negative=negative
    )
    kept = np.asarray(found.valid)
    for index, values in zip(found[:3], expected, strict=True):
        np.testing.assert_array_equal(index[kept], values)
    if (positive, negative) == ("hard", "hard"):
        for one, two in zip(
            found, jm.miners.batch_hard(LINE, LINE_LABELS), strict=True
        ):
            np.testing.assert_array_equal(one, two)


def test_angles_by_hand():
    # Seen from above the middle of a pair of width 2 at height h: atan(1 / h).
    x = jnp.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    labels = jnp.array([0, 0, 1, 2])
    for angle, negatives in ((44.9, [2, 3]), (45.1, [3]), (89.9, [3]), (90.0, [])):
        found = jm.miners.angular(x, labels, angle=angle, size=4)
        kept = np.asarray(found.valid)
        np.testing.assert_array_equal(found.negative[kept], negatives * 2)


def test_three_equal_rows_are_seen_at_a_right_angle():
    found = jm.miners.angular(jnp.zeros((3, 2)), jnp.array([0, 0, 1]), angle=89.9)
    assert int(found.valid.sum()) == 2


def test_a_share_that_is_a_whole_number_but_for_rounding():
    x = jnp.asarray(np.random.default_rng(4).normal(size=(11, 3)), jnp.float32)
    labels = jnp.zeros(11, jnp.int32)
    for fraction, count in ((0.1, 11), (0.3, 33), (0.7, 77), (0.0, 0), (1.0, 110)):
        assert (
            int(jm.miners.hard_pairs(x, labels, fraction=fraction).valid.sum()) == count
        )
    # One more than a tenth of 110 is asked for.
    assert int(jm.miners.hard_pairs(x, labels, fraction=0.101).valid.sum()) == 12


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

        value, gradient = jax.jit(jax.value_and_grad(by_hand))(x)
        expected, expected_gradient = jax.jit(jax.value_and_grad(at_once))(x)
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


@pytest.mark.parametrize(
    "name", ["batch_easy_hard", "distance_weighted", "multi_similarity", "angular"]
)
def test_sharded_anchors_choose_what_they_choose_on_one_device(name):
    rng, rows = np.random.default_rng(5), 16
    x = jnp.asarray(rng.normal(size=(rows, 3)) + [2.0, 0.0, 0.0], jnp.float32)
    y = jnp.asarray(rng.integers(0, 5, rows), jnp.int32)
    key = [jax.random.key(0)] if name == "distance_weighted" else []
    miner = functools.partial(getattr(jm.miners, name), *key)
    sized = {} if name in ("batch_easy_hard", "distance_weighted") else {"size": 200}
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    shard = PartitionSpec("data")
    with jax.set_mesh(mesh):
        arrays = jax.device_put((x, y), NamedSharding(mesh, shard))
        mapped = jax.shard_map(
            lambda x, y: miner(x, y, axis_name="data", block_size=1, **sized),
            mesh=mesh,
            in_specs=(shard, shard),
            out_specs=shard,
        )
        anchor, *others, valid = map(np.asarray, jax.jit(mapped)(*arrays))
    # Anchors are numbered on their device, which has two.
    anchor = anchor + np.repeat(np.arange(8) * 2, anchor.size // 8)
    found = set(zip(*(a[valid].tolist() for a in (anchor, *others)), strict=True))
    *indices, valid = map(np.asarray, miner(x, y))
    expected = set(zip(*(a[valid].tolist() for a in indices), strict=True))
    assert found == expected
    assert len(expected) > 8


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
    x = jnp.ones((2, 2))
    with pytest.raises(ValueError, match="semi_hard: `size` must be a positive int"):
        jm.miners.semi_hard(x, labels, size=-1)
    with pytest.raises(ValueError, match=r"pair_margin: `size` must be at most 1073"):
        jm.miners.pair_margin(x, labels, size=2**31)
    with pytest.raises(ValueError, match="`negative` must be 'easy' or 'hard' where"):
        jm.miners.batch_easy_hard(x, labels, positive="semihard")
    with pytest.raises(ValueError, match="`positive` must be one of 'easy', 'hard'"):
        jm.miners.batch_easy_hard(x, labels, positive="all")
    bad: Any = 0.5
    with pytest.raises(ValueError, match="`positive_range` must be two numbers"):
        jm.miners.batch_easy_hard(x, labels, positive_range=bad)
    with pytest.raises(ValueError, match="triplet_margin: `kind` must be one of"):
        jm.miners.triplet_margin(x, labels, kind="semi-hard")
    with pytest.raises(ValueError, match="`num_bins` must be a positive int"):
        jm.miners.uniform_histogram(key, x, labels, num_bins=0)
    with pytest.raises(ValueError, match="distance_weighted: `cutoff` must be > 0"):
        jm.miners.distance_weighted(key, x, labels, cutoff=0.0)
