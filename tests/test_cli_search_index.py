"""The file of a gallery's embeddings: what is new in it, and every damage to it."""

import numpy as np
import pytest

from jaxmetric.cli import search_index
from jaxmetric.cli.errors import UsageError


def test_only_new_rows_are_embedded():
    random = np.random.default_rng(0)
    rows = random.normal(size=(20, 3)).astype(np.float32)
    calls = []

    def embed(inputs):
        calls.append(inputs)
        return inputs[:, :2] * 2

    index, num_new = search_index.embed_new(rows, None, embed, "one")
    assert num_new == 20
    # Some rows elsewhere, one twice, some gone, two new ones.
    new = random.normal(size=(2, 3)).astype(np.float32)
    later = np.concatenate([rows[15:], new, rows[:5], rows[:1]])
    calls.clear()
    index, num_new = search_index.embed_new(later, index, embed, "one")
    assert num_new == 2
    assert np.array_equal(calls[0], new)
    assert np.array_equal(index.embeddings, later[:, :2] * 2)
    calls.clear()
    again, num_new = search_index.embed_new(later, index, embed, "one")
    assert (num_new, calls) == (0, [])
    assert np.array_equal(again.embeddings, index.embeddings)
    assert search_index.embed_new(later, index, embed, "other")[1] == len(later)
    # Half a key is not enough.
    keys = index.keys.copy()
    keys[4, -1] ^= 1
    assert (
        search_index.embed_new(later, index._replace(keys=keys), embed, "one")[1] == 1
    )


def test_a_key_is_of_content_and_kind():
    rows = np.zeros((1, 4), np.uint8)
    kinds = [rows, rows.reshape(1, 2, 2), rows.astype(np.int8), rows + np.uint8(1)]
    keys = {search_index.keys_of(kind).tobytes() for kind in kinds}
    assert len(keys) == 4
    assert search_index.keys_of(np.zeros((0, 4))).shape == (0, 16)


def test_every_damage_of_an_index_is_told(tmp_path):
    path = tmp_path / "index.npz"
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    index = search_index.Index(search_index.keys_of(rows), rows, "ab")
    search_index.write_index(path, index)
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    cuts = [whole[:size] for size in random.integers(0, len(whole), 40)]
    start = whole.index(rows.tobytes())
    flipped = []
    for place in range(start, start + rows.nbytes, 5):
        damaged = bytearray(whole)
        damaged[place] ^= 64
        flipped.append(bytes(damaged))
    for damaged in cuts + flipped:
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="Remove it, or give another name"):
            search_index.read_index(path)
    path.write_bytes(whole)
    again = search_index.read_index(path)
    assert again is not None
    assert np.array_equal(again.embeddings, rows)
    for name, array in (
        ("version", np.array([2], np.int32)),
        ("keys", index.keys[:-1]),
        ("keys", index.keys[:, :8]),
        ("embeddings", rows.astype(np.float64)),
        ("embeddings", np.full_like(rows, np.nan)),
        ("fingerprint", np.array([1])),
        ("more", rows),
    ):
        with np.load(path) as file:
            arrays = dict(file)
        arrays[name] = array
        np.savez(path, allow_pickle=False, **arrays)
        with pytest.raises(UsageError, match="Remove it, or give another name"):
            search_index.read_index(path)
        path.write_bytes(whole)
