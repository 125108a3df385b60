"""Offline mining against loops, and what a limit on similarity leaves out."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles_miners
import pytest

import jaxmetric as jm

ROWS = 23


def random_case(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, 3)).astype(np.float32)
    return {
        "embeddings": x,
        "labels": rng.integers(-2, rng.integers(-1, 6), ROWS).astype(np.int32),
        "where": rng.random(ROWS) < 0.85,
        "ids": rng.integers(0, 40, ROWS).astype(np.int32),
    }


def ids_of(found):
    return [
        ids[valid].tolist()
        for ids, valid in zip(
            np.asarray(found.ids), np.asarray(found.valid), strict=True
        )
    ]


@pytest.mark.parametrize("block_size", [None, 4])
@pytest.mark.parametrize(
    ("num_negatives", "max_similarity"), [(5, None), (5, 0.9), (30, 0.4)]
)
def test_equals_loops(block_size, num_negatives, max_similarity):
    options = {"num_negatives": num_negatives, "max_similarity": max_similarity}
    mine = jax.jit(
        lambda case: jm.mine_dataset(**case, **options, block_size=block_size)
    )
    if max_similarity is None:
        options.pop("max_similarity")
    num_found = 0
    for seed in range(8):
        case = random_case(seed)
        found = mine(case)
        assert found.ids.shape == (ROWS, num_negatives)
        expected = oracles_miners.mined_dataset(case, **options)
        assert ids_of(found) == expected
        assert not np.asarray(found.ids)[~np.asarray(found.valid)].any()
        x = case["embeddings"] / np.linalg.norm(case["embeddings"], axis=1)[:, None]
        s = (x @ x.T)[np.arange(ROWS)[:, None], np.asarray(found.ids)]
        np.testing.assert_allclose(
            found.similarities, np.where(found.valid, s, 0), atol=1e-5
        )
        num_found += sum(map(len, expected))
    assert num_found > 100


def test_a_copy_of_any_positive_is_left_out():
    # Rows 0 and 1 are a class; row 2 is labelled otherwise and nearly row 1, row 3 is
    # hard and no copy of anything.
    angles = np.deg2rad([0.0, 40.0, 41.0, -50.0, 180.0])
    x = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], -1), jnp.float32)
    labels = jnp.array([0, 0, 1, 2, 2])
    free = jm.mine_dataset(x, labels, num_negatives=1)
    np.testing.assert_array_equal(free.ids[:2, 0], [2, 2])
    limited = jm.mine_dataset(x, labels, num_negatives=1, max_similarity=0.95)
    np.testing.assert_array_equal(limited.ids[:2, 0], [3, 3])
    # The copy in turn is too near to row 1 alone.
    assert int(limited.ids[2, 0]) == 0


def test_equal_similarities_come_in_the_order_of_ids():
    x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 1.0]])
    found = jm.mine_dataset(x, jnp.array([0, 1, 2, 3]), num_negatives=3)
    np.testing.assert_array_equal(found.ids[0], [1, 2, 3])


def test_classes_larger_than_a_block():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    labels = np.where(np.arange(40) % 3 == 0, 1, 0).astype(np.int32)
    case = {"embeddings": x, "labels": labels}
    options = {"num_negatives": 4, "max_similarity": 0.9}
    expected = oracles_miners.mined_dataset(case, **options)
    for block_size in (3, 40):
        found = jm.mine_dataset(**case, **options, block_size=block_size)
        assert ids_of(found) == expected
    assert expected != oracles_miners.mined_dataset(case, num_negatives=4)


def test_rows_that_are_not_finite_are_not_found():
    case = random_case(3)
    case["where"] = np.ones(ROWS, bool)
    expected = oracles_miners.mined_dataset(
        case | {"where": np.arange(ROWS) != 5}, num_negatives=4, max_similarity=0.8
    )
    case["embeddings"][5] = np.nan
    found = jm.mine_dataset(**case, num_negatives=4, max_similarity=0.8)
    assert ids_of(found) == expected


def test_memory_is_that_of_a_block():
    x, labels = jnp.zeros((4096, 8)), jnp.arange(4096) % 64
    mine = jax.jit(
        lambda x, y: jm.mine_dataset(
            x, y, num_negatives=4, max_similarity=0.9, block_size=32
        )
    )
    largest = 0

    def walk(jaxpr):
        nonlocal largest
        for equation in jaxpr.eqns:
            largest = max(largest, *(v.aval.size for v in equation.outvars), 0)
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
            ):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    walk(inner)

    walk(jax.make_jaxpr(mine)(x, labels).jaxpr)
    # A block of similarities, and the differences behind its few coordinates.
    assert largest <= 32 * 4096 * 8


def test_bad_arguments_are_told():
    x, labels = jnp.ones((3, 2)), jnp.array([0, 0, 1])
    is_equal = labels[:, None] == labels[None, :]
    with pytest.raises(TypeError, match="`labels` must be one integer class a row"):
        jm.mine_dataset(x, jm.Relation(is_equal, ~is_equal))  # pyright: ignore
    with pytest.raises(ValueError, match="`num_negatives` must be a positive int"):
        jm.mine_dataset(x, labels, num_negatives=0)
    with pytest.raises(ValueError, match="`max_similarity` must be >= -1"):
        jm.mine_dataset(x, labels, max_similarity=-2.0)
