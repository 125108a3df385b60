"""What a sweep comes to: its numbers, the table, and the best model as a run."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import jaxmetric as jm
from jaxmetric.cli import configs, folders, losses, outcome, sweep_figure
from jaxmetric.cli.prepare import Prepared
from jaxmetric.cli.program import Program
from jaxmetric.cli.records import Log, write_atomically
from jaxmetric.cli.report.ending import write_report
from jaxmetric.cli.summary import write_summary
from jaxmetric.cli.sweep_grid import Grid
from jaxmetric.training import TrainState

BEST, RESULTS, PICTURE = "best", "sweep.json", "sweep.png"
MAP_AT_R = "mean_average_precision_at_r"
_MAX_ROWS = 40

Row = dict[str, Any]


class Outcome(NamedTuple):
    """A finished sweep.

    Attributes:
      prepared: the data and the options that all models have.
      grid: the models.
      rows: one mapping a model, in the order of the grid: its place in the grid, its
        metrics on the held-out classes, and how its training ended.
      pixels: metrics of the raw inputs.
      seconds: {"compile", "train", "evaluate"}, of all models together.
      command: the command line.
    """

    prepared: Prepared
    grid: Grid
    rows: list[Row]
    pixels: Mapping[str, Any]
    seconds: dict[str, float]
    command: str

    @property
    def varied(self) -> list[str]:
        """What the models differ in, seeds apart."""
        rates = {point.learning_rate for point in self.grid.points}
        return [*self.grid.varied, *(["learning_rate"] if len(rates) > 1 else [])]

    @property
    def ranking(self) -> list[int]:
        """The models from the best to the worst; of equals the first."""
        return sorted(range(len(self.rows)), key=lambda i: -_map_at_r(self.rows[i]))


class Best(NamedTuple):
    """The best model.

    Attributes:
      index: in the grid.
      prepared: as `train` would have prepared it.
      state: after the last step.
      step, seconds: see `outcome.Trained`.
      untrained: metrics before the first step.
      records: what metrics.jsonl tells of its training.
    """

    index: int
    prepared: Prepared
    state: TrainState
    step: int
    seconds: dict[str, float]
    untrained: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]


def prepared_alone(
    prepared: Prepared, grid: Grid, model: int, program: Program
) -> Prepared:
    """Return a model of the sweep as `train` would have prepared it.

    Args:
      prepared: what all models have.
      grid: the models.
      model: its index.
      program: of its seed.
    """
    seed, place = divmod(model, len(grid.points))
    point, options = grid.points[place], prepared.options
    options = dataclasses.replace(
        options,
        loss=dataclasses.replace(options.loss, **point.hyper),
        optimization=dataclasses.replace(
            options.optimization, learning_rate=point.learning_rate
        ),
        run=dataclasses.replace(options.run, seed=grid.seeds[seed]),
    )
    hyper = {**prepared.loss.hyper, **point.hyper}
    loss = losses.resolve(prepared.loss.name, hyper)
    config = configs.to_mapping(options)
    return Prepared(options, config, loss, prepared.split, program)


def write(folder: Path, result: Outcome, best: Best | None) -> None:
    """Write everything of a sweep into a folder."""
    write_atomically(folder / RESULTS, json.dumps(_told(result), indent=2) + "\n")
    if best is None:
        return
    sweep_figure.write_sweep(
        folder / PICTURE,
        result.rows,
        varied=result.varied,
        raw=result.pixels.get(MAP_AT_R),
    )
    _write_best(folder / BEST, result, best)


def print_table(result: Outcome) -> None:
    """Print one row a model, the best first."""
    from rich.console import Console
    from rich.table import Table

    held_out, rows = result.prepared.split.held_out, result.rows
    table = Table(
        title=f"Retrieval among {len(held_out):,} rows of {held_out.num_classes:,} "
        f"classes never seen, {len(rows):,} models",
        title_justify="left",
    )
    names = [*result.varied, *(["seed"] if len(result.grid.seeds) > 1 else [])]
    for heading in (*names, "Recall@1", "MAP@R", "active", "loss"):
        table.add_column(heading.replace("_", " "), justify="right")
    for place, i in enumerate(result.ranking[:_MAX_ROWS]):
        row = rows[i]
        cells = [f"{row[name]:g}" for name in names]
        cells += [_percent(row.get("recall_at_1")), _percent(row.get(MAP_AT_R))]
        cells += [_percent(row["active_fraction"]), _number(row["loss"])]
        if row["status"] != "finished":
            cells[-1] = row["status"]
        table.add_row(*cells, style=None if place else "bold")
    pixels = result.pixels
    cells = ["raw", *[""] * (len(names) - 1)][: len(names)]
    scores = [_percent(pixels.get(k)) for k in ("recall_at_1", MAP_AT_R)]
    if names:
        table.add_section()
        table.add_row(*cells, *scores, "", "")
    Console(highlight=False, soft_wrap=True).print(table)
    if len(rows) > _MAX_ROWS:
        print(f"and {len(rows) - _MAX_ROWS:,} more in {RESULTS}")


def name_of(result: Outcome, model: int) -> str:
    """Return what a model has of its own, in words."""
    row = result.rows[model]
    names = [*result.grid.varied, "learning_rate", "seed"]
    return ", ".join(f"{name.replace('_', ' ')} {row[name]:g}" for name in names)


def _write_best(folder: Path, result: Outcome, best: Best) -> None:
    """Write the best model as a run like any other."""
    folder.mkdir()
    prepared, row = best.prepared, result.rows[best.index]
    trained = {key: row[key] for key in result.pixels}
    configs.write_config(folder / folders.CONFIG, prepared.config)
    with Log(folder / folders.METRICS, step=0) as log:
        log.write({"step": 0, "kind": "pixels", **result.pixels})
        log.write({"step": 0, "kind": "eval", **best.untrained})
        for record in best.records:
            log.write(dict(record))
        log.write({"step": best.step, "kind": "eval", **trained})
        told_of_steps = log.records
    sampler = prepared.program.sampler
    epoch, position = divmod(best.step, sampler.steps_per_epoch)
    metadata = outcome.identity(prepared) | {
        "step": best.step,
        "phase": prepared.program.phase_at(best.step).name,
        "sampler": {"epoch": epoch, "step": position},
        "skipped_in_a_row": 0,
        "seconds": best.seconds,
    }
    jm.training.save_checkpoint(
        folder / folders.CHECKPOINTS, best.step, best.state, metadata=metadata
    )
    outcome.write_figures(prepared, folder, told_of_steps, best.state)
    told = outcome.describe(prepared, best, result.command)
    told["sweep"] = {
        "models": len(result.rows),
        "varied": _values(result),
        "chosen": {name: row[name] for name in _all(result)},
        "chosen_by": MAP_AT_R,
    }
    blocks = {"untrained": best.untrained, "pixels": result.pixels, "trained": trained}
    write_summary(folder / folders.SUMMARY, told | blocks)
    write_report(prepared, folder, told_of_steps, best.state, told | blocks)


def _told(result: Outcome) -> dict[str, Any]:
    """Return what sweep.json tells."""
    prepared, ranking = result.prepared, result.ranking
    settings = prepared.loss.settings.items()
    fixed = {k: v for k, v in settings if k not in result.grid.varied}
    is_any_finished = any(row["status"] == "finished" for row in result.rows)
    return {
        "status": "finished" if is_any_finished else "diverged",
        "command": result.command,
        "data": {"name": prepared.split.name, "sha256": prepared.split.sha256},
        "held_out": list(prepared.split.held_out.class_names),
        "loss": {"name": prepared.loss.name, **fixed},
        "model": prepared.program.model,
        "steps": prepared.program.total_steps,
        "batch": [
            prepared.program.sampler.num_classes,
            prepared.program.sampler.m_per_class,
        ],
        "varied": _values(result),
        "pixels": _plain(result.pixels),
        "best": ranking[0] if is_any_finished else None,
        "models": [_plain(row) for row in result.rows],
        **{f"{name}_seconds": round(s, 3) for name, s in result.seconds.items()},
        "versions": {"jaxmetric": jm.__version__, "jax": jax.__version__},
    }


def _values(result: Outcome) -> dict[str, list]:
    """Return the values of all that models may differ in, by name."""
    return {name: sorted({r[name] for r in result.rows}) for name in _all(result)}


def _all(result: Outcome) -> list[str]:
    """Return the names of all that models may differ in."""
    return [*result.grid.varied, "learning_rate", "seed"]


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with None for numbers that are not finite: JSON has none."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in values.items()
    }


def _map_at_r(row: Row) -> float:
    """Return what models are ranked by; diverged ones come last."""
    value = row.get(MAP_AT_R)
    return -1.0 if value is None or not math.isfinite(value) else float(value)


def _percent(value: Any) -> str:
    """Return a share as a percentage, a dash if there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{100 * value:.2f} %"


def _number(value: float) -> str:
    """Return a number in four digits, a dash if it is not finite."""
    return f"{value:.4g}" if math.isfinite(value) else "-"
