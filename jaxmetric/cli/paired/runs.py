"""A trained run of pairs, measured and used by the other commands."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxmetric as jm
from jaxmetric.cli import configs, folders, summary
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.paired.measure import EmbedSide, embedder
from jaxmetric.cli.paired.sections import SIDES
from jaxmetric.cli.paired.split import PairedSplit
from jaxmetric.cli.paired.tasks import Task, task_of
from jaxmetric.cli.run_options import EmbedOptions, EvalOptions

# What `eval` offers for classes alone.
_OF_CLASSES = (
    "query",
    "gallery",
    "groups",
    "rerank",
    "verification",
    "pairs",
    "far",
    "roc",
    "few_shot",
)


class PairedRun(NamedTuple):
    """A trained run of pairs.

    Attributes:
      folder: where it is.
      options: of its configuration.
      task: the kind of pairs.
      embed: the trained encoders.
      fingerprint: a hash of their parameters, the same for the same embeddings.
    """

    folder: Path
    options: TrainOptions
    task: Task
    embed: EmbedSide
    fingerprint: str

    def held_out(self) -> PairedSplit:
        """Return the data of the run, split as it was."""
        return self.task.split(self.options)


def is_paired(run: str) -> bool:
    """Return whether a folder is that of a run of pairs.

    Raises:
      UsageError: it is not the folder of a run.
    """
    config = folders.check_run(run) / folders.CONFIG
    return configs.read_config(config, TrainOptions).model.kind == "towers"


def load_paired(run: str) -> PairedRun:
    """Return a run of pairs, from its newest intact checkpoint.

    Raises:
      UsageError, CheckpointError: it is damaged, or no run of pairs.
    """
    folder = folders.check_run(run)
    options = configs.read_config(folder / folders.CONFIG, TrainOptions)
    task = task_of(options)
    if task is None:
        raise UsageError(f"{run}: names no --query and --key in its {folders.CONFIG}.")
    task.reload(folder, options)
    embed_fn, params, model_state, _ = jm.training.load_run(folder)
    embed = embedder(embed_fn)(params, model_state)
    fingerprint = summary.sha256_of((params, model_state))
    return PairedRun(folder, options, task, embed, fingerprint)


def evaluate(options: EvalOptions) -> None:
    """Run `jaxmetric eval` on a run of pairs.

    Raises:
      UsageError, CheckpointError, DataError: mistakes.
    """
    for name in _OF_CLASSES:
        if getattr(options, name):
            raise UsageError(
                f"--{name.replace('_', '-')} is about classes, and {options.run} was "
                "trained on pairs. Leave it out."
            )
    run = load_paired(options.run)
    if options.data is None:
        split = run.held_out()
        title = f"{options.run}: {len(split.held_out):,} pairs held out"
    else:
        split = run.task.measured_on(options.data, run.options)
        title = f"{options.data}: {len(split.held_out):,} pairs"
    metrics = run.task.evaluate(run.embed, split)
    if options.json:
        print(json.dumps({k: v if v == v else None for k, v in metrics.items()}))
    else:
        summary.print_metrics(title, metrics)


def embed(options: EmbedOptions) -> dict[str, np.ndarray]:
    """Return the arrays that `jaxmetric embed` writes for a run of pairs.

    Raises:
      UsageError, CheckpointError, DataError: mistakes.
    """
    run = load_paired(options.run)
    arrays: dict[str, Any] = {}
    labels = None
    for side in SIDES if options.side is None else (options.side,):
        rows, labels = run.task.load_side(options.data, side, run.options)
        arrays[f"{side}_embeddings"] = run.embed(side, rows)
    if labels is not None:
        arrays["labels"] = labels
    return arrays
