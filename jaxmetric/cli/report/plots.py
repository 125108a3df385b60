"""The charts of a report: training, distances, and the sweep behind a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmetric.cli import curves, sweep_figure
from jaxmetric.cli.report.charts import Axis, Line, Mark, chart
from jaxmetric.cli.report.escape import escape
from jaxmetric.cli.report.facts import Pairs

_TONES = {
    curves.BLUE: "blue",
    curves.GREEN: "green",
    curves.RED: "red",
    curves.ORANGE: "orange",
}
# Beyond so many points a curve is drawn faintly, with its running mean on top.
_SMOOTH_ABOVE = 100
# From so many times the least value on, an axis of powers reads better.
_DECADES = 30
_SWEEP_TONES = ("blue", "orange", "green", "red", "purple", "sky")


def training(records: Sequence[Mapping[str, Any]]) -> str:
    """Return one chart for each quantity that the log has."""
    records = [r for r in records if r.get("kind") in ("train", "eval")]
    switch = curves.switch_step(records)
    marks = [] if switch is None else [Mark(switch)]
    steps = [r["step"] for r in records]
    x = Axis(min(steps, default=0), max(steps, default=1), "step")
    found = []
    for panel, data in curves.filled(records):
        values = np.concatenate([values for _, _, values in data])
        y, title = _ends(panel, values), panel.title
        if y.is_log:
            title += " (log scale)"
        lines, legend = [], []
        for curve, at, numbers in data:
            tone = _TONES[curve.colour]
            if curve.label:
                latest = numbers[np.isfinite(numbers)][-1]
                number = f" {100 * latest:.1f} %" if curve.marker else ""
                legend.append((tone, curve.label + number))
            lines += _smoothed(at, numbers, tone, bool(curve.marker), switch)
        drawn = chart(
            lines,
            x=x,
            y=y,
            title=f"{panel.title} over the steps",
            marks=marks,
            is_percent=panel.is_share,
        )
        found.append(figure(title, drawn, legend))
    if not found:
        return '<p class="quiet">No step was recorded.</p>'
    note = ""
    if switch is not None:
        note = (
            '<p class="quiet">Dashed line: the metric loss takes over from softmax '
            f"training at step {switch:,}.</p>"
        )
    return f'<div class="charts">{"".join(found)}</div>{note}'


def distances(
    pairs: Pairs,
    calibrated: tuple[float, float] | None = None,
    of: tuple[str, str] = ("same class", "different classes"),
) -> str:
    """Return the histograms of both kinds of pairs, with the thresholds.

    Args:
      pairs: their distances.
      calibrated: see `Facts`.
      of: what pairs of the two kinds are called.
    """
    marks = [Mark(pairs.threshold, f"equal error {pairs.threshold:.3f}")]
    if calibrated is not None and calibrated[0] <= pairs.edges[-1]:
        marks.append(Mark(calibrated[0], f"calibrated {calibrated[0]:.3f}"))
    centres = (pairs.edges[1:] + pairs.edges[:-1]) / 2
    top = float(max(pairs.same.max(), pairs.different.max()))
    drawn = chart(
        [
            Line(centres, pairs.different, "red", area=True),
            Line(centres, pairs.same, "green", area=True),
        ],
        x=Axis(0, float(pairs.edges[-1]), "distance"),
        y=Axis(0, (1.02 + 0.1 * len(marks)) * top),
        title="Distances of same and different pairs",
        marks=marks,
        is_percent=True,
    )
    legend = [
        ("green", f"{of[0]}, {pairs.num_same:,} pairs"),
        ("red", f"{of[1]}, {pairs.num_different:,} pairs"),
    ]
    return figure("Share of pairs at each distance", drawn, legend)


def sweep(told: Mapping[str, Any]) -> str:
    """Return the charts of a sweep: retrieval and active terms over what was varied."""
    models = told["models"]
    names = [k for k, v in told["varied"].items() if k != "seed" and len(v) > 1]
    axis, others = sweep_figure.axes_of(models, names)
    found = []
    for key, title in sweep_figure.PANELS.items():
        groups = sweep_figure.lines_of(models, key, axis, others)
        ends = np.concatenate([[g.low, g.high] for g in groups], axis=None)
        if not np.isfinite(ends).any():
            continue
        x = np.concatenate([g.x for g in groups])
        is_log = bool(x.min() > 0 and x.max() >= _DECADES * x.min())
        lines, legend = [], []
        for i, group in enumerate(groups):
            tone = _SWEEP_TONES[i % len(_SWEEP_TONES)]
            line = Line(group.x, group.mean, tone, has_marks=True)
            if (group.high > group.low).any():
                line = line._replace(low=group.low, high=group.high)
            lines.append(line)
            if group.label and len(groups) <= len(_SWEEP_TONES):
                legend.append((tone, group.label))
        raw, star, level = told.get("pixels", {}).get(key), None, None
        if key == sweep_figure.MAP_AT_R:
            best = models[told["best"]] if told.get("best") is not None else None
            if best is not None:
                star = (float(best[axis]), float(best[key]))
                legend.append(("best", f"best model, {100 * star[1]:.1f} %"))
            low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
            # A line far away would press all others together.
            if raw is not None and low - (high - low) < raw < high + (high - low):
                level = float(raw)
                legend.append(("level", f"raw inputs, {100 * raw:.1f} %"))
                ends = np.append(ends, raw)
        drawn = chart(
            lines,
            x=Axis(float(x.min()), float(x.max()), sweep_figure.word(axis), is_log),
            y=_roomy(ends),
            title=f"{title} over the {sweep_figure.word(axis)}",
            level=level,
            star=star,
            is_percent=True,
        )
        found.append(figure(title, drawn, legend))
    return f'<div class="charts">{"".join(found)}</div>'


def figure(title: str, drawn: str, legend: Sequence[tuple[str, str]] = ()) -> str:
    """Return a chart with its title and legend above it."""
    keys = "".join(
        f'<li><i class="key {tone}"></i>{escape(text)}</li>' for tone, text in legend
    )
    keys = f'<ul class="legend">{keys}</ul>' if keys else ""
    return f"<figure><figcaption>{escape(title)}{keys}</figcaption>{drawn}</figure>"


def _smoothed(
    steps: np.ndarray,
    values: np.ndarray,
    tone: str,
    has_marks: bool,
    switch: int | None,
) -> list[Line]:
    """Return a curve, and where it is long its running mean in each phase."""
    if has_marks or len(values) <= _SMOOTH_ABOVE:
        return [Line(steps, values, tone, has_marks=has_marks)]
    lines = [Line(steps, values, tone, is_faint=True)]
    start = int(np.searchsorted(steps, np.inf if switch is None else switch))
    for part in (slice(None, start), slice(start, None)):
        if steps[part].size:
            mean = curves.running_mean(values[part])
            lines.append(Line(steps[part], mean, tone))
    return lines


def _ends(panel: curves.Panel, values: np.ndarray) -> Axis:
    """Return the y axis of a panel."""
    high = float(np.nanmax(values))
    if panel.bottom is not None:
        top = panel.top if panel.top is not None else 1.05 * high
        return Axis(panel.bottom, top if top > panel.bottom else panel.bottom + 1)
    if curves.spans_decades(values):
        return Axis(float(np.nanmin(values)), high, is_log=True)
    return _roomy(values)


def _roomy(values: np.ndarray) -> Axis:
    """Return an axis with a little room around the numbers."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.06 * (high - low) or max(0.1 * abs(high), 1e-3)
    # Numbers that are never below 0 do not want an axis that is.
    return Axis(low - room if low < 0 else max(low - room, 0.0), high + room)
