"""The picture of a sweep: retrieval and active terms over what was varied."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxmetric.cli import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAP_AT_R = "mean_average_precision_at_r"
PANELS = {MAP_AT_R: "MAP@R of the held-out classes"}
PANELS["active_fraction"] = "Active fraction at the end of training"
_MARKERS = "osD^vP*X"
# Beyond so many lines a legend is longer than the picture.
_MAX_LINES = 12
# From so many times the least value on, an axis of powers reads better.
_DECADES = 30


class Line(NamedTuple):
    """What is drawn of one combination of the other numbers.

    Attributes:
      label: names the combination; empty where there is only one, or too many.
      x: [points] values of what is on the axis.
      low, mean, high: [points], over the seeds.
    """

    label: str
    x: np.ndarray
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray


def write_sweep(
    path: str | os.PathLike[str],
    models: Sequence[Mapping[str, Any]],
    *,
    varied: Sequence[str],
    raw: float | None = None,
) -> None:
    """Draw one panel for MAP@R and one for the active fraction.

    The number with the most values is the axis; every combination of the others, seeds
    apart, has a line. Seeds are its mean and a band from the least to the greatest. A
    star marks the best model, a dotted line the raw inputs where they are near.

    Args:
      path: the PNG to write; an older one is replaced.
      models: one mapping a model, with "seed", the names in `varied`,
        "mean_average_precision_at_r" and "active_fraction". None or a number that is
        not finite leaves a gap.
      varied: what the models differ in, seeds apart; may be empty.
      raw: MAP@R of the raw inputs; None draws no line.

    Raises:
      OSError: the file cannot be written.

    Memory: a picture of about 1200 x 1100 pixels.
    """
    axis, others = axes_of(models, varied)
    panels = [key for key in PANELS if np.isfinite(_numbers(models, key)).any()]
    with figures.drawing():
        import matplotlib
        from matplotlib.figure import Figure

        size = (8.0, 3.1 * max(len(panels), 1) + 0.8)
        figure = Figure(size, layout="constrained")
        all_axes = figure.subplots(max(len(panels), 1), 1, squeeze=False, sharex=True)
        for ax, key in zip(all_axes[:, 0], panels, strict=False):
            lines = lines_of(models, key, axis, others)
            # Apart for every kind of colour vision, and in grey; yellow is too light.
            colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(lines)))
            for i, line in enumerate(lines):
                _draw(ax, line, colours[i], _MARKERS[i % len(_MARKERS)])
            if key == MAP_AT_R:
                _mark_best(ax, models, axis)
                _draw_raw(ax, raw)
            seeds = len({model["seed"] for model in models})
            of = f", mean and range of {seeds} seeds" if seeds > 1 else ""
            ax.set_title(PANELS[key] + of, loc="left", fontsize=10)
            ax.grid(color="#e6e6e6", linewidth=0.6)
            ax.set_axisbelow(True)
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize=8)
        bottom, values = all_axes[-1, 0], _numbers(models, axis)
        bottom.set_xlabel(word(axis), fontsize=9)
        if values.min() > 0 and values.max() >= _DECADES * values.min():
            bottom.set_xscale("log")
        handles, labels = all_axes[0, 0].get_legend_handles_labels()
        if labels:
            figure.legend(
                handles,
                labels,
                loc="outside lower center",
                ncols=min(len(labels), 3),
                frameon=False,
                fontsize=8,
            )
        figures.save(figure, path)


def axes_of(
    models: Sequence[Mapping[str, Any]], varied: Sequence[str]
) -> tuple[str, list[str]]:
    """Return which number is the axis, and which others have a line for each value."""
    counts = {name: len({model[name] for model in models}) for name in varied}
    axis = max(counts, key=lambda name: counts[name], default="seed")
    return axis, [name for name in varied if name != axis and counts[name] > 1]


def lines_of(
    models: Sequence[Mapping[str, Any]], key: str, axis: str, others: Sequence[str]
) -> list[Line]:
    """Return a line for each combination of the other numbers, in their order."""
    groups: dict[tuple, dict[float, list[float]]] = {}
    for model, value in zip(models, _numbers(models, key), strict=True):
        group = groups.setdefault(tuple(model[name] for name in others), {})
        group.setdefault(float(model[axis]), []).append(value)
    lines = []
    for group in sorted(groups):
        points = sorted(groups[group].items())
        spread = np.array([_spread(values) for _, values in points])
        named = zip(others, group, strict=True)
        label = ", ".join(f"{word(name)} {value:g}" for name, value in named)
        lines.append(Line(label, np.array([x for x, _ in points]), *spread.T))
    if len(lines) > _MAX_LINES:
        lines = [line._replace(label="") for line in lines]
    return lines


def _draw(ax: "Axes", line: Line, colour: Any, marker: str) -> None:
    """Draw a line, and its band where seeds differ."""
    style = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.4}
    ax.plot(line.x, line.mean, label=line.label, **style)
    if (line.high > line.low).any():
        ax.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, lw=0)


def _mark_best(ax: "Axes", models: Sequence[Mapping[str, Any]], axis: str) -> None:
    """Put a star at the best model."""
    values = _numbers(models, MAP_AT_R)
    i = int(np.nanargmax(values))
    style: dict[str, Any] = {"color": "#d55e00", "markeredgecolor": "white"}
    label = f"best model, {values[i]:.3f}"
    x = float(models[i][axis])
    ax.plot(
        [x], [values[i]], "*", markersize=13, ls="none", label=label, zorder=5, **style
    )


def _draw_raw(ax: "Axes", raw: float | None) -> None:
    """Draw a line for the raw inputs, or name their number if they are far off."""
    if raw is None or not np.isfinite(raw):
        return
    low, high = ax.get_ylim()
    label, room = f"raw inputs, {raw:.3f}", high - low
    if low - room < raw < high + room:
        ax.axhline(raw, color="0.5", linestyle=":", label=label)
        return
    # A line far away would press all others together.
    where = "below" if raw < low else "above"
    ax.plot([], [], color="0.5", linestyle=":", label=f"{label} (far {where})")


def _spread(values: list[float]) -> tuple[float, float, float]:
    """Return least, mean and greatest of what is known, NaN if nothing is."""
    known = np.array(values)[np.isfinite(values)]
    if not known.size:
        return np.nan, np.nan, np.nan
    return known.min(), known.mean(), known.max()


def _numbers(models: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Return [models] numbers, NaN where there is none."""
    values = [np.nan if m.get(key) is None else float(m[key]) for m in models]
    return np.array(values, np.float64)


def word(name: str) -> str:
    """Return a name as words."""
    return name.replace("_", " ")
