"""The goals of the library, and what a result file says of each.

  python -m benchmarks.targets benchmarks/results/cpu.jsonl

Two CPU cores, float32 at highest precision, unit rows of 128 numbers, value and
gradient under one jit. A ratio is the median over rounds, with least and greatest.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import printing, results
from benchmarks.results import Result, ResultFile

Found = dict[str, float] | None


@dataclass(frozen=True)
class Target:
    """A goal.

    Attributes:
      figure: what is measured.
      goal: what it is to be.
      is_upper: whether at most, or at least.
      unit: of both.
      measure: finds it in a file: median, min and max, or None.
    """

    figure: str
    goal: float
    is_upper: bool
    unit: str
    measure: Callable[[ResultFile], Found]

    def is_met(self, found: dict[str, float]) -> bool:
        """Tell whether the median is on the right side."""
        value = found["median"]
        return value <= self.goal if self.is_upper else value >= self.goal


def targets() -> tuple[Target, ...]:
    """Return the goals, in the order of their table."""
    return (
        _over_matmul("batch_hard_triplet_loss", 1.0),
        _over_matmul("batch_all_triplet_loss", 3.0),
        _over_matmul("semi_hard_triplet_loss", 3.0),
        _over_matmul("supervised_contrastive_loss", 4.0),
        _over_matmul("nt_xent_loss", 4.0),
        _over_matmul("multi_similarity_loss", 4.0),
        _over_matmul("contrastive_loss", 4.0),
        _over_matmul("batch_all_triplet_loss", 60.0, topic="classes", batch=2048),
        _over_ours("pml_all_triplets", 100.0, batch=1024),
        _over_ours("pml_batch_hard", 6.0, batch=1024),
        _over_ours("pml_supcon", 5.0, batch=2048),
        Target(
            "64 margins over one, batch-all (value), B=512",
            16.0,
            True,
            "x",
            lambda file: _extra(
                _first(file.of("margins", num_margins=64, batch=512, **_BATCH_ALL)),
                "forward_over_one",
            ),
        ),
        Target(
            "16 models over one, a step of `sweep` over one of `train`, digits",
            8.0,
            True,
            "x",
            lambda file: _extra(
                _first(file.of("population", num_margins=16, function="conv")),
                "over_one",
            ),
        ),
        Target(
            "temporaries of batch-all, value and gradient, B=16384",
            0.5,
            True,
            "GiB",
            lambda file: _gib(_temp(file.of("memory", batch=16384, **_BATCH_ALL))),
        ),
        Target(
            "resident memory of the same run",
            0.5,
            True,
            "GiB",
            lambda file: _gib(
                _resident(file.of("memory", batch=16384, **_BATCH_ALL)),
            ),
        ),
        Target(
            "temporaries of evaluate, 60,000 x 60,000, D=128",
            1.0,
            True,
            "GiB",
            lambda file: _gib(_temp(file.of("retrieval", batch=60_000, dim=128))),
        ),
        Target(
            "resident memory of the same run",
            1.0,
            True,
            "GiB",
            lambda file: _gib(_resident(file.of("retrieval", batch=60_000, dim=128))),
        ),
        Target(
            "evaluate, 20,000 rows in ten classes, D=64",
            120.0,
            True,
            "s",
            lambda file: _forward(
                _first(file.of("retrieval", workload="ten_classes", batch=20_000))
            ),
        ),
        Target(
            "greatest slope of memory over the batch, all losses, blocks",
            1.1,
            True,
            "",
            _greatest_slope,
        ),
    )


_BATCH_ALL = {"function": "batch_all_triplet_loss", "block_size": None}


def table(file: ResultFile) -> Iterator[str]:
    """Yield the rows of the table in Markdown."""
    yield "| figure | target | measured (min..max) | |"
    yield "|---|---|---|---|"
    for target in targets():
        found = target.measure(file)
        side = "at most" if target.is_upper else "at least"
        goal = f"{side} {target.goal:g} {target.unit}".rstrip()
        if found is None:
            yield f"| {target.figure} | {goal} | - | not measured |"
            continue
        verdict = "met" if target.is_met(found) else "MISSED"
        is_single = found["min"] == found["max"]
        text = f"{found['median']:.3g}" if is_single else printing.ranged(found)
        if "cpu" in found:
            text += f", processor time {found['cpu']:.3g}"
        yield f"| {target.figure} | {goal} | {text} | {verdict} |"
    file_blocks = file.of("blocks", block_size=None)
    factors = [r.extra["over_best"]["median"] for r in file_blocks if _has_best(r)]
    if factors:
        yield (
            f"| default block over the best of the sweep, {len(factors)} sizes and "
            f"losses | | {max(factors):.3g} at most | |"
        )


def _over_matmul(
    function: str, goal: float, *, topic: str = "losses", batch: int = 4096
) -> Target:
    """A loss and its gradient over the yardstick."""
    name = function.removesuffix("_loss")
    figure = f"{name}, B={batch}" + (", 4 classes" if topic == "classes" else "")

    def measure(file: ResultFile) -> Found:
        found = file.of(topic, function=function, batch=batch, dim=128)
        result = _first(found)
        return None if result is None else result.gradient_ratio

    return Target(figure, goal, True, "x", measure)


def _over_ours(function: str, goal: float, *, batch: int) -> Target:
    """A peer over ours, value and gradient."""

    def measure(file: ResultFile) -> Found:
        result = _first(file.of("peers", function=function, batch=batch, dim=128))
        return _extra(result, "gradient_over_ours")

    return Target(f"{function} over ours, B={batch}", goal, False, "x", measure)


def _first(found: list[Result]) -> Result | None:
    """Return the first result, at the precision and dtype of the table."""
    usual = [r for r in found if (r.dtype, r.precision) == ("float32", "highest")]
    return usual[0] if usual else None


def _extra(result: Result | None, name: str) -> Found:
    """Return something particular to a topic."""
    return None if result is None else result.extra.get(name)


def _forward(result: Result | None) -> Found:
    """Return the seconds of a value."""
    return None if result is None else result.forward


def _temp(found: list[Result]) -> int | None:
    """Return the temporaries of the result that has them."""
    return next((r.temp_bytes for r in found if r.temp_bytes is not None), None)


def _resident(found: list[Result]) -> int | None:
    """Return the growth of the resident set of the result that has it."""
    values = (r.extra.get("resident_bytes") for r in found)
    return next((value for value in values if value is not None), None)


def _gib(value: int | None) -> Found:
    """Return bytes as a single number of GiB."""
    if value is None:
        return None
    gib = value / 2**30
    return {"median": gib, "min": gib, "max": gib}


def _greatest_slope(file: ResultFile) -> Found:
    """Return the range of the slopes, the greatest as what counts."""
    found = file.of("memory", batch=16384)
    slopes = [r.extra["slope"] for r in found if "slope" in r.extra]
    if not slopes:
        return None
    return {"median": max(slopes), "min": min(slopes), "max": max(slopes)}


def _has_best(result: Result) -> bool:
    """Tell whether a sweep had something to compare the default with."""
    return bool(result.extra.get("over_best"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets")
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    file = results.read(*options.files)
    rows = list(table(file))
    print("\n".join(rows))
    return int(any("MISSED" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
