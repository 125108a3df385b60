"""Texts from a tab-separated file: pairs with a score, or texts with a label."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxmetric.data.datasets import notes_on_classes
from jaxmetric.data.errors import data_error, printable

_MAX_LINE_BYTES = 1_000_000
# Far below where differences of two scores leave float32.
_MOST_SCORE = 1e30
# What the first column of a header of labelled texts is called.
_LABEL_HEADINGS = ("category", "class", "intent", "label", "labels", "target", "topic")
_REMEDY = "Write lines of score<tab>text<tab>text, or of label<tab>text, in UTF-8."


@dataclass(frozen=True, eq=False)
class ScoredTexts:
    """Pairs of texts with a score for how much they mean the same.

    Attributes:
      first, second: [n] texts each, row i of the ones belonging to row i of the others.
      scores: [n] float32, as they are in the file; large is alike.
      name: of the file, without its suffix.

    Memory: the texts.

    Example:
      >>> import numpy as np
      >>> scores = np.array([4.5], np.float32)
      >>> len(ScoredTexts(("A cat.",), ("One cat.",), scores, "pairs"))
      1
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: np.ndarray
    name: str

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.scores)


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Texts with their classes.

    Attributes:
      texts: [n] texts in the order of the file.
      labels: [n] int32 positions in `class_names`; None for a file of texts alone.
      class_names: the labels of the file, sorted.
      name: of the file, without its suffix.
      notes: one line each on what is odd but no mistake.

    Memory: the texts.

    Example:
      >>> len(LabelledTexts(("A cat.", "Rain."), None, (), "texts"))
      2
    """

    texts: tuple[str, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.texts)


def load_texts(
    path: str | os.PathLike, *, require_labels: bool = True
) -> ScoredTexts | LabelledTexts:
    r"""Return the texts of a tab-separated file.

    Lines of three columns are scored pairs (score, text, text), of two labelled texts
    (label, text), of one texts alone. Columns are divided by a tab and nothing else:
    quote signs are part of a text. The first line is left out where it is a header: its
    first column no number (of three columns), or "label" or the like (of two). Spaces
    around a text do not count, empty lines at the end neither.

    Args:
      path: the file, in UTF-8.
      require_labels: whether a file of texts alone is a mistake.

    Returns:
      `ScoredTexts` or `LabelledTexts`, by the number of columns.

    Raises:
      DataError: the file cannot be read or used; one line, with the number of the line.

    Memory: the texts.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "pairs.tsv")
      ...     _ = path.write_text("4.5\tA cat.\tOne cat.\n0\tA cat.\tRain.\n")
      ...     pairs = load_texts(path)
      >>> pairs.scores.tolist(), pairs.second
      ([4.5, 0.0], ('One cat.', 'Rain.'))
    """
    path = Path(path)
    rows = list(_rows(path))
    if not rows:
        raise data_error(path, "is empty", _REMEDY)
    width = len(rows[0][1])
    if width > 3:
        reason = f"line {rows[0][0]} has {width} columns, more than 3"
        raise data_error(path, reason, _REMEDY)
    for number, fields in rows:
        if len(fields) != width:
            reason = f"line {number} has {len(fields)} columns, line 1 has {width}"
            raise data_error(path, reason, _REMEDY)
    if _is_header(rows[0][1]):
        del rows[0]
        if not rows:
            raise data_error(path, "holds a header and nothing else", _REMEDY)
    for number, fields in rows:
        for field in fields[-1:] if width < 3 else fields[1:]:
            if not field:
                remedy = "Leave such lines out."
                raise data_error(path, f"line {number} has an empty text", remedy)
    if width == 3:
        return _scored(path, rows)
    if width == 1 and require_labels:
        reason = "line 1 has one column, a text without score or label"
        raise data_error(path, reason, _REMEDY)
    return _labelled(path, rows)


def is_text_file(data: str) -> bool:
    """Return whether the name of a data set is that of a tab-separated file."""
    return data.lower().endswith(".tsv")


def has_scores(path: str | os.PathLike) -> bool:
    """Return whether the first line of a tab-separated file has three columns.

    Raises:
      DataError: the line cannot be read.
    """
    first = next(_rows(Path(path)), None)
    return first is not None and len(first[1]) == 3


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Give the number of each line and its columns, without spaces around them."""
    if not path.is_file():
        reason = "is no file" if path.exists() else "no such file"
        raise data_error(path, reason, _REMEDY)
    blank = 0
    try:
        with path.open("rb") as file:
            number = 0
            # Lines of bytes: a text may hold what `str.splitlines` takes for an end.
            while line := file.readline(_MAX_LINE_BYTES + 1):
                number += 1
                text = _decoded(path, number, line)
                if not text.strip():
                    blank = blank or number
                    continue
                if blank:
                    reason = f"line {blank} is empty"
                    raise data_error(path, reason, "Leave it out.")
                yield number, [field.strip() for field in text.split("\t")]
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise data_error(path, reason, "Give another file.") from error


def _decoded(path: Path, number: int, line: bytes) -> str:
    """Return a line as text without its end."""
    if len(line) > _MAX_LINE_BYTES:
        reason = f"line {number} is longer than {_MAX_LINE_BYTES:,} bytes"
        raise data_error(path, reason, "Cut the text.")
    if b"\0" in line:
        reason = f"line {number} holds a NUL byte, which no text does"
        raise data_error(path, reason, "Write it in UTF-8.")
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        reason = f"line {number} is not UTF-8 (byte {error.start + 1} of it)"
        raise data_error(path, reason, "Write it in UTF-8.") from error
    return text.rstrip("\r\n")


def _is_header(fields: list[str]) -> bool:
    """Return whether the first line names its columns."""
    if len(fields) == 3:
        # A misspelt score, such as 4,5, has a digit.
        is_word = bool(fields[0]) and not any(c.isdigit() for c in fields[0])
        return is_word and _number(fields[0]) is None
    return len(fields) == 2 and fields[0].lower() in _LABEL_HEADINGS


def _scored(path: Path, rows: list[tuple[int, list[str]]]) -> ScoredTexts:
    """Return pairs with their scores."""
    scores = []
    for number, (field, *_) in rows:
        score = _number(field)
        if score is None or not abs(score) <= _MOST_SCORE:
            reason = f"line {number} has the score {printable(field[:40])!r}"
            raise data_error(path, reason, "Give a finite number such as 2.5.")
        scores.append(score)
    if min(scores) == max(scores):
        reason = f"all scores are {scores[0]:g}, which orders nothing"
        raise data_error(path, reason, "Give pairs that differ in their score.")
    first, second = (tuple(fields[k] for _, fields in rows) for k in (1, 2))
    return ScoredTexts(first, second, np.array(scores, np.float32), path.stem)


def _labelled(path: Path, rows: list[tuple[int, list[str]]]) -> LabelledTexts:
    """Return texts with their labels, if they have any."""
    texts = tuple(fields[-1] for _, fields in rows)
    if len(rows[0][1]) == 1:
        return LabelledTexts(texts, None, (), path.stem)
    for number, fields in rows:
        if not fields[0]:
            reason = f"line {number} has an empty label"
            raise data_error(path, reason, "Give each text the name of its class.")
    names, labels = np.unique([fields[0] for _, fields in rows], return_inverse=True)
    labels, names = labels.astype(np.int32), tuple(names.tolist())
    notes = notes_on_classes(labels, [printable(name) for name in names])
    return LabelledTexts(texts, labels, names, path.stem, notes)


def _number(field: str) -> float | None:
    """Return the number that a field spells, if it does."""
    try:
        # float() takes 1_000 for a number, which no table means.
        return None if "_" in field else float(field)
    except ValueError:
        return None
