"""Plots of a result file: time and memory over the batch, time over margins.

  python -m benchmarks.plots benchmarks/results/cpu.jsonl benchmarks/results

A plot that the file has no results for is left out.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.results import Result, ResultFile

Curve = dict[str, list[tuple[float, float]]]


def draw(file: ResultFile, folder: Path) -> list[Path]:
    """Write the plots that the file has results for, and return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    timed = [r for r in _of_batch(file) if r.topic in ("losses", "peers")]
    plots: tuple[tuple[str, str, str, Curve], ...] = (
        (
            "time.png",
            "rows B",
            "value and gradient, ms",
            _curves(timed, lambda r: r.batch, _milliseconds),
        ),
        (
            "memory.png",
            "rows B",
            "temporaries, MiB",
            _curves(_of_batch(file), lambda r: r.batch, _mebibytes),
        ),
        (
            "margins.png",
            "margins",
            "value, ms",
            _curves(file.of("margins"), lambda r: r.num_margins, _value_milliseconds),
        ),
    )
    written = []
    for name, x, y, curves in plots:
        if curves:
            _draw(folder / name, x, y, curves)
            written.append(folder / name)
    return written


def _of_batch(file: ResultFile) -> list[Result]:
    """Return the results with the library's block, at the usual width."""
    found = [*file.of("losses"), *file.of("peers"), *file.of("memory")]
    return [
        r
        for r in found
        if r.block_size is None and r.dim == 128 and r.workload in ("pk4", "")
    ]


def _curves(
    found: Iterable[Result],
    x: Callable[[Result], float | None],
    y: Callable[[Result], float | None],
) -> Curve:
    """Return sorted points by function; of two at one place the later."""
    curves: dict[str, dict[float, float]] = {}
    for result in found:
        place, value = x(result), y(result)
        if place is not None and value:
            curves.setdefault(result.function, {})[place] = value
    return {name: sorted(points.items()) for name, points in curves.items()}


def _milliseconds(result: Result) -> float | None:
    """Return the time of value and gradient; of the product for the yardstick."""
    is_floor = result.function in ("matmul", "copy")
    timing = result.forward if is_floor else result.gradient
    return None if timing is None else 1e3 * timing["median"]


def _value_milliseconds(result: Result) -> float | None:
    """Return the time of the value."""
    return None if result.forward is None else 1e3 * result.forward["median"]


def _mebibytes(result: Result) -> float | None:
    """Return the temporaries."""
    return None if result.temp_bytes is None else result.temp_bytes / 2**20


def _draw(path: Path, x: str, y: str, curves: Curve) -> None:
    """Draw curves on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name, **_style(name))
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    places = sorted({place for points in curves.values() for place, _ in points})
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _style(name: str) -> dict[str, Any]:
    """Return how a curve looks: peers dashed, the yardstick black."""
    if name in ("matmul", "copy"):
        return {"color": "black", "marker": "o", "markersize": 3, "linewidth": 2}
    is_ours = name.endswith("_loss")
    return {"linestyle": "-" if is_ours else "--", "marker": "o", "markersize": 3}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, and print where."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots")
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    for path in draw(results.read(options.file), options.folder):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
