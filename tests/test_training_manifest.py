"""A manifest that was changed on purpose, checksum and all, does no harm."""

import contextlib
import hashlib
import json

import numpy as np
import pytest

from jaxmetric.training import CheckpointError, manifest, save_checkpoint

TREE = {"w": np.ones((2, 3), np.float32), "n": np.int32(4)}


@pytest.fixture
def folder(tmp_path):
    return save_checkpoint(tmp_path, 3, TREE, metadata={"a": [1, {"b": None}]})


def forge(folder, data):
    """Write a manifest together with the checksum that fits it."""
    (folder / "manifest.json").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


def test_an_intact_folder_gives_what_was_written(folder):
    found = manifest.verify(folder)
    assert found.step == 3
    assert found.metadata == {"a": [1, {"b": None}]}
    assert [tuple(leaf) for leaf in found.leaves] == [
        ("n", (), "int32"),
        ("w", (2, 3), "float32"),
    ]


def test_three_hundred_forged_manifests_end_in_success_or_checkpoint_error(folder):
    good = (folder / "manifest.json").read_bytes()
    rng = np.random.default_rng(1)
    words = [b"null", b"[]", b"{}", b"-1", b'"x"', b"1e999", b"9" * 30, b"../", b"\xff"]
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(len(data)))
            kind = rng.integers(4)
            if kind == 0:
                data[place] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                del data[place:]
                data += b" "
            elif kind == 2:
                end = int(rng.integers(place, len(data)))
                data[place:end] = words[rng.integers(len(words))]
            else:
                other = int(rng.integers(len(data)))
                data[place], data[other] = data[other], data[place]
        forge(folder, bytes(data))
        # Any other exception than this one fails the test.
        with contextlib.suppress(CheckpointError):
            manifest.verify(folder)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": 2}, "has format 2, expected 1"),
        ({"leaves": 3}, "is not a manifest (TypeError"),
        ({"step": float("inf")}, "is not a manifest (OverflowError"),
        ({"files": {}}, "is not in the manifest"),
        ({"metadata": None}, "is not a manifest (TypeError"),
    ],
)
def test_the_fault_is_named(folder, change, text):
    body = json.loads((folder / "manifest.json").read_bytes()) | change
    forge(folder, json.dumps(body).encode())
    with pytest.raises(CheckpointError) as e:
        manifest.verify(folder)
    assert text in str(e.value)


def test_files_that_the_manifest_lacks_and_those_that_the_disk_lacks(folder):
    extra = folder / "arrays" / "d" / "extra"
    extra.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="arrays/d/extra: is not in the manifest"):
        manifest.verify(folder)
    extra.unlink()
    (folder / "arrays" / "_METADATA").unlink()
    with pytest.raises(CheckpointError, match="arrays/_METADATA: is missing"):
        manifest.verify(folder)


def test_a_cut_file_is_told_by_its_size(folder):
    file = folder / "arrays" / "_METADATA"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError) as e:
        manifest.verify(folder)
    assert str(e.value) == f"{file}: has {size - 1} bytes, expected {size}"


def test_a_manifest_that_cannot_be_read_is_named(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()
    with pytest.raises(CheckpointError, match="manifest.json: cannot be read"):
        manifest.verify(folder)
