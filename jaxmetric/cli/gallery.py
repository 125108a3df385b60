"""How a gallery is laid out: pictures in their frames, with captions that fit."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito: these two stay apart for every kind of colour vision.
_GREEN, _RED, _GREY = "#009e73", "#d55e00", "#5f6368"

# Inches.
_CELL = 0.95
_GAP = 0.16
_EDGE = 0.2
_LINE = 0.15

_CAPTION_POINTS = 8.0


def to_pictures(inputs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the chosen images as [*rows, h, w, 3] numbers in [0, 1]."""
    pictures = inputs[rows]
    channels = pictures.shape[-1]
    pictures = pictures[..., :3] if channels >= 3 else pictures[..., [0, 0, 0]]
    if pictures.dtype == np.uint8:
        return pictures / np.float32(255)
    pictures = np.nan_to_num(pictures.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = min(pictures.min(), 0.0), max(pictures.max(), 1.0)
    return (pictures - low) / (high - low)


def wrap(name: str) -> list[str]:
    """Return a class name in lines that fit below a picture; nothing is dropped."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=_CAPTION_POINTS)

    def fits(text: str) -> bool:
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, False)
        return width <= 72 * (_CELL + _GAP - 0.1)

    # Folder names may hold anything, characters that no font can draw included.
    name = "".join(c if c.isprintable() else "?" for c in name)
    lines, line = [], ""
    for piece in _pieces(name):
        if line and not fits(line + piece.rstrip()):
            lines.append(line)
            line = ""
        line += piece
        while not fits(line.rstrip()):
            end = next(n for n in range(len(line), 0, -1) if fits(line[:n]) or n == 1)
            lines.append(line[:end])
            line = line[end:]
    return [text.strip() for text in (*lines, line) if text.strip()]


def _pieces(name: str) -> Iterator[str]:
    """Yield the parts of a name after which a line may end."""
    start = 0
    for i, character in enumerate(name, 1):
        if character in " _-/." or i == len(name):
            yield name[start:i]
            start = i


def draw_gallery(
    pictures: np.ndarray,
    captions: list[list[list[str]]],
    is_right: np.ndarray | None,
    *,
    note: str = "neighbours have the query's class",
    legend: str = "✓ solid green: same class    ✗ dashed red: another class",
) -> "Figure":
    """Lay the pictures out in inches, so that nothing can meet anything else.

    Args:
      pictures: [queries, 1 + neighbours, h, w, 3], the query first.
      captions: the lines below each of them.
      is_right: [queries, neighbours] bool, which have a green frame; None gives all
        grey ones, and neither note nor legend.
      note: what the right ones are, after "12 of 64".
      legend: what the frames mean.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    num_queries, num_columns, h, w, _ = pictures.shape
    # Cells have the shape of the images; very long ones keep a side to be seen by.
    height, width = (max(_CELL * side / max(h, w), _CELL / 8) for side in (h, w))
    line_counts = [max(len(c) for c in row) for row in captions]
    row_heights = [height + _LINE * n + 2 * _GAP for n in line_counts]
    pitch = _CELL + _GAP
    # The queries stand apart from their neighbours by a second gap.
    lefts = [_EDGE + pitch * j + _GAP * (j > 0) for j in range(num_columns)]
    top = _EDGE + 3 * _LINE
    total_width = max(lefts[-1] + _CELL + _EDGE, 4.6)
    total_height = top + sum(row_heights) + 2 * _LINE + _EDGE / 2

    figure = Figure((total_width, total_height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    small: dict[str, Any] = {"fontsize": _CAPTION_POINTS, "parse_math": False}
    for j, left in enumerate(lefts):
        heading = "query" if j == 0 else "nearest" if j == 1 else str(j)
        ax.text(
            left + _CELL / 2, top - _LINE, heading, ha="center", color=_GREY, **small
        )
    y = top
    for q in range(num_queries):
        for j, left in enumerate(lefts):
            x = left + (_CELL - width) / 2
            ax.imshow(
                pictures[q, j],
                extent=(x, x + width, y + height, y),
                vmin=0,
                vmax=1,
                aspect="auto",
            )
            is_plain = j == 0 or is_right is None
            right = is_right is not None and j > 0 and is_right[q, j - 1]
            colour = _GREY if is_plain else _GREEN if right else _RED
            # Outside the picture, so that the frame hides none of it.
            points = 1 if is_plain else 3
            out = points / 144
            frame = Rectangle(
                (x - out, y - out), width + 2 * out, height + 2 * out, fill=False
            )
            frame.set_edgecolor(colour)
            frame.set_linewidth(points)
            frame.set_linestyle("-" if is_plain or right else (0, (2.5, 1.2)))
            ax.add_patch(frame)
            for n, line in enumerate(captions[q][j]):
                below = y + height + 0.08 + _LINE * n
                style = {"color": "black" if j == 0 else colour, **small}
                ax.text(left + _CELL / 2, below, line, ha="center", va="top", **style)
        y += row_heights[q]
    if is_right is not None:
        said = f"{is_right.sum():,} of {is_right.size:,} {note}"
        ax.text(_EDGE, _EDGE, said, va="center", fontsize=10)
        ax.text(_EDGE, y + _LINE / 2, legend, va="center", color=_GREY, **small)
    ax.set_xlim(0, total_width)
    ax.set_ylim(total_height, 0)
    return figure
