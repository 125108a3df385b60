"""Files that a command writes: checked before the work, and whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from jaxmetric.cli.errors import UsageError


def check_file(option: str, path: Path, suffix: str) -> None:
    """Require that a file of that name can be made.

    Raises:
      UsageError: its suffix is another, or there is no place for it.
    """
    if path.suffix != suffix:
        raise UsageError(f"{option} {path}: must end in {suffix}. Use {path}{suffix}.")
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir():
        what = "is a folder" if path.is_dir() else "its folder does not exist"
        raise UsageError(f"{option} {path}: {what}. Give the name of a file.")
    if not os.access(folder, os.W_OK):
        raise UsageError(
            f"{option} {path}: its folder must not be written to. Give another place."
        )


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to, which takes the place of `path` once it is complete."""
    folder = path.absolute().parent
    handle, name = tempfile.mkstemp(prefix=".unfinished-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    finally:
        if os.path.exists(name):
            os.unlink(name)
