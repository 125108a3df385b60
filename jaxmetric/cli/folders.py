"""The folder of a run: made whole, found again, named for the user."""

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxmetric.cli.configs import write_config
from jaxmetric.cli.errors import UsageError

CONFIG, METRICS, SUMMARY = "config.yaml", "metrics.jsonl", "summary.json"
CURVES, GALLERY, CHECKPOINTS = "curves.png", "gallery.png", "checkpoints"


def check_out(out: str | None, *, can_resume: bool = True) -> None:
    """Require that the folder of a new run can be made.

    Args:
      out: its path, None for a free one.
      can_resume: whether one that is there already might be gone on with.

    Raises:
      UsageError: it exists, or its parents cannot hold it.
    """
    if out is None:
        return
    path = Path(out)
    if not out.strip() or path.exists() or path.is_symlink():
        hint = f", or go on with it: jaxmetric train --resume {shlex.quote(out)}"
        raise UsageError(
            f"--out {out or repr(out)}: exists already. Choose another name"
            f"{hint if can_resume else '.'}"
        )


def make_folder(
    out: str | None,
    name: str,
    config: Mapping[str, Any],
    files: Mapping[str, str | bytes] | None = None,
) -> Path:
    """Make the folder of a run with its configuration in it, at one stroke.

    Args:
      out: its path; None for runs/{name}-{n} with the next free n.
      name: of the data.
      config: what config.yaml holds.
      files: what is kept with it, contents by file name.

    Raises:
      UsageError: it exists, or cannot be made.
    """

    def fill(path: Path) -> None:
        write_config(path / CONFIG, config)
        for file, content in (files or {}).items():
            text = content.encode() if isinstance(content, str) else content
            (path / file).write_bytes(text)

    return make_whole(out, name, fill)


def make_whole(out: str | None, name: str, fill: Callable[[Path], None]) -> Path:
    """Make a folder that is not there before all is in it.

    Args:
      out: its path; None for runs/{name}-{n} with the next free n.
      name: of the data.
      fill: writes what belongs into the folder that it is given.

    Raises:
      UsageError: it exists, or cannot be made.
    """
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
    parent = Path("runs") if out is None else Path(out).absolute().parent
    temporary = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=parent))
        temporary.chmod(0o777 & ~_umask())
        fill(temporary)
        n = 1
        while True:
            path = Path(out) if out is not None else parent / f"{safe}-{n}"
            try:
                # A name that somebody took meanwhile is not empty, which fails.
                if not path.exists():
                    os.rename(temporary, path)
                    return path
            except OSError:
                if not path.exists():
                    raise
            if out is not None:
                raise UsageError(f"--out {out}: exists already. Choose another name.")
            n += 1
    except OSError as error:
        raise UsageError(
            f"{out or parent}: the folder of the run cannot be made "
            f"({error.strerror}). Choose another place with --out."
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def check_run(path: str) -> Path:
    """Return the folder of a run, or say what is there instead.

    Raises:
      UsageError: there is no such folder, or it is not the folder of a run.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"{path}: {what}. Give the folder of a run, such as {_any()}.")
    if not (folder / CONFIG).is_file():
        raise UsageError(
            f"{path}: is no run, it has no {CONFIG}. Give the folder of a run, such as "
            f"{_any()}."
        )
    return folder


def _any() -> str:
    """Return the newest run there is, for an example."""
    runs = [path.parent for path in Path("runs").glob(f"*/{CONFIG}")]
    newest = max(runs, key=lambda path: path.stat().st_mtime, default=None)
    return str(newest) if newest else "runs/digits-1"


def _umask() -> int:
    """Return the mask of new files; the system tells it only while setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
