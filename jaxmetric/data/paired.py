"""Pairs: two arrays of which the rows belong together."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxmetric.data import archives, npz
from jaxmetric.data.archives import Member
from jaxmetric.data.errors import data_error, printable
from jaxmetric.data.images import check_channels, check_image_size

Side = Literal["query", "key"]
ImageSize = int | tuple[int, int] | None


@dataclass(frozen=True)
class PairedDataset:
    """Queries and keys, row i of the ones belonging to row i of the others.

    Each side is one of: [n, h, w, c] images (uint8, or float32 as they are); [n, d]
    float32 features; [n] int32 ids; [n, length] int32 tokens.

    Attributes:
      query, key: [n, ...], the two sides.
      name: a short name of the set.
      labels: [n] int32 class numbers that both rows of a pair have, or None.
      class_names: one name a class.
      scores: [n] float32, how much the rows belong together, or None where all do.
      notes: one line each on what is odd but no mistake, to be shown to the user.

    Raises:
      ValueError: the arrays do not belong together.

    Memory: the arrays are held as they are, never copied.

    Example:
      >>> import numpy as np
      >>> image, text = np.zeros((4, 8), np.float32), np.zeros((4, 3), np.float32)
      >>> data = PairedDataset(image, text, "articles")
      >>> len(data), data.take([0, 2]).key.shape
      (4, (2, 3))
    """

    query: np.ndarray
    key: np.ndarray
    name: str
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    scores: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("query", "key", "labels", "scores"):
            array = getattr(self, name)
            if array is not None and array.shape[:1] != self.query.shape[:1]:
                raise ValueError(
                    f"PairedDataset: `{name}` must have the {len(self.query)} rows of "
                    f"`query`, got shape {array.shape}. Give one row for each pair."
                )

    def __len__(self) -> int:
        """Return the number of pairs."""
        return self.query.shape[0]

    @property
    def num_classes(self) -> int:
        """Number of names in `class_names`."""
        return len(self.class_names)

    def side(self, name: Side) -> np.ndarray:
        """Return the rows of one side."""
        return self.query if name == "query" else self.key

    def take(self, rows: np.ndarray | Sequence[int]) -> "PairedDataset":
        """Return the given pairs ([k] row ids or [n] bool) as a set of their own.

        Names and numbers of the classes stay. Memory: a copy of the rows.
        """
        rows = np.asarray(rows)
        if rows.dtype != bool:
            rows = rows.astype(np.int64)  # an empty list is float
        chosen = {
            name: None if array is None else array[rows]
            for name in ("query", "key", "labels", "scores")
            for array in [getattr(self, name)]
        }
        return replace(self, **chosen)


def load_pairs(
    path: str | os.PathLike,
    *,
    query: str,
    key: str,
    labels: str | None = None,
    image_size: ImageSize | Mapping[Side, ImageSize] = None,
    channels: int | None | Mapping[Side, int | None] = None,
) -> PairedDataset:
    """Return the pairs of two arrays of an ``.npz`` file.

    What an array is, its shape tells: [n, h, w] and [n, h, w, c] are images, [n, d] are
    features, and integers [n] are ids, as of users or items.

    Args:
      path: the file.
      query, key: names of the arrays, row i of the ones belonging to row i of the
        others.
      labels: name of an array [n] of integers, the category of each pair; None takes
        `labels` where the file has one. An array of texts under this name with
        "_names" after it names the categories, in the order of their integers.
      image_size: side, or (height, width), of images in pixels; None as `load_npz`.
        A mapping with "query" and "key" has one for each.
      channels: 1, 3, or None for what the images have; a mapping has one for each.

    Returns:
      A `PairedDataset` with the rows in the order of the file.

    Raises:
      DataError: the file cannot be read, lacks an array, or holds unfit ones.
      ValueError: an argument out of range.

    Memory: the result and some tens of megabytes; see `load_npz`.

    Example:
      >>> import pathlib, tempfile, numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "articles.npz")
      ...     np.savez(path, image=np.zeros((4, 8)), text=np.zeros((4, 3)))
      ...     pairs = load_pairs(path, query="image", key="text")
      >>> pairs.query.shape, pairs.key.shape, pairs.labels
      ((4, 8), (4, 3), None)
    """
    found, class_ids, given_names = load_sides(
        path,
        {"query": query, "key": key},
        labels=labels,
        image_size=image_size,
        channels=channels,
    )
    if len(found["query"]) != len(found["key"]):
        raise data_error(
            path,
            f"`{query}` has {len(found['query'])} rows but `{key}` has "
            f"{len(found['key'])}",
            "Rows belong together by their place: give as many of each.",
        )
    numbers, names = None, ()
    if class_ids is not None:
        numbers, names = npz.numbered(class_ids)
        if len(set(given_names)) == len(names):
            names = given_names
    return PairedDataset(found["query"], found["key"], Path(path).stem, numbers, names)


def load_sides(
    path: str | os.PathLike,
    names: Mapping[Side, str],
    *,
    labels: str | None = None,
    require_labels: bool = True,
    image_size: ImageSize | Mapping[Side, ImageSize] = None,
    channels: int | None | Mapping[Side, int | None] = None,
) -> tuple[dict[Side, np.ndarray], np.ndarray | None, tuple[str, ...]]:
    """Return the arrays of one side or both, and labels and their names as in the file.

    Args:
      path, labels, image_size, channels: see `load_pairs`.
      names: of the arrays, by side.
      require_labels: whether an array that `labels` names must be there.

    Raises:
      DataError, ValueError: see `load_pairs`.

    Memory: see `load_pairs`.
    """
    sizes = {s: check_image_size("load_pairs", _of(image_size, s)) for s in names}
    for side in names:
        check_channels("load_pairs", _of(channels, side))
    path = Path(path)
    found: dict[Side, np.ndarray] = {}
    with npz.opened(path) as (archive, file_size):
        there = archives.array_names(archive)
        if not require_labels and labels not in there:
            labels = None
        for name in (*names.values(), *([labels] if labels is not None else [])):
            if name not in there:
                listed = ", ".join(printable(n) for n in there[:20]) or "nothing"
                raise data_error(
                    path,
                    f"holds no `{printable(name)}` (it holds {listed})",
                    "Name two of its arrays.",
                )
        for side, name in names.items():
            member = archives.read_header(archive, name, file_size)
            wanted = sizes[side], _of(channels, side)
            found[side] = _read(path, archive, member, name, *wanted)
        class_ids = None
        names_of_classes: tuple[str, ...] = ()
        if labels is not None or "labels" in there:
            name = labels or "labels"
            member = archives.read_header(archive, name, file_size)
            num_rows = len(next(iter(found.values())))
            class_ids = _read_labels(path, archive, member, name, num_rows)
            if f"{name}_names" in there:
                member = archives.read_header(archive, f"{name}_names", file_size)
                names_of_classes = _read_names(archive, member)
    return found, class_ids, names_of_classes


def _of(value: Any, side: Side) -> Any:
    """Return the value of a side."""
    return value.get(side) if isinstance(value, Mapping) else value


def _read(path, archive, member: Member, name: str, size, channels) -> np.ndarray:
    """Return the rows of one array, which its shape tells the kind of."""
    shape = member.shape
    if 0 in shape:
        raise data_error(path, f"`{name}` of shape {shape} is empty", "Add rows.")
    if len(shape) == 1 and member.dtype.kind in "iu":
        ids = npz.read_integers(path, archive, member, name)
        if ids.min() < 0:
            raise data_error(
                path,
                f"`{name}` holds ids, which must not be negative, got {ids.min()}",
                "Count from 0, as np.unique(ids, return_inverse=True)[1] does.",
            )
        return ids
    if len(shape) == 2:
        return npz.read_features(path, archive, member, name, 1)
    if len(shape) in (3, 4):
        return npz.read_images(path, archive, member, name, 1, size, channels)
    raise data_error(
        path,
        f"`{name}` of shape {shape} and dtype {member.dtype} is neither images "
        "[n, h, w(, c)] nor features [n, d] nor integer ids [n]",
        f"Use {name}[:, None]." if len(shape) == 1 else "Reshape the array.",
    )


def _read_names(archive, member: Member) -> tuple[str, ...]:
    """Return an array [classes] of texts, nothing where it is of another kind."""
    if member.dtype.kind != "U" or len(member.shape) != 1:
        return ()
    blocks = archives.read_blocks(archive, member, num_axes=1)
    return tuple(str(name) for block in blocks for name in block)


def _read_labels(path, archive, member: Member, name: str, num_rows: int) -> np.ndarray:
    """Return [n] labels."""
    if member.dtype.kind not in "biu":
        raise data_error(
            path,
            f"`{name}` must be integer or bool, got {member.dtype}",
            f"Use np.unique({name}, return_inverse=True)[1].",
        )
    if member.shape != (num_rows,):
        raise data_error(
            path,
            f"`{name}` of shape {member.shape} is not one label for each of the "
            f"{num_rows} pairs",
            "Give one integer for each row, or name another array.",
        )
    return npz.read_integers(path, archive, member, name)
