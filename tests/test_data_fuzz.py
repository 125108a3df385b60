"""Seeded mutations of real files: the only outcomes are success and `DataError`."""

import io
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from jaxmetric.data import DataError, load

Image = pytest.importorskip("PIL.Image")

IMAGES = {
    "png": ("L", {}),
    "palette.png": ("P", {}),
    "alpha.png": ("RGBA", {}),
    "jpg": ("RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
    "gif": ("P", {}),
    "tiff": ("RGB", {"compression": "tiff_lzw"}),
    "webp": ("RGB", {}),
    "bmp": ("RGB", {}),
}


def original(kind):
    """Return the bytes of a good file."""
    random = np.random.default_rng(0)
    file = io.BytesIO()
    if kind == "npz":
        images = random.random((12, 9, 8)) < 0.5
        np.savez_compressed(file, images=images, labels=np.arange(12) % 3)
    elif kind == "stored.npz":
        np.savez(file, features=random.random((12, 9)), labels=np.arange(12) % 3)
    else:
        mode, options = IMAGES[kind]
        ramp = (np.mgrid[:24, :20].sum(0) * 5).astype(np.uint8)
        format_ = {"jpg": "JPEG"}.get(kind, kind.split(".")[-1].upper())
        Image.fromarray(ramp).convert(mode).save(file, format_, **options)
    return file.getvalue()


def mutated(kind, data, seed):
    """Return bytes that are a little, or very, wrong."""
    random = np.random.default_rng([seed, len(data)])
    way = random.integers(7)
    data = bytearray(data)
    if kind.endswith("npz") and way >= 5:
        return _mutated_archive(random, bytes(data))
    position = int(random.integers(len(data)))
    if way == 0:
        return bytes(data[:position])
    if way == 1:
        for at in random.integers(len(data), size=random.integers(1, 30)):
            data[at] ^= 1 << int(random.integers(8))
    elif way == 2:
        # Headers live at the beginning, the directory of an archive at the end.
        at = int(random.integers(min(len(data) - 4, 64)))
        at = at if random.integers(2) else len(data) - 4 - at
        data[at : at + 4] = [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"][seed % 3]
    elif way == 3:
        size = int(random.integers(1, 200))
        del data[position : position + size]
    elif way == 4:
        data[position:position] = random.bytes(int(random.integers(1, 200)))
    elif way == 5:
        size = int(random.integers(1, 64))
        other = int(random.integers(len(data)))
        data[position : position + size] = data[other : other + size]
    else:
        data[position:] = random.bytes(len(data) - position)
    return bytes(data)


def _mutated_archive(random, data):
    """Return an archive with sound checksums whose arrays lie, are swapped or gone."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    way = random.integers(4)
    name = list(members)[random.integers(len(members))]
    if way == 0:
        values = [members[key] for key in members]
        members = dict(zip(members, values[::-1], strict=True))
    elif way == 1:
        del members[name]
    elif way == 2:
        member = members[name]
        for at in random.integers(128, size=random.integers(1, 5)):
            member[at] = int(random.choice(list(b"0123456789<>|iuOfbSMV()[],'-. \xff")))
    else:
        members[name] = members[name][: random.integers(len(members[name]))]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in members.items():
            archive.writestr(key, bytes(value))
    return file.getvalue()


def outcome(path):
    """Return "success" or "refused"; anything else is raised."""
    message, data = "", None
    try:
        data = load(path)
    except DataError as error:
        message = str(error)
    if data is None:
        assert message.isprintable()
        assert 0 < len(message) < 1000
        return "refused"
    assert len(data) == len(np.asarray(data.labels))
    assert np.isfinite(data.inputs).all()
    return "success"


def check(tmp_path, kind, seeds):
    data = original(kind)
    if kind.endswith("npz"):
        path = file = tmp_path / "set.npz"
    else:
        path = tmp_path / "set"
        (path / "a").mkdir(parents=True)
        file = path / "a" / f"x.{kind}"
    file.write_bytes(data)
    assert outcome(path) == "success"
    outcomes = []
    for seed in seeds:
        file.write_bytes(mutated(kind, data, seed))
        start = time.perf_counter()
        tracemalloc.start()
        try:
            outcomes.append(outcome(path))
            assert tracemalloc.get_traced_memory()[1] < 2**30
        finally:
            tracemalloc.stop()
        assert time.perf_counter() - start < 2
    assert "refused" in outcomes


@pytest.mark.parametrize("kind", ["npz", "stored.npz", *IMAGES])
def test_mutations_are_read_or_refused(tmp_path, kind):
    check(tmp_path, kind, range(1000, 1030))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npz", "stored.npz", *IMAGES])
def test_three_hundred_mutations_are_read_or_refused(tmp_path, kind):
    check(tmp_path, kind, range(300))
