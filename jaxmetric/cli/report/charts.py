"""Line charts as SVG: coordinates that scale, colours that the page decides."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmetric.cli.report.escape import escape

_WIDTH, _HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 12, 42
_MOST_POINTS = 800


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
      x, y: [points]; a number that is not finite leaves a gap.
      tone: the class of CSS that colours it.
      is_faint: whether another line says the same more clearly.
      has_marks: whether every point is shown.
      area: whether the space down to the axis is filled.
      low, high: [points], a band around it, or None.
    """

    x: np.ndarray
    y: np.ndarray
    tone: str
    is_faint: bool = False
    has_marks: bool = False
    area: bool = False
    low: np.ndarray | None = None
    high: np.ndarray | None = None


class Mark(NamedTuple):
    """A vertical line at x, with words beside its upper end."""

    x: float
    text: str = ""


class Axis(NamedTuple):
    """Ends of an axis and its name; logarithmic where numbers span decades."""

    low: float
    high: float
    name: str = ""
    is_log: bool = False


def chart(
    lines: Sequence[Line],
    *,
    x: Axis,
    y: Axis,
    title: str,
    marks: Sequence[Mark] = (),
    level: float | None = None,
    star: tuple[float, float] | None = None,
    is_percent: bool = False,
) -> str:
    """Return a chart as an SVG element that is as wide as its place.

    Args:
      lines: drawn in their order.
      x, y: the axes.
      title: for those who cannot see it.
      marks: vertical lines.
      level: where a dotted horizontal line is drawn; None draws none.
      star: a point to stand out.
      is_percent: whether numbers on the y axis are shares.
    """
    across = _Scale(x, _LEFT, _WIDTH - _RIGHT)
    down = _Scale(y, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">'
    ]
    for value in down.ticks(5):
        place = down(value)
        word = f"{100 * value:.3g} %" if is_percent else _number(value)
        parts.append(
            f'<path class="grid" d="M{_LEFT} {place:.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{place + 4:.1f}" '
            f'text-anchor="end">{escape(word)}</text>'
        )
    for value in across.ticks(5):
        place, bottom = across(value), _HEIGHT - _BOTTOM
        anchor = "end" if place > _WIDTH - _RIGHT - 16 else "middle"
        parts.append(
            f'<path class="axis" d="M{place:.1f} {bottom}v4"/>'
            f'<text class="tick" x="{min(place, _WIDTH - 2):.1f}" y="{bottom + 18}" '
            f'text-anchor="{anchor}">{escape(_number(value))}</text>'
        )
    parts.append(
        f'<path class="axis" d="M{_LEFT} {_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"/>'
    )
    if x.name:
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(
            f'<text class="tick" x="{middle}" y="{_HEIGHT - 5}" '
            f'text-anchor="middle">{escape(x.name)}</text>'
        )
    if level is not None:
        place = down(level)
        parts.append(
            f'<path class="level" d="M{_LEFT} {place:.1f}H{_WIDTH - _RIGHT}"/>'
        )
    for line in lines:
        parts += _line(line, across, down)
    for mark in marks:
        place = across(mark.x)
        parts.append(
            f'<path class="mark" d="M{place:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>'
        )
    for i, mark in enumerate(marks):
        if mark.text:
            parts.append(_note(mark, across(mark.x), _TOP + 12 + 16 * i))
    if star is not None:
        place = f'cx="{across(star[0]):.1f}" cy="{down(star[1]):.1f}"'
        parts.append(f'<circle class="star" {place} r="7"/>')
    return "".join([*parts, "</svg>"])


class _Scale:
    """From numbers to places between two ends."""

    def __init__(self, axis: Axis, start: float, end: float):
        self.axis, self._start, self._end = axis, start, end
        self._low, self._high = self._of(axis.low), self._of(axis.high)

    def __call__(self, value: float) -> float:
        part = (self._of(value) - self._low) / ((self._high - self._low) or 1)
        return self._start + part * (self._end - self._start)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.axis.is_log else value

    def ticks(self, num: int) -> list[float]:
        """Return round numbers between the ends, about so many."""
        low, high = self.axis.low, self.axis.high
        if self.axis.is_log:
            first, last = math.floor(self._low), math.ceil(self._high)
            leads = (1, 2, 5) if last - first <= 2 else (1,)
            powers = [c * 10.0**e for e in range(first, last + 1) for c in leads]
            return [v for v in powers if low * 0.999 <= v <= high * 1.001]
        if not high > low:
            return [low]
        raw = (high - low) / num
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(c * power for c in (1, 2, 2.5, 5, 10) if c * power >= raw * 0.999)
        first = math.ceil(low / step - 1e-9)
        values = [k * step for k in range(first, first + num + 2)]
        return [0.0 if v == 0 else v for v in values if v <= high + 1e-9 * step]


def _line(line: Line, across: _Scale, down: _Scale) -> list[str]:
    """Return the elements of a line."""
    parts, every = [], -(-len(line.x) // _MOST_POINTS)
    x, y = line.x[::every], line.y[::every]
    places = [
        (across(float(a)), down(float(b))) if math.isfinite(b) else None
        for a, b in zip(x, y, strict=True)
    ]
    if line.low is not None and line.high is not None:
        ends = [*zip(line.x, line.high, strict=True)]
        ends += [*zip(line.x[::-1], line.low[::-1], strict=True)]
        known = [f"{across(a):.1f} {down(b):.1f}" for a, b in ends if math.isfinite(b)]
        if known:
            parts.append(f'<path class="band {line.tone}" d="M{"L".join(known)}Z"/>')
    path, is_open = [], False
    for place in places:
        if place is not None:
            path.append(f"{'L' if is_open else 'M'}{place[0]:.1f} {place[1]:.1f}")
        is_open = place is not None
    known = [place for place in places if place is not None]
    if line.area and known:
        bottom = _HEIGHT - _BOTTOM
        area = (
            f"{''.join(path)}L{known[-1][0]:.1f} {bottom}L{known[0][0]:.1f} {bottom}Z"
        )
        parts.append(f'<path class="area {line.tone}" d="{area}"/>')
    faint = " faint" if line.is_faint else ""
    parts.append(f'<path class="line {line.tone}{faint}" d="{"".join(path)}"/>')
    # A lone point makes no line: it needs a mark to be seen.
    if line.has_marks or len(known) < 3:
        parts += [
            f'<circle class="dot {line.tone}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>'
            for a, b in known
        ]
    return parts


def _note(mark: Mark, place: float, height: float) -> str:
    """Return the words of a vertical line, on the side where there is room.

    They come after all lines, at heights of their own, so that they stay legible
    however near the lines are.
    """
    is_left = place > _WIDTH * 0.6
    at, anchor = (place - 6, "end") if is_left else (place + 6, "start")
    return (
        f'<text class="note" x="{at:.1f}" y="{height}" '
        f'text-anchor="{anchor}">{escape(mark.text)}</text>'
    )


def _number(value: float) -> str:
    """Return a number as short as it can be told apart."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.6g}"
    return f"{value:.2g}"
