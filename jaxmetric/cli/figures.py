"""The pictures of a run: its curves, and queries with their nearest neighbours.

Both are drawn on Matplotlib's figure objects, never through pyplot, with its default
style whatever the user's settings, and appear on disk whole or not at all.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmetric.cli import curves
from jaxmetric.cli.gallery import draw_gallery, to_pictures, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 150
_GREY = "#5f6368"

# Beyond so many points a curve is drawn faintly, with its running mean on top.
_SMOOTH_ABOVE = 100


def write_curves(
    path: str | os.PathLike[str], records: Sequence[Mapping[str, Any]]
) -> None:
    """Draw how a run went: one small panel a quantity, over the steps.

    The panels are the loss, the active fraction, the mean positive and negative
    distance, and Recall@1 and MAP@R of the held-out classes, or Recall@10 and mAP of
    held-out pairs; a panel without any number is left out. A dotted line marks the step
    at which the metric loss takes over from softmax training. Long curves are drawn
    faintly, with their running mean on top.

    Args:
      path: the PNG to write; its folder exists. An older one is replaced.
      records: one mapping for each line of `metrics.jsonl`, in any order, with "step"
        and some of "phase" ("softmax" or "metric"), "loss", "active_fraction",
        "positive_distance", "negative_distance", "recall_at_1" and
        "mean_average_precision_at_r". What is missing, None or not finite leaves a gap.
        Of several numbers for one step (a resumed run) the last one is drawn.

    Raises:
      OSError: the file cannot be written.

    Memory: O(records) and one picture of about 1500 x 1000 pixels.
    """
    drawn = curves.filled(records)
    switch = curves.switch_step(records)
    with drawing():
        from matplotlib.figure import Figure

        if not drawn:
            figure = Figure(figsize=(4, 1.2))
            figure.text(0.5, 0.5, "No step was recorded.", ha="center", va="center")
            save(figure, path)
            return
        num_columns = len(drawn) if len(drawn) < 4 else 2 if len(drawn) == 4 else 3
        num_rows = -(-len(drawn) // num_columns)
        figure = Figure((4.8 * num_columns, 3 * num_rows + 0.3), layout="constrained")
        all_axes = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True)
        for ax, (panel, data) in zip(all_axes.flat, drawn, strict=False):
            _draw_panel(ax, panel, data, switch)
        for i, ax in enumerate(all_axes.flat):
            ax.set_visible(i < len(drawn))
            if i + num_columns >= len(drawn):
                ax.set_xlabel("step", fontsize=9)
                ax.tick_params(labelbottom=True)
        if switch is not None:
            note = (
                f"dotted line: the metric loss takes over from softmax, step {switch:,}"
            )
            figure.suptitle(note, fontsize=9, color=_GREY)
        save(figure, path)


def write_gallery(
    path: str | os.PathLike[str],
    *,
    inputs: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    neighbor_indices: np.ndarray,
    query_rows: np.ndarray,
    distances: np.ndarray | None = None,
) -> None:
    """Draw queries, each followed by its nearest neighbours from left to right.

    A neighbour of the query's class has a solid green frame and a tick, any other a
    dashed red frame, a cross and the name of its class.

    Args:
      path: the PNG to write; its folder exists. An older one is replaced.
      inputs: [n, h, w, c] images, uint8 or floating. Three channels or more show the
        first three as red, green and blue, fewer the first one as grey. Floating
        images outside [0, 1] are stretched together to their range.
      labels: [n] integer positions in `class_names`.
      class_names: one name a class.
      neighbor_indices: [queries, k] rows of `inputs`, nearest first.
      query_rows: [queries] rows of `inputs`.
      distances: [queries, k], shown below the neighbours; None shows none.

    Raises:
      ValueError: the arrays are no images, empty, or do not belong together. OSError:
        the file cannot be written.

    Memory: the images shown, and a picture of about 170 x 200 pixels for each.
    """
    inputs, labels = np.asarray(inputs), np.asarray(labels)
    neighbors, queries = np.asarray(neighbor_indices), np.asarray(query_rows)
    _check_gallery(inputs, neighbors, queries, distances)
    is_right = labels[neighbors] == labels[queries][:, None]
    pictures = to_pictures(inputs, np.column_stack([queries, neighbors]))
    with drawing():
        captions = []
        for q, query in enumerate(queries):
            captions.append([wrap(class_names[int(labels[query])])])
            for j, row in enumerate(neighbors[q]):
                mark = "✓" if is_right[q, j] else "✗"
                if distances is not None:
                    mark += f" {distances[q][j]:.2f}"
                name = [] if is_right[q, j] else wrap(class_names[int(labels[row])])
                captions[-1].append([mark, *name])
        save(draw_gallery(pictures, captions, is_right), path)


def _draw_panel(
    ax: "Axes", panel: curves.Panel, data: list, switch: int | None
) -> None:
    """Draw one panel; its title and legend stand above it, where no curve goes."""
    from matplotlib.ticker import MaxNLocator

    for curve, steps, values in data:
        style = {"color": curve.colour, "markersize": 4}
        label = curve.label
        if curve.marker:
            label += f" {values[np.isfinite(values)][-1]:.3f}"
        if curve.marker or len(values) <= _SMOOTH_ABOVE:
            # A lone point makes no line: it needs a marker to be seen.
            marker = curve.marker or ("o" if len(values) < 3 else "")
            ax.plot(steps, values, marker=marker, label=label, **style)
            continue
        ax.plot(steps, values, alpha=0.25, linewidth=0.6, **style)
        # The two phases have two losses; a mean across the switch would be of neither.
        start = np.searchsorted(steps, np.inf if switch is None else switch)
        for part in (slice(None, start), slice(start, None)):
            if steps[part].size:
                mean = curves.running_mean(values[part])
                ax.plot(steps[part], mean, linewidth=1.6, label=label, **style)
                label = ""
    if switch is not None:
        ax.axvline(switch, color=_GREY, linestyle=":", linewidth=1.2)
    title = panel.title
    if panel.bottom is not None:
        # A little room, so that the frame does not hide curves at the limits.
        top = panel.top or 1.05 * ax.get_ylim()[1]
        ax.set_ylim(panel.bottom - 0.02 * top, 1.02 * top)
    elif curves.spans_decades(np.concatenate([values for _, _, values in data])):
        ax.set_yscale("log")
        title += " (log scale)"
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.tick_params(labelbottom=True, labelsize=8)
    ax.set_title(title, loc="left", fontsize=10)
    if any(curve.label for curve, *_ in data):
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.99), "ncols": 2}
        ax.legend(frameon=False, fontsize=8, borderaxespad=0.2, **place)
    ax.grid(color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _check_gallery(
    inputs: np.ndarray, neighbors: np.ndarray, queries: np.ndarray, distances: Any
) -> None:
    """Raise ValueError unless there are images and neighbours to be shown."""
    if inputs.ndim != 4 or 0 in inputs.shape:
        raise ValueError(
            "write_gallery: `inputs` must be [n, h, w, c] images, got shape "
            f"{inputs.shape}. Rows of features have no picture."
        )
    if (
        neighbors.ndim != 2
        or 0 in neighbors.shape
        or neighbors.shape[:1] != (queries.shape)
    ):
        raise ValueError(
            "write_gallery: `neighbor_indices` must be [queries, k], at least one of "
            f"each, got shape {neighbors.shape} for `query_rows` of shape "
            f"{queries.shape}. Give the k nearest rows of each query."
        )
    if distances is not None and np.shape(distances) != neighbors.shape:
        raise ValueError(
            f"write_gallery: `distances` must have shape {neighbors.shape} like "
            f"`neighbor_indices`, got {np.shape(distances)}. Give one for each."
        )


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in Matplotlib's own style, silent about characters that no font has."""
    import matplotlib.style

    with matplotlib.style.context("default"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.* missing")
        yield


def save(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a PNG under another name and rename it, so that it is never half there."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, dpi=_DPI, format="png")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
