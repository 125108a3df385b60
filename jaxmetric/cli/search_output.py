"""What `jaxmetric search` found: a table, JSON lines, a picture."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxmetric as jm
from jaxmetric.cli.calibration import Calibration

# Characters of the table before the neighbours, and of each of them.
_LEFT_WIDTH, _CELL_WIDTH = 30, 12
# Queries in the table, and queries and neighbours in the picture.
_MOST_LINES, _MOST_QUERIES, _MOST_NEIGHBORS = 20, 8, 10
# Letters of a text in the table.
_MOST_LETTERS = 60


class Answer(NamedTuple):
    """The nearest rows of a gallery.

    Attributes:
      query, gallery: the data.
      rows, distances: [q, k] row ids of the gallery and Euclidean distances.
      calibration: the threshold of the run, None where there is none to go by.
    """

    query: jm.data.Dataset
    gallery: jm.data.Dataset
    rows: np.ndarray
    distances: np.ndarray
    calibration: Calibration | None

    @property
    def is_near(self) -> np.ndarray | None:
        """[q, k] bool, which neighbours are within the threshold."""
        if self.calibration is None:
            return None
        return self.distances <= self.calibration.threshold

    @property
    def verdicts(self) -> list[str | None]:
        """One word a query: it is known if its nearest neighbour is near enough."""
        if self.is_near is None:
            return [None] * len(self.rows)
        return ["known" if near else "unknown" for near in self.is_near[:, 0]]


def name_of(data: jm.data.Dataset, row: int) -> str | None:
    """Return the name of the class of a row, None where it has none."""
    return None if data.labels is None else data.class_names[data.labels[row]]


def print_lines(answer: Answer) -> None:
    """Print one JSON object a query.

    `query` and `row` number rows from 0; `label` is there where the data has labels;
    `verdict` is "known" or "unknown", null without a threshold.
    """
    for q, verdict in enumerate(answer.verdicts):
        neighbors = [
            {"row": int(row), **_label(answer.gallery, row), "distance": float(far)}
            for row, far in zip(answer.rows[q], answer.distances[q], strict=True)
        ]
        line = {"query": q, **_label(answer.query, q), "verdict": verdict}
        print(json.dumps({**line, "neighbors": neighbors}))


def print_table(query: str, gallery: str, answer: Answer) -> None:
    """Print the first queries, as many neighbours as fit, and how many are known."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    k = answer.rows.shape[1]
    shown = max(1, min(k, (console.width - _LEFT_WIDTH) // _CELL_WIDTH))
    what = "row (class)" if answer.gallery.labels is not None else "row"
    table = Table(
        title=escape(f"{query} searched in {gallery}: {what} and distance"),
        title_justify="left",
    )
    table.add_column("query", overflow="fold")
    if answer.calibration is not None:
        table.add_column("verdict")
    for j in range(shown):
        table.add_column("nearest" if j == 0 else str(j + 1), overflow="fold")
    for q, verdict in enumerate(answer.verdicts[:_MOST_LINES]):
        cells = [_in_words(answer.query, q), *([verdict] if verdict else [])]
        for row, far in zip(answer.rows[q], answer.distances[q], strict=True):
            cells.append(f"{_in_words(answer.gallery, row)}\n{far:.3f}")
        cells = cells[: len(table.columns)]
        table.add_row(*map(escape, cells), style="dim" if verdict == "unknown" else "")
    console.print(table)
    if len(answer.rows) > _MOST_LINES or shown < k:
        print(f"All {len(answer.rows):,} queries, {k} neighbours each: see --json")
    for line in _count(answer):
        print(line)


def _count(answer: Answer) -> Iterator[str]:
    """Yield how many queries are known, and how many of those rightly."""
    right = _is_right(answer)
    is_known = None
    if answer.calibration is not None:
        is_known = np.array([verdict == "known" for verdict in answer.verdicts])
        yield (
            f"Known: {is_known.sum():,} of {len(is_known):,} queries, whose nearest is "
            f"at {answer.calibration.threshold:.4f} or less (false-accept rate "
            f"{answer.calibration.wanted:g} of pairs)"
        )
    if right is None:
        return
    assert answer.query.labels is not None
    assert answer.gallery.labels is not None
    names = {answer.gallery.class_names[c] for c in np.unique(answer.gallery.labels)}
    is_there = np.array([name in names for name in answer.query.class_names])
    is_there = is_there[answer.query.labels]
    for group, what in ((is_there, "is in"), (~is_there, "is not in")):
        if not group.any():
            continue
        said = []
        if is_known is not None:
            said.append(f"{100 * is_known[group].mean():.1f} % known")
        if group is is_there:
            share = 100 * right[group, 0].mean()
            said.append(f"the nearest of {share:.1f} % is of their class")
        if said:
            count = f"{group.sum():,} queries whose class {what} the gallery"
            yield f"Of {count}: {', '.join(said)}"


def write_picture(path: Path, answer: Answer) -> None:
    """Draw some queries, each followed by its neighbours from left to right.

    Frames tell what is within the threshold; without one, what has the query's class.

    Args:
      path: the PNG to write; its folder exists. An older one is replaced.
      answer: of images.

    Raises:
      OSError: the file cannot be written.
    """
    from jaxmetric.cli.figures import drawing, save
    from jaxmetric.cli.gallery import draw_gallery, to_pictures, wrap

    num_queries, k = answer.rows.shape
    chosen = np.linspace(0, num_queries, min(num_queries, _MOST_QUERIES), False)
    chosen = chosen.astype(int)
    rows = answer.rows[chosen, :_MOST_NEIGHBORS]
    shown, note, legend = answer.is_near, "neighbours are within the threshold", ""
    if shown is not None:
        legend = "✓ solid green: within the threshold    ✗ dashed red: beyond it"
    else:
        shown, note = _is_right(answer), "neighbours have the query's class"
        if shown is not None:
            legend = "✓ solid green: same class    ✗ dashed red: another class"
    if shown is not None:
        shown = shown[chosen, :_MOST_NEIGHBORS]
    num_queries, k = rows.shape
    sides = [
        jm.data.to_float(data.inputs[picked])
        for data, picked in ((answer.query, chosen), (answer.gallery, rows.ravel()))
    ]
    places = np.arange(num_queries + rows.size)
    grid = np.column_stack(
        [places[:num_queries], places[num_queries:].reshape(num_queries, k)]
    )
    pictures = to_pictures(np.concatenate([np.asarray(side) for side in sides]), grid)
    with drawing():
        captions = []
        for q, query in enumerate(chosen):
            verdict = answer.verdicts[query]
            captions.append([_lines(wrap, verdict, name_of(answer.query, query))])
            for j, row in enumerate(rows[q]):
                mark = "" if shown is None else "✓ " if shown[q, j] else "✗ "
                text = f"{mark}{answer.distances[query, j]:.2f}"
                captions[-1].append(_lines(wrap, text, name_of(answer.gallery, row)))
        figure = draw_gallery(pictures, captions, shown, note=note, legend=legend)
        save(figure, path)


def _lines(wrap: Any, first: str | None, name: str | None) -> list[str]:
    """Return a caption: a line of its own, then the name of a class."""
    return [*([first] if first else []), *([] if name is None else wrap(name))]


def _is_right(answer: Answer) -> np.ndarray | None:
    """Return [q, k] bool, which neighbours have the query's class, if all have one."""
    query, gallery = answer.query, answer.gallery
    if query.labels is None or gallery.labels is None:
        return None
    numbers = {name: number for number, name in enumerate(gallery.class_names)}
    mine = np.array([numbers.get(name, -1) for name in query.class_names])
    return gallery.labels[answer.rows] == mine[query.labels][:, None]


def _label(data: jm.data.Dataset, row: int) -> dict[str, str]:
    """Return the class of a row and its text under their names, where it has them."""
    name = name_of(data, row)
    found = {} if name is None else {"label": name}
    return found if data.texts is None else {**found, "text": data.texts[row]}


def _in_words(data: jm.data.Dataset, row: int) -> str:
    """Return a row with its class: 12 (cat); of a text what it says."""
    name = name_of(data, row)
    words = f"{row}" if name is None else f"{row} ({name})"
    if data.texts is None:
        return words
    text = data.texts[row]
    return f"{words} {text[:_MOST_LETTERS]}{'…' if len(text) > _MOST_LETTERS else ''}"
