"""Compare two result files and flag what moved by more than its spread.

  python -m benchmarks.compare OLD.jsonl NEW.jsonl

Times are compared as ratios to the yardstick of their own run, where there is one, so
that a machine that was slower for everything flags nothing. A time has moved if each
median lies outside the range of the other. Memory, errors and statuses are compared as
they are. The exit status is 1 if something got worse.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import printing, results
from benchmarks.results import Result

# Compilers change layouts a little from version to version.
_SAME_MEMORY = 0.01
# An error below this is rounding; beyond it, a tenfold one is a change.
_SMALL_ERROR, _MORE_ERROR = 1e-5, 10.0


class Move(NamedTuple):
    """Something that is not what it was.

    Attributes:
      result: the new one.
      what: "fwd", "fwd+grad", "memory", "error", "status".
      before, after: as text.
      factor: new over old; None where it means nothing.
      is_worse: whether it is larger, or failed.
    """

    result: Result
    what: str
    before: str
    after: str
    factor: float | None
    is_worse: bool


def moves(old: results.ResultFile, new: results.ResultFile) -> Iterator[Move]:
    """Yield what moved, for everything that both files have."""
    for key, after in new.results.items():
        before = old.results.get(key)
        if before is not None:
            yield from _moves_of(before, after)


def _moves_of(old: Result, new: Result) -> Iterator[Move]:
    """Yield what moved of one thing."""
    if old.status != new.status:
        is_worse = new.status != "ok"
        yield Move(new, "status", old.status, new.status, None, is_worse)
        return
    for what, name in (("fwd", "forward"), ("fwd+grad", "gradient")):
        field = f"{name}_ratio"
        if not (getattr(old, field) and getattr(new, field)):
            field = name
        before, after = getattr(old, field), getattr(new, field)
        if before and after and _is_apart(before, after):
            factor = after["median"] / before["median"]
            unit = " s" if field == name else " x matmul"
            texts = (printing.ranged(before) + unit, printing.ranged(after) + unit)
            yield Move(new, what, *texts, factor, factor > 1)
    if old.temp_bytes is not None and new.temp_bytes is not None:
        difference = new.temp_bytes - old.temp_bytes
        if abs(difference) > _SAME_MEMORY * max(old.temp_bytes, 1):
            texts = (printing.size(old.temp_bytes), printing.size(new.temp_bytes))
            factor = new.temp_bytes / max(old.temp_bytes, 1)
            yield Move(new, "memory", *texts, factor, difference > 0)
    for what, name in (("error", "error_value"), ("error grad", "error_gradient")):
        before, after = getattr(old, name), getattr(new, name)
        if before is None or after is None:
            continue
        if after > _MORE_ERROR * max(before, _SMALL_ERROR):
            yield Move(new, what, f"{before:.0e}", f"{after:.0e}", None, True)


def _is_apart(a: dict[str, float], b: dict[str, float]) -> bool:
    """Tell whether each of two medians lies outside the range of the other."""
    in_a = a["min"] <= b["median"] <= a["max"]
    in_b = b["min"] <= a["median"] <= b["max"]
    return not in_a and not in_b


def _label(result: Result) -> str:
    """Return what a result is of, in a few words."""
    parts = [result.topic, result.function, result.workload, f"B={result.batch}"]
    parts.append(f"D={result.dim}")
    if result.block_size is not None:
        parts.append(f"block={result.block_size}")
    if result.num_margins is not None:
        parts.append(f"margins={result.num_margins}")
    return " ".join(part for part in parts if part)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what moved; return 1 if something got worse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args(arguments)
    old, new = results.read(options.old), results.read(options.new)
    both = old.results.keys() & new.results.keys()
    found = list(moves(old, new))
    for move in found:
        sign = "worse " if move.is_worse else "better"
        factor = "" if move.factor is None else f"  ({move.factor:.2f} x)"
        what = f"{move.what}: {move.before} -> {move.after}{factor}"
        print(f"{sign}  {_label(move.result)}  {what}")
    print(
        f"{len(both)} in both files, {len(found)} moved; "
        f"{len(old.results) - len(both)} only in {options.old}, "
        f"{len(new.results) - len(both)} only in {options.new}"
    )
    return int(any(move.is_worse for move in found))


if __name__ == "__main__":
    sys.exit(main())
