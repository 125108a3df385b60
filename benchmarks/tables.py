"""The performance table of the README, generated from a result file.

  python -m benchmarks.tables benchmarks/results/cpu.jsonl README.md

rewrites what stands between the two marks; a test keeps file and README equal.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import printing, programs, results, specs
from benchmarks.results import Result, ResultFile

BEGIN, END = "<!-- performance:begin -->", "<!-- performance:end -->"
_BETWEEN = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)

_SIZES = (1024, 4096)
_LIBRARIES = {"pml": "pytorch-metric-learning", "naive": "naive JAX", "optax": "Optax"}
_PEERS = {
    "pml_all_triplets": "batch_all_triplet_loss",
    "pml_batch_hard": "batch_hard_triplet_loss",
    "pml_nt_xent": "nt_xent_loss",
    "pml_supcon": "supervised_contrastive_loss",
    **programs.JAX_PEERS,
}


def markdown(file: ResultFile) -> str:
    """Return the table, with a sentence on what was measured where."""
    results_of_losses = [
        r for r in file.of("losses", dim=128, workload="pk4") if _is_usual(r)
    ]
    by_size = {(r.function, r.batch): r for r in results_of_losses}
    sizes = [s for s in _SIZES if any(size == s for _, size in by_size)]
    names = [
        name for name in specs.HEADLINES if any((name, s) in by_size for s in sizes)
    ]
    header, rule = ["loss"], ["---"]
    for size in sizes:
        header += [f"B = {size}", "x `x @ x.T`"]
        rule += ["---:", "---:"]
    header += [f"memory, B = {sizes[-1]}" if sizes else "memory", "others, same cores"]
    rule += ["---:", "---"]
    lines = [_line(header), _line(rule)]
    for name in names:
        cells = [f"`{name}`"]
        for size in sizes:
            result = by_size.get((name, size))
            cells += _time_cells(result)
        cells += [_memory(by_size.get((name, sizes[-1]))), _others(file, name)]
        lines.append(_line(cells))
    environment = file.environments[results_of_losses[-1].key]
    return "\n".join([*lines, "", _caption(environment)])


def replaced(readme: str, table: str) -> str:
    """Return the text of a README with another table between the marks.

    Raises:
      ValueError: the marks are not there.
    """
    if not _BETWEEN.search(readme):
        raise ValueError(f"the README must have the lines {BEGIN} and {END}")
    return _BETWEEN.sub(lambda _: f"{BEGIN}\n{table}\n{END}", readme)


def _is_usual(result: Result) -> bool:
    """Tell whether a result is one of the table's dtype and precision."""
    return (result.dtype, result.precision) == ("float32", "highest")


def _line(cells: Sequence[str]) -> str:
    """Return a row of Markdown."""
    return f"| {' | '.join(cells)} |"


def _time_cells(result: Result | None) -> list[str]:
    """Return time, and ratio to the yardstick with its range."""
    if result is None or result.gradient is None:
        return ["-", "-"]
    time = printing.seconds(result.gradient["median"])
    return [time, printing.ranged(result.gradient_ratio, 2)]


def _memory(result: Result | None) -> str:
    """Return the temporaries."""
    if result is None or result.temp_bytes is None:
        return "-"
    return printing.size(result.temp_bytes)


def _others(file: ResultFile, name: str) -> str:
    """Return what the peers of a loss take, each at the largest size it was timed."""
    texts = []
    for peer, judge in _PEERS.items():
        found = [r for r in file.of("peers", function=peer) if judge == name]
        timed = [r for r in found if r.extra.get("gradient_over_ours")]
        refused = [r for r in found if r.status.startswith("needs")]
        library = _LIBRARIES[peer.split("_")[0]]
        if timed:
            best = max(timed, key=lambda r: r.batch)
            factor = best.extra["gradient_over_ours"]["median"]
            texts.append(f"{library} {factor:.2g} x (B = {best.batch})")
        if refused:
            least = min(refused, key=lambda r: r.batch)
            needs = least.status.split(",")[0]
            texts.append(f"{'' if timed else library + ' '}{needs} at {least.batch}")
    return "; ".join(texts) or "-"


def _caption(environment: dict[str, Any]) -> str:
    """Return the sentence on how and where."""
    versions = environment["versions"]
    peers = [
        f"{name} {versions[name]}"
        for name in ("optax", "torch", "pytorch-metric-learning")
        if name in versions
    ]
    return (
        "Value and gradient under one `jit`, 4 examples a class, 128 numbers a row, "
        "float32; the median, and as a multiple of a bare `x @ x.T` of the same run "
        "(in brackets least and greatest). Memory: temporaries besides arguments and "
        f"results. {environment['device']}, jax {versions['jax']}, "
        f"{', '.join(peers)}. Made by `python -m benchmarks`."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table into a README, or print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables")
    parser.add_argument("file", type=Path)
    parser.add_argument("readme", type=Path, nargs="?", help="printed without it")
    options = parser.parse_args(arguments)
    table = markdown(results.read(options.file))
    if options.readme is None:
        print(table)
    else:
        options.readme.write_text(replaced(options.readme.read_text(), table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
