"""One writer for a folder at a time."""

import contextlib
import os
from pathlib import Path
from types import TracebackType

from jaxmetric.training.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Only POSIX has it; elsewhere nobody is kept out.
    fcntl = None

_NAME = ".lock"


class RunLock:
    """Hold a folder for writing; a second holder is refused at once.

    The lock is the operating system's, on the file `.lock` in the folder. It ends with
    the process, however that dies, so the lock of a dead process never blocks; the
    process id in the file only serves the error text. Where the system has no such
    locks (Windows), none is taken.

    Args:
      folder: an existing folder.

    Raises (on entering):
      CheckpointError: another process, or another RunLock of this one, holds the
        folder; or the file cannot be written.

    Memory: none.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder, RunLock(folder):
      ...     print("mine")
      mine
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.path = Path(folder) / _NAME
        self._descriptor: int | None = None

    def __enter__(self) -> "RunLock":
        if fcntl is None:
            return self
        descriptor = None
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode() if descriptor else ""
            os.close(descriptor) if descriptor else None
            raise CheckpointError(
                f"{self.path.parent}: is being written by process {holder or '?'}. "
                "Wait until it ends, or choose another folder."
            ) from error
        except OSError as error:
            os.close(descriptor) if descriptor else None
            raise CheckpointError(
                f"{self.path}: cannot be written ({error.strerror}). "
                "Make the folder writable, or choose another."
            ) from error
        # The file stays when the lock is released: whoever removed it could remove
        # the one that a third process has just locked.
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
