"""The applications end to end, each beside its baselines: one table.

    python -m benchmarks.applications [--only wiki digits] [--data FOLDER] [--seeds 3]

What is measured is in the modules `applications_*` beside this one. Each has `NAMES`,
and a function `run` that gives rows: mappings with "application", "method" and "seed",
and metrics by name.
"""

import argparse
import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import benchmarks

_KEYS = ("application", "method", "seed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return an exit code."""
    modules = _modules()
    names = [name for module in modules for name in module.NAMES]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.applications", description="One table of all."
    )
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("JAXMETRIC_TEST_DATA"),
        help="folder of the data sets; JAXMETRIC_TEST_DATA by default",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method")
    parser.add_argument(
        "--reduced", action="store_true", help="a few steps: whether all of it works"
    )
    parser.add_argument("--json", action="store_true", help="every row as JSON")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for module in modules:
        if set(module.NAMES) & set(options.only):
            for row in module.run(
                None if options.data is None else Path(options.data),
                only=set(options.only),
                num_seeds=1 if options.reduced else options.seeds,
                is_reduced=options.reduced,
            ):
                rows.append(row)
                if options.json:
                    print(json.dumps(row), flush=True)
                else:
                    print(f"{row['application']}: {row['method']}", file=sys.stderr)
    if not options.json:
        print(table(rows))
    return 0


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return one table an application: medians over the seeds, and their range."""
    parts = []
    for application in dict.fromkeys(row["application"] for row in rows):
        chosen = [row for row in rows if row["application"] == application]
        metrics = list(
            dict.fromkeys(key for row in chosen for key in row if key not in _KEYS)
        )
        lines = [f"| {application} | {' | '.join(metrics)} |"]
        lines.append("|---" * (len(metrics) + 1) + "|")
        for method in dict.fromkeys(row["method"] for row in chosen):
            runs = [row for row in chosen if row["method"] == method]
            cells = [_cell([r[m] for r in runs if m in r]) for m in metrics]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cell(values: Sequence[float]) -> str:
    """Return the median of runs, and how far they lie apart."""
    if not values:
        return "-"
    text = f"{median(values):.4g}"
    if max(values) > min(values):
        text += f" ({min(values):.4g} to {max(values):.4g})"
    return text


def _modules() -> list[Any]:
    """Return the modules of the applications, by name."""
    found = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__))
    names = [name for name in found if name.startswith("applications_")]
    return [importlib.import_module(f"benchmarks.{name}") for name in names]


if __name__ == "__main__":
    sys.exit(main())
