"""The embeddings of a gallery in a file, from which only new rows are missing.

Every row of a gallery has a key, a hash of its content. The file holds keys and
embeddings in the order of the gallery, and the fingerprint of the encoder; a row whose
key is in it is not embedded again, wherever in the gallery it stands now.
"""

import hashlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.outputs import whole
from jaxmetric.data import archives

_VERSION = 1
_KEY_BYTES = 16


class Index(NamedTuple):
    """The embeddings of rows, and by what they are found again.

    Attributes:
      keys: [n, 16] uint8 hashes of the rows.
      embeddings: [n, dim] float32.
      fingerprint: of the encoder.
    """

    keys: np.ndarray
    embeddings: np.ndarray
    fingerprint: str


def usual_path(folder: Path, gallery: str) -> Path:
    """Return the file in the folder of a run that belongs to a gallery."""
    name = re.sub(r"[^\w.-]+", "-", Path(gallery).stem).strip("-.")[:40] or "data"
    place = hashlib.sha256(str(Path(gallery).absolute()).encode()).hexdigest()[:8]
    return folder / f"index-{name}-{place}.npz"


def keys_of(rows: np.ndarray) -> np.ndarray:
    """Return [n, 16] uint8 hashes of the content of rows, their dtype and shape.

    Time: a few microseconds a row.
    """
    start = hashlib.blake2b(
        f"{rows.dtype.str}{rows.shape[1:]}".encode(), digest_size=_KEY_BYTES
    )
    keys = bytearray()
    for row in rows:
        digest = start.copy()
        digest.update(np.ascontiguousarray(row).data)
        keys += digest.digest()
    return np.frombuffer(bytes(keys), np.uint8).reshape(len(rows), _KEY_BYTES)


def embed_new(
    rows: np.ndarray,
    index: Index | None,
    embed: Callable[[np.ndarray], np.ndarray],
    fingerprint: str,
) -> tuple[Index, int]:
    """Return the index of rows, and how many of them had to be embedded.

    Args:
      rows: [n, ...] inputs.
      index: of an earlier gallery, None if there is none; one of another encoder is of
        no use.
      embed: from inputs to embeddings.
      fingerprint: of the encoder.

    Memory: the embeddings twice, and the new rows.
    """
    keys = keys_of(rows)
    if index is None or index.fingerprint != fingerprint:
        return Index(keys, embed(rows), fingerprint), len(rows)
    place = _find(keys, index.keys)
    is_new = place < 0
    num_new = int(is_new.sum())
    if num_new == len(rows):
        return Index(keys, embed(rows), fingerprint), num_new
    embeddings = index.embeddings[np.where(is_new, 0, place)]
    if num_new:
        embeddings[is_new] = embed(rows[is_new])
    return Index(keys, embeddings, fingerprint), num_new


def write_index(path: Path, index: Index) -> None:
    """Write an index, whole or not at all.

    Raises:
      OSError: the disk is full, or the place must not be written to.
    """
    with whole(path) as file:
        np.savez(
            file,
            allow_pickle=False,
            version=np.array([_VERSION], np.int32),
            fingerprint=np.array([index.fingerprint.encode()]),
            keys=index.keys,
            embeddings=index.embeddings,
        )


def read_index(path: Path) -> Index | None:
    """Return the index in a file, None where there is no file.

    Raises:
      UsageError: the file is damaged, or something else.
    """
    if not path.exists():
        return None
    try:
        size = archives.size_of(path)
        with zipfile.ZipFile(path) as archive:
            if set(archives.array_names(archive)) != {
                "version",
                "fingerprint",
                "keys",
                "embeddings",
            }:
                raise archives.BadArchive("it is no index of jaxmetric search")
            version = _read(archive, "version", size, "i", 1)
            if version.tolist() != [_VERSION]:
                raise archives.BadArchive("it is an index of another version")
            fingerprint = _read(archive, "fingerprint", size, "S", 1)
            keys = _read(archive, "keys", size, "u", 2)
            embeddings = _read(archive, "embeddings", size, "f", 2)
    except Exception as error:
        # Damaged archives raise at least nine classes, from zlib.error to SyntaxError.
        if isinstance(error, archives.BadArchive):
            reason = str(error)
        else:
            reason = f"it cannot be read, {type(error).__name__}: {error}"
        raise UsageError(
            f"--index {path}: {reason}. Remove it, or give another name."
        ) from error
    is_fit = keys.shape == (len(embeddings), _KEY_BYTES) and keys.dtype == np.uint8
    is_fit &= embeddings.dtype == np.float32 and len(fingerprint) == 1
    if not is_fit or not np.isfinite(embeddings).all():
        raise UsageError(
            f"--index {path}: its arrays do not belong together. "
            "Remove it, or give another name."
        )
    return Index(keys, embeddings, fingerprint[0].decode("ascii", "replace"))


def _read(
    archive: zipfile.ZipFile, name: str, file_size: int, kind: str, num_axes: int
) -> np.ndarray:
    """Return an array of an archive, block by block: its checksum is compared."""
    member = archives.read_header(archive, name, file_size)
    if member.dtype.kind != kind or len(member.shape) != num_axes:
        raise archives.BadArchive(f"`{name}` is of another kind")
    array = np.empty(member.shape, member.dtype)
    start = 0
    for block in archives.read_blocks(archive, member, num_axes=1):
        array[start : start + len(block)] = block
        start += len(block)
    return array


def _find(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return [n] places of keys among the known ones, -1 where they are none."""
    if not len(known):
        return np.full(len(keys), -1)
    mine, theirs = (np.ascontiguousarray(k).view(np.uint64) for k in (keys, known))
    order = np.argsort(theirs[:, 0], kind="stable")
    slot = np.searchsorted(theirs[order, 0], mine[:, 0])
    place = order[np.minimum(slot, len(order) - 1)]
    # Two rows may share the first half of a key: then the later one counts as new.
    return np.where((theirs[place] == mine).all(axis=1), place, -1)
