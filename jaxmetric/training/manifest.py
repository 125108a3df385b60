"""What a checkpoint folder must hold, byte for byte, and whether it still does."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from jaxmetric.training.errors import CheckpointError
from jaxmetric.training.leaves import Leaf

ARRAYS = "arrays"
_MANIFEST = "manifest.json"
# In the format of `sha256sum`, so that a damaged manifest is told from a good one.
_CHECKSUM = "manifest.sha256"
_FORMAT = 1
# What reading JSON of an unexpected form raises.
_MALFORMED = (
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


class Manifest(NamedTuple):
    """The contents of `manifest.json`.

    Attributes:
      step: the step of the checkpoint.
      metadata: what the caller wanted to keep, JSON values.
      leaves: the leaves of the tree, in the order of their numbered arrays.
    """

    step: int
    metadata: dict[str, Any]
    leaves: list[Leaf]


def write(folder: Path, manifest: Manifest) -> None:
    """Describe the files under `folder/arrays`, and bring everything to the disk."""
    body = {
        "format": _FORMAT,
        "step": manifest.step,
        "metadata": manifest.metadata,
        "leaves": [leaf._asdict() for leaf in manifest.leaves],
        "files": {
            name: {
                "size": (folder / name).stat().st_size,
                "sha256": _hash(folder / name),
            }
            for name in _array_files(folder)
        },
    }
    text = json.dumps(body, indent=1, allow_nan=False)
    (folder / _MANIFEST).write_bytes(text.encode())
    (folder / _CHECKSUM).write_bytes(_checksum_line(text.encode()))
    for directory, _, names in os.walk(folder):
        for name in names:
            sync(Path(directory) / name)
        sync(Path(directory))


def verify(folder: Path) -> Manifest:
    """Return the manifest of a checkpoint folder, having compared every file with it.

    Raises:
      CheckpointError: a file is missing, cut, changed or unexpected.
    """
    data = _read(folder / _MANIFEST)
    if _read(folder / _CHECKSUM) != _checksum_line(data):
        raise CheckpointError(
            f"{folder / _MANIFEST}: does not match its checksum in {_CHECKSUM}"
        )
    try:
        body = json.loads(data)
        if body["format"] != _FORMAT:
            raise CheckpointError(
                f"{folder / _MANIFEST}: has format {body['format']!r}, expected "
                f"{_FORMAT}"
            )
        leaves = [
            Leaf(str(leaf["path"]), tuple(map(int, leaf["shape"])), str(leaf["dtype"]))
            for leaf in body["leaves"]
        ]
        manifest = Manifest(int(body["step"]), dict(body["metadata"]), leaves)
        files = {
            str(name): (int(file["size"]), str(file["sha256"]))
            for name, file in body["files"].items()
        }
    except _MALFORMED as error:
        raise CheckpointError(
            f"{folder / _MANIFEST}: is not a manifest ({type(error).__name__}: {error})"
        ) from error
    found = set(_array_files(folder))
    for name in sorted(found ^ files.keys()):
        fault = "is not in the manifest" if name in found else "is missing"
        raise CheckpointError(f"{folder / name}: {fault}")
    for name, (size, digest) in files.items():
        actual = (folder / name).stat().st_size
        if actual != size:
            raise CheckpointError(
                f"{folder / name}: has {actual} bytes, expected {size}"
            )
        if _hash(folder / name) != digest:
            raise CheckpointError(f"{folder / name}: does not match its sha256")
    return manifest


def sync(path: Path) -> None:
    """Bring a file, or the entries of a folder, to the disk."""
    if os.name == "nt" and path.is_dir():  # Folders cannot be opened there.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _array_files(folder: Path) -> list[str]:
    """Return the files of the arrays, as sorted paths in the checkpoint folder."""
    found = (folder / ARRAYS).rglob("*")
    return sorted(p.relative_to(folder).as_posix() for p in found if not p.is_dir())


def _read(path: Path) -> bytes:
    """Return a file's bytes; a CheckpointError names it where there are none."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error


def _hash(path: Path) -> str:
    """Return the sha256 of a file, as hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error


def _checksum_line(manifest: bytes) -> bytes:
    """Return the contents of the checksum file for those of the manifest."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {_MANIFEST}\n".encode()
