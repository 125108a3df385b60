"""The hardest pairs of a batch against itself, from half of its distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmetric as jm
from jaxmetric import _comparison, _rows, _selection, _tiles


def batch(rows: int, dim: int) -> dict:
    """Return integer rows, so that ties are exact, with masks and repeated samples."""
    rng = np.random.default_rng(rows)
    x = rng.integers(-3, 4, (rows, dim)).astype(np.float32)
    x[5], x[rows - 1] = x[700], x[3]
    ids = np.arange(rows)
    ids[rows - 2] = ids[1]
    labels = rng.integers(0, 150, rows)
    labels[7] = 1000  # alone in its class
    return {
        "embeddings": x,
        "labels": labels,
        "where": rng.random(rows) < 0.9,
        "ids": ids,
    }


def expected(case: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the lowest indices of the extremes, by whole matrices of NumPy."""
    x, labels = case["embeddings"].astype(float), case["labels"]
    d = ((x[:, None, :] - x[None, :, :]) ** 2).sum(-1)
    allowed = case["where"][:, None] & case["where"][None, :]
    allowed &= case["ids"][:, None] != case["ids"][None, :]
    is_equal = labels[:, None] == labels[None, :]
    positive, negative = is_equal & allowed, ~is_equal & allowed
    p = np.where(positive, d, -np.inf).argmax(-1)
    n = np.where(negative, d, np.inf).argmin(-1)
    has_both = positive.any(-1) & negative.any(-1)
    return p, n, has_both


@pytest.mark.parametrize("rows", [1024, 1025, 1537])
def test_tiles_find_the_lowest_index_among_the_hardest(rows):
    case = batch(rows, 3)
    comparison = _comparison.compare("f", **case, distance="euclidean")
    comparison = _rows.gather(comparison)
    assert _tiles.are_fewer(comparison, None)
    search = jax.jit(lambda c: _selection.find_hardest(c, _rows.prepare(c), None))
    p, n, has_both = (np.asarray(a) for a in search(comparison))
    want_p, want_n, want = expected(case)
    np.testing.assert_array_equal(has_both, want)
    np.testing.assert_array_equal(p[want], want_p[want])
    np.testing.assert_array_equal(n[want], want_n[want])


@pytest.mark.parametrize(
    "distance", [pytest.param("cosine", marks=pytest.mark.slow), "dot"]
)
def test_the_loss_is_that_of_rows_by_blocks(distance):
    case = batch(1030, 40)
    case["embeddings"] = case["embeddings"] + np.float32(0.25)
    x = case.pop("embeddings")

    @jax.jit
    def both(x):
        def loss(x, block_size):
            return jm.losses.batch_hard_triplet_loss(
                x, **case, margin=3.0, distance=distance, block_size=block_size
            )

        return [jax.value_and_grad(loss)(x, size) for size in (None, 300)]

    (tiles, tiles_grad), (blocks, blocks_grad) = both(x)
    assert float(blocks) > 0
    np.testing.assert_allclose(tiles, blocks, rtol=1e-6)
    np.testing.assert_allclose(tiles_grad, blocks_grad, atol=1e-7)


def test_other_sides_and_asymmetric_distances_go_by_rows():
    case = batch(1024, 3)

    def is_by_tiles(**more) -> bool:
        comparison = _comparison.compare("f", **{**case, "distance": "dot", **more})
        return _tiles.are_fewer(comparison, None)

    assert is_by_tiles()
    assert not is_by_tiles(distance=lambda x, y: x[:, :1] - y[:, :1].T)
    x, labels, ids = (case[key] for key in ("embeddings", "labels", "ids"))
    refs = {"ref_embeddings": x, "ref_labels": labels, "ref_ids": ids}
    assert not is_by_tiles(**refs)


def test_a_row_without_partner_has_index_zero():
    x = jnp.ones((1024, 2))
    comparison = _rows.gather(
        _comparison.compare("f", x, np.zeros(1024, int), distance="euclidean")
    )
    p, n, has_both = _tiles.hardest(comparison, _rows.prepare(comparison))
    assert not has_both.any()
    assert not n.any()
    assert p[0] == 1
    assert not p[1:].any()
