"""Images or feature rows with labels from one ``.npz`` file."""

import contextlib
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxmetric.data import archives
from jaxmetric.data.archives import BadArchive, Member
from jaxmetric.data.datasets import Dataset, notes_on_classes
from jaxmetric.data.errors import DataError, data_error, printable
from jaxmetric.data.images import (
    MAX_PIXELS,
    check_channels,
    check_image_size,
    convert_channels,
    default_image_size,
    resize_images,
)

_MAX_CHANNELS = 4


def load_npz(
    path: str | os.PathLike,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    require_labels: bool = True,
) -> Dataset:
    """Return the data set of an ``.npz`` file with `images` or `features`.

    * `images`: [n, h, w], [n, h, w, c] with c up to 4, or either with the leading axes
      [classes, examples] in place of [n], flattened in this order. bool is black and
      white, integers are 0 to 255; both become uint8. Floating images become float32
      and are taken as they are. Whether there are one or two leading axes is read
      from `labels`, and without labels from the last axis.
    * `features`: [n, d], or [classes, examples, d], any numbers; float32 after it.
    * `labels`: [n] or [classes, examples], bool or integers that fit int32, negative
      ones included. They are numbered from 0 in sorted order; `class_names` keeps them.

    Args:
      path: the file.
      image_size: side, or (height, width), in pixels; None as `default_image_size`.
      channels: 1, 3, or None for what the images have.
      require_labels: whether a file without `labels` is a mistake.

    Returns:
      A `Dataset` with the rows in the order of the file.

    Raises:
      DataError: the file cannot be read, lacks an array, or holds unfit ones.
      ValueError: an argument out of range.

    Memory: the result and some tens of megabytes: arrays are read, and images resized,
      by blocks. Arrays in column order are held whole once.

    Example:
      >>> import pathlib, tempfile, numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "rows.npz")
      ...     np.savez(path, features=np.zeros((4, 2)), labels=[5, 5, 9, 9])
      ...     dataset = load_npz(path)
      >>> print(dataset.inputs.shape, dataset.labels.tolist())
      (4, 2) [0, 0, 1, 1]
    """
    size = check_image_size("load_npz", image_size)
    check_channels("load_npz", channels)
    path = Path(path)
    with opened(path) as (archive, file_size):
        return _load(path, archive, file_size, size, channels, require_labels)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """Open an archive, and give it with the size of its file.

    Raises:
      DataError: whatever goes wrong while it is read.
    """
    try:
        file_size = archives.size_of(path)
        with zipfile.ZipFile(path) as archive:
            yield archive, file_size
    except DataError:
        raise
    except BadArchive as error:
        remedy = "Write the arrays again with np.savez_compressed."
        raise data_error(path, str(error), remedy) from error
    except Exception as error:
        # Damaged archives raise at least nine classes, from zlib.error to SyntaxError.
        raise data_error(
            path,
            f"cannot be read as an .npz file ({type(error).__name__}: {error})",
            "Write the arrays again with np.savez_compressed.",
        ) from error


def _load(path, archive, file_size, size, channels, require_labels) -> Dataset:
    """Return the data set of an open archive."""
    names = archives.array_names(archive)
    kind = next((name for name in ("images", "features") if name in names), None)
    there = ", ".join(printable(name) for name in names[:20]) or "nothing"
    if kind is None:
        raise data_error(
            path,
            f"holds neither `images` nor `features` (it holds {there})",
            "Save it with np.savez_compressed(path, images=..., labels=...).",
        )
    if require_labels and "labels" not in names:
        raise data_error(
            path,
            f"holds no `labels` (it holds {there})",
            "Add labels=..., one integer for each row.",
        )
    member = archives.read_header(archive, kind, file_size)
    labels = None
    if "labels" in names:
        labels = archives.read_header(archive, "labels", file_size)
    num_axes = _num_leading_axes(path, kind, member, labels)
    class_ids = None
    if labels is not None:
        class_ids = read_integers(path, archive, labels, "labels")
    if kind == "images":
        inputs = read_images(path, archive, member, "images", num_axes, size, channels)
    elif size is not None or channels is not None:
        raise data_error(
            path,
            "holds feature rows, which have no image size and no channels",
            "Leave these options out.",
        )
    else:
        inputs = read_features(path, archive, member, "features", num_axes)
    notes: tuple[str, ...] = ()
    if kind == "images" and "features" in names:
        notes = ("`features` is left aside: the file holds `images` as well",)
    if class_ids is None:
        return Dataset(inputs, None, (), path.stem, notes=notes)
    numbers, class_names = numbered(class_ids)
    notes += notes_on_classes(numbers, class_names)
    return Dataset(inputs, numbers, class_names, path.stem, notes=notes)


def numbered(class_ids: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return [n] int32 numbers of the classes, in sorted order, and their names."""
    values, numbers = np.unique(class_ids, return_inverse=True)
    return numbers.astype(np.int32), tuple(str(value) for value in values.tolist())


def _num_leading_axes(path, kind: str, member: Member, labels: Member | None) -> int:
    """Return 1 for rows [n], 2 for rows [classes, examples]; check both shapes."""
    shape, row_ranks = member.shape, (2, 3) if kind == "images" else (1,)
    axes = "h, w(, c)" if kind == "images" else "d"
    if not 1 + row_ranks[0] <= len(shape) <= 2 + row_ranks[-1]:
        raise data_error(
            path,
            f"`{kind}` has shape {shape}, which is neither [n, {axes}] nor "
            f"[classes, examples, {axes}]",
            "Reshape the array.",
        )
    if math.prod(shape) == 0 or len(shape) == 0:
        raise data_error(path, f"`{kind}` of shape {shape} is empty", "Add rows.")
    if labels is None:
        if kind == "features":
            return len(shape) - 1
        is_flat = len(shape) == 3 or (len(shape) == 4 and shape[3] <= _MAX_CHANNELS)
        return 1 if is_flat else 2
    if labels.dtype.kind not in "biu":
        remedy = "np.unique(labels, return_inverse=True)[1]"
        raise data_error(
            path,
            f"`labels` must be integer or bool, got {labels.dtype}",
            "Encode classes as integers."
            if labels.dtype.kind == "f"
            else f"Use {remedy}.",
        )
    num_axes = len(labels.shape)
    if labels.shape != shape[:num_axes] or num_axes not in (1, 2):
        _reject_labels(path, kind, shape, labels.shape)
    if len(shape) - num_axes not in row_ranks:
        expected = f"labels of shape {shape[:2]}" if num_axes == 1 else f"[..., {axes}]"
        raise data_error(
            path,
            f"`{kind}` of shape {shape} with `labels` of shape {labels.shape} leaves "
            f"rows of shape {shape[num_axes:]}, not [{axes}]",
            f"Give {expected}.",
        )
    return num_axes


def _reject_labels(path, kind: str, shape: tuple, labels: tuple) -> None:
    """Raise the error of labels whose shape is not the leading axes of the rows."""
    reason = f"`labels` of shape {labels} does not fit `{kind}` of shape {shape}"
    if len(labels) == 1:
        reason = f"`{kind}` has {shape[0]} rows but `labels` has {labels[0]}"
    if labels == (shape[0], 1):
        remedy = "Use labels[:, 0]."
    elif len(labels) == 1 and labels[0] == shape[0] * shape[1]:
        remedy = f"Use labels.reshape{shape[:2]}."
    elif len(labels) == 2 and labels[0] == shape[0]:
        remedy = (
            "Use labels.argmax(-1) if they are one-hot, else labels of shape [n] or "
            "[classes, examples]."
        )
    else:
        remedy = "Give one label for each row, in the same order."
    raise data_error(path, reason, remedy)


def read_integers(path, archive, member: Member, name: str) -> np.ndarray:
    """Return [n] integers that fit int32, such as labels."""
    blocks = archives.read_blocks(archive, member, num_axes=len(member.shape))
    labels = np.concatenate(list(blocks))
    limits = np.iinfo(np.int32)
    for extreme in (int(labels.max()), int(labels.min())):
        if not limits.min <= extreme <= limits.max:
            raise data_error(
                path,
                f"`{name}` must fit int32, got {extreme}",
                f"Use np.unique({name}, return_inverse=True)[1].",
            )
    return labels.astype(np.int32)


def read_features(path, archive, member: Member, name: str, num_axes: int):
    """Return [n, d] float32 feature rows."""
    _require_numbers(path, name, member)
    rows = np.empty((math.prod(member.shape[:num_axes]), member.shape[-1]), np.float32)
    start = 0
    for block in archives.read_blocks(archive, member, num_axes=num_axes):
        rows[start : start + len(block)] = _to_float32(path, name, block, start)
        start += len(block)
    return rows


def read_images(path, archive, member, name, num_axes, size, channels) -> np.ndarray:
    """Return [n, h, w, c] uint8 or float32 images at their final size."""
    _require_numbers(path, name, member)
    shape = member.shape[num_axes:] + (1,) * (num_axes + 3 - len(member.shape))
    height, width, present = shape
    if present > _MAX_CHANNELS:
        raise data_error(
            path,
            f"`{name}` of shape {member.shape} has {present} channels, at most "
            f"{_MAX_CHANNELS} are images",
            "Put channels last, [n, h, w, c], or give labels of shape "
            "[classes, examples].",
        )
    if height * width > MAX_PIXELS:
        raise data_error(
            path,
            f"images of {height} x {width} are more than {MAX_PIXELS:,} pixels each",
            "Make them smaller.",
        )
    size = size or default_image_size(height, width)
    if (present, channels) in ((2, 1), (2, 3), (4, 1), (4, 3)):
        raise data_error(
            path,
            f"images of {present} channels cannot be turned into {channels}",
            "Leave the number of channels out.",
        )
    dtype = np.float32 if member.dtype.kind == "f" else np.uint8
    num_images = math.prod(member.shape[:num_axes])
    result = np.empty((num_images, *size, channels or present), dtype)
    start = 0
    for block in archives.read_blocks(archive, member, num_axes=num_axes):
        images = _to_pixels(path, name, block.reshape(-1, *shape), start)
        images = convert_channels(resize_images(images, size), channels)
        result[start : start + len(images)] = images
        start += len(images)
    return result


def _to_pixels(path, name: str, block: np.ndarray, start: int) -> np.ndarray:
    """Return a block of images, the first of them row `start`, as uint8 or float32."""
    if block.dtype.kind == "f":
        return _to_float32(path, name, block, start)
    if block.dtype == bool:
        # Through bytes: a damaged file may hold values other than 0 and 1.
        return (block.view(np.uint8) != 0) * np.uint8(255)
    if block.dtype == np.uint8:
        return block
    low, high = int(block.min()), int(block.max())
    if low < 0 or high > 255:
        raise data_error(
            path,
            f"integer `{name}` must be 0 to 255, got {low if low < 0 else high}",
            "Scale them to uint8, or to floating point numbers in [0, 1].",
        )
    return block.astype(np.uint8)


def _to_float32(path, name: str, block: np.ndarray, start: int) -> np.ndarray:
    """Return a block of rows, the first of them row `start`, as finite float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        block = block.astype(np.float32)
    is_finite = np.isfinite(block.reshape(len(block), -1)).all(axis=1)
    if not is_finite.all():
        row = start + int(np.argmin(is_finite))
        raise data_error(
            path,
            f"`{name}` must be finite in float32, row {row} is not (NaN or infinite)",
            "Leave such rows out, or replace the values with np.nan_to_num.",
        )
    return block


def _require_numbers(path, name: str, member: Member) -> None:
    """Require real numbers."""
    if member.dtype.kind not in "biuf":
        raise data_error(
            path,
            f"`{name}` must be bool, integer or floating point, got {member.dtype}",
            f"Save {name}.astype(np.float32).",
        )
