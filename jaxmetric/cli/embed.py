"""`jaxmetric embed`: the embeddings of a data set as an .npz file."""

import os
from pathlib import Path

import numpy as np

from jaxmetric.cli import outputs
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.evaluate import load_encoder
from jaxmetric.cli.paired import runs
from jaxmetric.cli.run_options import EmbedOptions
from jaxmetric.cli.split import load_like


def embed(options: EmbedOptions) -> None:
    """Run `jaxmetric embed`.

    Raises:
      UsageError, CheckpointError, DataError: mistakes; nothing has been written.
    """
    path = _check_output(options)
    if runs.is_paired(options.run):
        arrays = runs.embed(options)
        _write(path, arrays)
        shapes = [f"{k} {' x '.join(map(str, a.shape))}" for k, a in arrays.items()]
        print(f"{path}: {', '.join(shapes)}")
        return
    if options.side is not None:
        raise UsageError(
            f"--side {options.side} takes a run of pairs, and {options.run} has one "
            "encoder. Leave it out."
        )
    encoder = load_encoder(options.run)
    data = load_like(
        options.data,
        encoder.shape,
        on_error=options.on_error,
        require_labels=False,
        vocabulary=encoder.vocabulary,
    )
    arrays = {"embeddings": encoder.embed(data.inputs)}
    labels = data.source_labels
    if labels is not None:
        arrays["labels"] = labels
    _write(path, arrays)
    n, dim = arrays["embeddings"].shape
    for skipped in data.skipped:
        print(f"Note: skipped {skipped}")
    names = " and ".join(arrays)
    print(f"{path}: {names} of {n:,} rows, {dim} numbers each")


def _check_output(options: EmbedOptions) -> Path:
    """Return where to write, which must be a file that may be made."""
    path = Path(options.output)
    if path.suffix != ".npz":
        raise UsageError(f"--output {path}: must end in .npz. Use {path}.npz.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else "its folder does not exist"
        raise UsageError(f"--output {path}: {what}. Give the name of a file.")
    if path.exists() and os.path.exists(options.data):
        if os.path.samefile(path, options.data):
            raise UsageError(f"--output {path}: is the data itself. Give another name.")
    return path


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as an .npz file, whole or not at all."""
    try:
        with outputs.whole(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise UsageError(
            f"--output {path}: cannot be written ({error.strerror}). "
            "Free space, or give another place."
        ) from error
