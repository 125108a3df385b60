"""What a run comes to: summary.json, and the table on the screen."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmetric.cli.records import write_atomically

_COLUMNS = {"recall_at_1": "Recall@1", "mean_average_precision_at_r": "MAP@R"}


def sha256_of(tree: Any) -> str:
    """Return the sha256 of all numbers of a pytree of arrays, in order."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json, the last file of a finished run."""
    write_atomically(path, json.dumps(summary, indent=2, allow_nan=False) + "\n")


def read_summary(path: Path) -> dict[str, Any] | None:
    """Return summary.json, None where a run has none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def print_table(
    title: str,
    blocks: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, str] = _COLUMNS,
) -> None:
    """Print one row of retrieval metrics for each block.

    Args:
      title: above the table.
      blocks: metrics by name, the one called "trained" in bold.
      columns: headings by metric; a metric that no block has is left out.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    known = [key for key in columns if any(key in block for block in blocks.values())]
    for key in known:
        table.add_column(columns[key], justify="right")
    for name, metrics in blocks.items():
        cells = [_percent(metrics.get(key)) for key in known]
        table.add_row(name, *cells, style="bold" if name == "trained" else None)
    Console(highlight=False, soft_wrap=True).print(table)


def print_metrics(title: str, metrics: Mapping[str, Any]) -> None:
    """Print all metrics of one evaluation, a row each; texts as they are."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in metrics.items():
        is_count = isinstance(value, int) and not isinstance(value, bool)
        cell = f"{value:,}" if is_count else value
        table.add_row(name, cell if isinstance(cell, str) else _percent(value))
    Console(highlight=False, soft_wrap=True).print(table)


def _percent(value: Any) -> str:
    """Return a share as a percentage, a dash if there is none."""
    return "-" if value is None else f"{100 * value:.2f} %"
