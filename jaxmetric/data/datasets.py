"""What a data set is, once it has left its file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images or feature rows with their classes, in the order of the file.

    Attributes:
      inputs: [n, h, w, c] images, uint8 (0 to 255) or float32 (as they were), or
        [n, d] feature rows, float32, or [n, length] tokens of texts, int32.
      labels: [n] int32 positions in `class_names`; None for rows without classes.
      class_names: one name a class, sorted: folder names, or the integers of the file.
      name: a short name of the set, that of the file or folder without its suffix.
      skipped: files that were left out because they could not be read.
      notes: one line each on what is odd but no mistake, to be shown to the user.
      texts: [n] texts, where the inputs are their tokens; else None.

    Raises:
      ValueError: the arrays do not belong together.

    Memory: the arrays are held as they are, never copied.

    Example:
      >>> import numpy as np
      >>> rows = np.zeros((4, 2), np.float32)
      >>> labels = np.array([0, 0, 1, 1], np.int32)
      >>> data = Dataset(rows, labels, ("cat", "dog"), "pets")
      >>> data.num_classes, data.is_image, len(data.select_classes([1]))
      (2, False, 2)
    """

    inputs: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    name: str
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    texts: tuple[str, ...] | None = None

    def __post_init__(self):
        if self.inputs.ndim not in (2, 4):
            raise ValueError(
                "Dataset: `inputs` must be [n, h, w, c] images or [n, d] rows, got "
                f"shape {self.inputs.shape}. Add the missing axis."
            )
        if self.labels is not None and self.labels.shape != self.inputs.shape[:1]:
            raise ValueError(
                f"Dataset: `labels` must have shape {self.inputs.shape[:1]} to match "
                f"`inputs` of shape {self.inputs.shape}, got {self.labels.shape}. "
                "Give one label for each row."
            )

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.inputs.shape[0]

    @property
    def is_image(self) -> bool:
        """Whether the rows are images rather than features."""
        return self.inputs.ndim == 4

    @property
    def num_classes(self) -> int:
        """Number of names in `class_names`; a selection of classes keeps them all."""
        return len(self.class_names)

    @property
    def source_labels(self) -> np.ndarray | None:
        """[n] int64 labels as the file had them, where its class names are integers.

        Where a name is no integer, the labels themselves; None without labels.
        """
        if self.labels is None or not self.class_names:
            return None
        try:
            values = np.array([int(name) for name in self.class_names], np.int64)
        except (ValueError, OverflowError):
            return self.labels.astype(np.int64)
        # "007" and "7" are two classes: only names that the integers spell count.
        if tuple(str(value) for value in values) != self.class_names:
            return self.labels.astype(np.int64)
        return values[self.labels]

    def take(self, rows: np.ndarray | Sequence[int]) -> "Dataset":
        """Return the given rows ([k] row ids or [n] bool) as a data set of their own.

        Names and numbers of the classes stay. Memory: a copy of the rows.
        """
        rows = np.asarray(rows)
        if rows.dtype != bool:
            rows = rows.astype(np.int64)  # an empty list is float
        labels = None if self.labels is None else self.labels[rows]
        texts = self.texts
        if texts is not None:
            chosen = np.flatnonzero(rows) if rows.dtype == bool else rows
            texts = tuple(texts[row] for row in chosen.tolist())
        return replace(self, inputs=self.inputs[rows], labels=labels, texts=texts)

    def select_classes(self, classes: np.ndarray | Sequence[int]) -> "Dataset":
        """Return the rows of the given class numbers; the numbering stays.

        Raises:
          ValueError: the rows have no labels.
        """
        if self.labels is None:
            raise ValueError(
                "Dataset.select_classes: `labels` must be given, got None. "
                "Load the data with labels."
            )
        return self.take(np.isin(self.labels, np.asarray(classes)))


def notes_on_classes(labels: np.ndarray, class_names: Sequence[str]) -> tuple[str, ...]:
    """Return a note on the classes of one row, if there are any."""
    counts = np.bincount(labels, minlength=len(class_names))
    single = [class_names[c] for c in np.flatnonzero(counts == 1).tolist()]
    if not single:
        return ()
    shown = ", ".join(single[:3]) + (", ..." if len(single) > 3 else "")
    plural = "class has" if len(single) == 1 else "classes have"
    return (
        f"{len(single)} {plural} a single example and so no positive pair: {shown}",
    )
