"""Images in a folder of class folders."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmetric.data.datasets import Dataset, notes_on_classes
from jaxmetric.data.decoding import decode_image, image_extent
from jaxmetric.data.errors import DataError, data_error, printable
from jaxmetric.data.images import (
    check_channels,
    check_image_size,
    convert_channels,
    default_image_size,
    resize_images,
)

# What file managers leave behind, beside names that start with a dot.
_LITTER = {"Thumbs.db", "desktop.ini", "__MACOSX"}


def load_folder(
    path: str | os.PathLike,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    require_labels: bool = True,
    on_error: Literal["stop", "skip"] = "stop",
) -> Dataset:
    """Return the images of a folder whose folders are the classes.

    A folder at any depth that holds files is a class, named by its path below `path`
    (``cat``, or ``Greek/alpha``). Classes, and files inside a class, are in sorted
    order. Hidden files and empty folders are passed over; every other file in a class
    folder must be an image (PNG, JPEG, GIF, BMP, TIFF, WebP or PPM; modes as in
    `decode_image`). Files beside the class folders are not looked at. Links are
    followed once: a folder that is reached twice is refused.

    Args:
      path: the folder.
      image_size: side, or (height, width), in pixels. None keeps images of one size up
        to 40 pixels, and brings all others to one size (`default_image_size`).
      channels: 1, 3, or None: 1 where no image has colour, else 3.
      require_labels: with False, a folder of bare images is a set without classes.
      on_error: "stop" at an image that cannot be read, or "skip" and list it.

    Returns:
      A `Dataset` of uint8 images.

    Raises:
      DataError: no classes, a link loop, or an image that cannot be read.
      ValueError: an argument out of range.

    Memory: the images at their final size and one at its original size.

    Example:
      >>> import pathlib, tempfile
      >>> from PIL import Image
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     for name in ("cat", "dog"):
      ...         pathlib.Path(folder, name).mkdir()
      ...         Image.new("L", (3, 2)).save(pathlib.Path(folder, name, "1.png"))
      ...     dataset = load_folder(folder)
      >>> print(dataset.inputs.shape, dataset.class_names)
      (2, 2, 3, 1) ('cat', 'dog')
    """
    size = check_image_size("load_folder", image_size)
    check_channels("load_folder", channels)
    root = Path(path)
    classes, num_beside = _find_classes(root, require_labels)
    # The file system may hand out bytes that are no text; such names stay tellable.
    class_names = tuple(
        name.encode("utf-8", "backslashreplace").decode("utf-8") for name in classes
    )
    files = [file for found in classes.values() for file in found]
    labels = [number for number, found in enumerate(classes.values()) for _ in found]
    skipped: list[str] = []

    def read(function: Callable, *args):
        """Return what a reader makes of a file; None for one to be skipped."""
        try:
            return function(*args)
        except DataError as error:
            if on_error == "stop":
                raise
            skipped.append(str(error))
            return None

    # Headers first: nothing is decoded before every file is known to be in bounds, and
    # the size of all decides on the size of each.
    extents = [read(image_extent, file) for file in files]
    height, width = (max((e[axis] for e in extents if e), default=0) for axis in (0, 1))
    if size is None and default_image_size(height, width) != (height, width):
        size = default_image_size(height, width)
    images, rows = [], []
    for row, (file, extent) in enumerate(zip(files, extents, strict=True)):
        image = None if extent is None else read(decode_image, file, size)
        if image is not None:
            images.append(image)
            rows.append(row)
    if not rows:
        raise data_error(
            root,
            f"holds no image that can be read ({_first(skipped)})",
            "Give PNG or JPEG files.",
        )
    pixels = _same_shape(images, channels)
    notes: tuple[str, ...] = ()
    if class_names == ("",):
        numbers, class_names = None, ()
    else:
        numbers, class_names = _without_gaps(np.array(labels)[rows], class_names)
        notes = notes_on_classes(numbers, class_names)
    if num_beside:
        plural = "file" if num_beside == 1 else "files"
        notes += (f"{num_beside} {plural} beside the class folders left aside",)
    name = printable(root.resolve().name or "data")
    return Dataset(pixels, numbers, class_names, name, tuple(skipped), notes)


def _find_classes(root: Path, require_labels: bool) -> tuple[dict[str, list[str]], int]:
    """Return the sorted files of each class, and the number of files beside them.

    Classes are sorted by name. A folder of bare images gives the single class "" where
    labels are not required.
    """
    found: dict[str, list[str]] = {}
    seen: dict[tuple[int, int], str] = {}
    waiting = [(str(root), "")]
    while waiting:
        folder, name = waiting.pop()
        try:
            status = os.stat(folder)
            with os.scandir(folder) as scan:
                entries = [entry for entry in scan if not _is_hidden(entry.name)]
        except OSError as error:
            reason = f"cannot be listed ({error.strerror})"
            raise data_error(folder, reason, "Check the permissions.") from error
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            raise data_error(
                folder,
                f"is the same folder as {printable(seen[identity])}, reached by a link",
                "Remove the link.",
            )
        seen[identity] = folder
        files = []
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _is_folder(entry):
                waiting.append((entry.path, f"{name}/{entry.name}".lstrip("/")))
            else:
                files.append(entry.path)
        if files:
            found[name] = files
    if len(found) > 1 or (found and require_labels):
        bare = found.pop("", [])
    else:
        bare = []
    if not found:
        reason = "holds no class folders with images"
        if bare:
            reason += ", only files"
        remedy = "Put the images of each class into a folder of its own."
        raise data_error(root, reason, remedy)
    return dict(sorted(found.items())), len(bare)


def _is_hidden(name: str) -> bool:
    """Return whether a file or folder is not meant to be seen."""
    return name.startswith(".") or name in _LITTER


def _is_folder(entry: os.DirEntry) -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself: told when it is opened as a file


def _same_shape(images: list[np.ndarray], channels: int | None) -> np.ndarray:
    """Return [n, h, w, c] from images of any size with one or three channels."""
    height, width, present = np.max([image.shape for image in images], axis=0).tolist()
    size = (height, width)
    pixels = np.empty((len(images), *size, channels or present), np.uint8)
    for row, image in enumerate(images):
        pixels[row] = convert_channels(
            resize_images(image[None], size), channels or present
        )[0]
    return pixels


def _without_gaps(
    labels: np.ndarray, class_names: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels and names without the classes of which no image is left."""
    present, numbers = np.unique(labels, return_inverse=True)
    return numbers.astype(np.int32), tuple(class_names[c] for c in present)


def _first(skipped: list[str]) -> str:
    """Return the first reason of a list, without its final full stop."""
    return skipped[0].rstrip(".") if skipped else ""
