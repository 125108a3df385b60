"""Archives written by an enemy: refused in one line, cheaply, and nothing unpacked."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from jaxmetric.data import DataError, load

BYTES = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([3, -1, 3, 7, -1, 7])


@pytest.fixture
def save(tmp_path):
    """Return a function that writes arrays and returns the path."""

    def write(compressed=True, **arrays):
        path = tmp_path / "set.npz"
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
        return path

    return write


def refusal(path, **options):
    """Return the text of the DataError of a file, which is one line and names it."""
    with pytest.raises(DataError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{path}: ")
    assert message.endswith((".", "?"))
    return message.removeprefix(f"{path}: ")


def npy(header: bytes, data: bytes = b"", version=(1, 0), length=None) -> bytes:
    """Return the bytes of an array file with any header."""
    size = len(header) if length is None else length
    prefix = struct.pack("<H" if version == (1, 0) else "<I", size)
    return b"\x93NUMPY" + bytes(version) + prefix + header + data


def header(shape, descr="'|u1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"
    return text.encode()


def array(values) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


HOSTILE = {
    "no archive": b"hello",
    "an empty file": b"",
    "no array": {"images": b"text"},
    "a header beyond the file": {"images": npy(header("(1000000000000, 9, 9)"))},
    "a header below the file": {"images": npy(header("(2, 2, 2)"), bytes(99))},
    "a negative shape": {"images": npy(header("(-1, -1, 8)"), bytes(8))},
    "a shape of bools": {"images": npy(header("(True, 4, 2)"), bytes(8))},
    "a shape of floats": {"images": npy(header("(2.0, 2, 2)"), bytes(8))},
    "an overflowing shape": {"images": npy(header(f"({2**62}, 4, 4)"), bytes(8))},
    "an endless header": {"images": npy(b"", version=(2, 0), length=2**32 - 1)},
    "a header above the file": {"features": npy(header("(6, 5000000)"), b"1")},
    "a header that grows": {"images": npy(b" " * 2**26, version=(2, 0))},
    "a long header": {"images": npy(header("(2, 2, 2)") + b" " * 50_000, bytes(8))},
    "a deep header": {"images": npy(b"(" * 5000, bytes(8))},
    "code for a header": {"images": npy(b"__import__('os').abort()", bytes(8))},
    "an object array": {"images": npy(header("(1,)", "'|O'"), b"cos\nsystem\n.")},
    "a record": {"images": npy(header("(1, 1, 1)", "[('a', '|O')]"), bytes(8))},
    "an empty dtype": {"images": npy(header("(9, 9, 9)", "'|V0'"))},
    "a shaped dtype": {"images": npy(header("(1, 1)", "('|u1', (2, 2))"), bytes(4))},
    "a version to come": {"images": npy(header("(1, 1, 1)"), b"a", version=(3, 0))},
    "a path for a name": {"../../images": array(BYTES), "/images": array(BYTES)},
    "a nested name": {"sub/images": array(BYTES)},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_cheaply(tmp_path, name):
    path = tmp_path / "set.npz"
    content = HOSTILE[name]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in content.items():
                archive.writestr(member + ".npy", data)
            archive.writestr("labels.npy", array(LABELS))
    tracemalloc.start()
    try:
        refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert list(tmp_path.iterdir()) == [path]


def test_a_bomb_is_refused_before_it_grows(tmp_path):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            member.write(npy(header(f"({2**29}, 1, 1)")))
            for _ in range(2**9):
                member.write(bytes(2**20))
        archive.writestr("labels.npy", array(LABELS))
    assert "looks like a decompression bomb" in refusal(path)


def test_a_directory_that_lies_is_refused(save):
    path = save(compressed=False, images=BYTES, labels=LABELS)
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    for sizes in ((2**31 - 1, 2**31 - 1), (2**20, 2**31 - 1), (10, 2**31 - 1)):
        struct.pack_into("<II", data, central + 20, *sizes)
        path.write_bytes(data)
        assert "more than the file can hold" in refusal(path)


def test_one_flipped_byte_is_noticed(save):
    path = save(compressed=False, images=BYTES, labels=LABELS)
    data = bytearray(path.read_bytes())
    data[data.index(BYTES.tobytes()) + 7] ^= 16
    path.write_bytes(data)
    assert "Bad CRC-32" in refusal(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_every_checksum_is_compared(save, compressed):
    path = save(compressed=compressed, images=BYTES, labels=LABELS)
    data = path.read_bytes()
    for number in (1, 2):
        damaged = bytearray(data)
        damaged[len(b"PK\x01\x02".join(data.split(b"PK\x01\x02")[:number])) + 16] ^= 1
        path.write_bytes(damaged)
        assert "Bad CRC-32" in refusal(path)


def test_two_arrays_of_one_name_are_refused(tmp_path):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", array(BYTES))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("images.npy", array(BYTES))
        archive.writestr("labels.npy", array(LABELS))
    assert "it holds 2 arrays of the name `images`" in refusal(path)


def test_an_unusual_compression_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images.npy", array(BYTES))
        archive.writestr("labels.npy", array(LABELS))
    assert "compressed in a way that NumPy does not write" in refusal(path)


def test_an_encrypted_array_is_refused(save):
    path = save(images=BYTES, labels=LABELS)
    data = bytearray(path.read_bytes())
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(start) + flags] |= 1
    path.write_bytes(data)
    assert "is encrypted" in refusal(path)
