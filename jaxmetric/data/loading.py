"""One door for every kind of data set."""

import os
from pathlib import Path
from typing import Literal

from jaxmetric.data.datasets import Dataset
from jaxmetric.data.digits import load_digits
from jaxmetric.data.errors import data_error
from jaxmetric.data.folders import load_folder
from jaxmetric.data.npz import load_npz


def load(
    data: str | os.PathLike,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    require_labels: bool = True,
    on_error: Literal["stop", "skip"] = "stop",
) -> Dataset:
    """Return the data set of a name, a folder, or an ``.npz`` file.

    Args:
      data: "digits"; a folder of class folders of images (`load_folder`); or an
        ``.npz`` file with `images` or `features`, and `labels` (`load_npz`).
      image_size: side, or (height, width), of the images in pixels. None keeps
        images up to 40 pixels and makes larger ones 28 x 28 (`default_image_size`).
      channels: 1 (grey), 3 (colour), or None for what the images have.
      require_labels: whether rows without classes are a mistake.
      on_error: "stop" at the first image that cannot be read, or "skip" it and list
        it in `Dataset.skipped`. An ``.npz`` file is read whole or not at all.

    Returns:
      A `Dataset`, its rows in the order of the file, or of sorted folder and file
      names.

    Raises:
      DataError: there is no such data, or it cannot be used; one line.
      ValueError: an argument out of range.

    Memory: the images at their final size, and one image or some tens of megabytes at
      the original size.

    Example:
      >>> data = load("digits")
      >>> data.name, len(data), data.num_classes
      ('digits', 1797, 10)
    """
    if on_error not in ("stop", "skip"):
        raise ValueError(
            f"load: `on_error` must be one of 'stop', 'skip', got {on_error!r}. "
            "Use 'stop'."
        )
    name = os.fspath(data)
    if name == "digits":
        return load_digits(image_size=image_size, channels=channels)
    try:
        path = Path(name)
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise _unknown(name, error.strerror or "cannot be looked at") from error
    if name and is_folder:
        return load_folder(
            path,
            image_size=image_size,
            channels=channels,
            require_labels=require_labels,
            on_error=on_error,
        )
    if not name or not exists:
        raise _unknown(name or "''", "no such file or folder")
    if path.suffix.lower() != ".npz":
        raise _unknown(name, "is neither a folder nor an .npz file")
    return load_npz(
        path, image_size=image_size, channels=channels, require_labels=require_labels
    )


def _unknown(name: str, reason: str) -> Exception:
    """Return the error for a data set that cannot be found."""
    remedy = "Give 'digits', a folder of class folders of images, or an .npz file."
    if name.lower().endswith(".tsv"):
        remedy = "Texts of a .tsv file are read by jaxmetric.data.load_texts."
    return data_error(name, reason, remedy)
