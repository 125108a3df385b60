"""Arrays inside ``.npz`` files, read as if the file were written by an enemy.

Every claim is held against something that was measured before memory is asked for:
the directory of the archive against the size of the file, the header of an array
against the directory. Pickles are never read, names are never used as paths.
"""

import io
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# A header longer than this describes no plain array (NumPy's own limit).
_MAX_HEADER = 10_000

# Deflate cannot shrink data by more than this.
_MAX_DEFLATE = 1032

# Larger than both of these at once is a bomb: binary drawings shrink 60-fold.
_BOMB_BYTES, _BOMB_RATIO = 2**28, 200

_BLOCK_BYTES = 2**24


class BadArchive(Exception):
    """What is wrong with an archive, in words; the caller adds the file's name."""


@dataclass(frozen=True)
class Member:
    """An array in an archive: what its header says, checked against its size."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool
    header_size: int


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the arrays of an archive, in its order."""
    return [name.removesuffix(".npy") for name in archive.namelist()]


def read_header(archive: zipfile.ZipFile, name: str, file_size: int) -> Member:
    """Return what one array of an archive of `file_size` bytes claims to be."""
    found = [info for info in archive.infolist() if info.filename == name + ".npy"]
    if len(found) != 1:
        raise BadArchive(f"it holds {len(found)} arrays of the name `{name}`")
    info = found[0]
    if info.compress_type == zipfile.ZIP_STORED:
        limit = info.compress_size
    elif info.compress_type == zipfile.ZIP_DEFLATED:
        limit = info.compress_size * _MAX_DEFLATE + _MAX_DEFLATE
    else:
        raise BadArchive(f"`{name}` is compressed in a way that NumPy does not write")
    if info.header_offset + info.compress_size > file_size or info.file_size > limit:
        raise BadArchive(
            f"`{name}` claims {info.file_size:,} bytes, more than the file can hold"
        )
    if info.file_size > max(_BOMB_BYTES, _BOMB_RATIO * info.compress_size):
        raise BadArchive(
            f"`{name}` would grow from {info.compress_size:,} to {info.file_size:,} "
            "bytes, which looks like a decompression bomb"
        )
    with archive.open(info) as stream:
        shape, is_fortran, dtype, header_size = _parse_header(stream, name)
    if dtype.kind not in "biufcmMSU" or dtype.itemsize == 0:
        kind = "Python objects" if dtype.hasobject else f"dtype {dtype}"
        raise BadArchive(f"`{name}` holds {kind}, not plain numbers")
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != info.file_size - header_size:
        raise BadArchive(
            f"the header of `{name}` claims shape {shape} of {dtype}, {claimed:,} "
            f"bytes, but {info.file_size - header_size:,} are there"
        )
    return Member(info, shape, dtype, is_fortran, header_size)


def read_blocks(
    archive: zipfile.ZipFile, member: Member, *, num_axes: int
) -> Iterator[np.ndarray]:
    """Yield [b, ...] blocks of an array, its first `num_axes` axes made one.

    The checksum of the member is compared with the last of them.

    Memory: some 16 MB, or one row; the whole array where it is stored column by column.
    """
    rows = math.prod(member.shape[:num_axes])
    row_shape = member.shape[num_axes:]
    row_bytes = math.prod(row_shape) * member.dtype.itemsize
    step = max(1, _BLOCK_BYTES // max(1, row_bytes))
    with archive.open(member.info) as stream:
        _exactly(stream, member.header_size)
        if member.is_fortran and len(member.shape) > 1:
            # Rows are scattered over the whole array, so it is read at once.
            data = _exactly(stream, rows * row_bytes)
            array = np.frombuffer(data, member.dtype).reshape(member.shape, order="F")
            yield np.ascontiguousarray(array).reshape(rows, *row_shape)
        else:
            for start in range(0, rows, step):
                count = min(step, rows - start)
                data = _exactly(stream, count * row_bytes)
                yield np.frombuffer(data, member.dtype).reshape(count, *row_shape)


def _parse_header(stream, name: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, order, dtype and length in bytes of the header of a stream."""
    magic = _exactly(stream, 8)
    if magic[:6] != np.lib.format.MAGIC_PREFIX:
        raise BadArchive(f"`{name}` is no NumPy array")
    version = tuple(magic[6:8])
    if version not in ((1, 0), (2, 0)):
        # Version 3 exists for records with names beyond ASCII, which are no numbers.
        raise BadArchive(f"`{name}` is an array of format {version}, not plain numbers")
    prefix = _exactly(stream, 2 if version == (1, 0) else 4)
    length = int.from_bytes(prefix, "little")
    if length > _MAX_HEADER:
        raise BadArchive(f"the header of `{name}` claims {length:,} bytes")
    source = io.BytesIO(prefix + _exactly(stream, length))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(source)
        else:
            header = np.lib.format.read_array_header_2_0(source)
    shape, is_fortran, dtype = header
    return shape, is_fortran, dtype, 8 + len(prefix) + length


def _exactly(stream, size: int) -> bytes:
    """Return `size` bytes of a stream."""
    data = stream.read(size)
    if len(data) != size:
        raise BadArchive("the file ends in the middle of an array")
    return data


def size_of(path: str | os.PathLike) -> int:
    """Return the size of a regular file in bytes."""
    if not os.path.isfile(path):
        raise BadArchive("it is not a regular file")
    return os.path.getsize(path)
