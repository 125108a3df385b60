"""A run on pairs, as `train` sees it."""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import jaxmetric as jm
from jaxmetric.cli import configs, folders, outcome, summary
from jaxmetric.cli.measure import Metrics
from jaxmetric.cli.paired.measure import embedder
from jaxmetric.cli.paired.prepare import PairedPrepared
from jaxmetric.cli.records import Record
from jaxmetric.cli.report.ending import guarded
from jaxmetric.training import TrainState


class Pairs:
    """What `train` asks of a run on pairs; see `jaxmetric.cli.subjects.Subject`."""

    baseline_kind = "baseline"

    def __init__(self, prepared: PairedPrepared):
        self.prepared = prepared

    def evaluation(self) -> Callable[[Any, Any], Metrics]:
        """Return a function (params, model_state) -> metrics on held-out pairs."""
        prepared, program = self.prepared, self.prepared.program
        embed = embedder(program.embed_fn, program.devices)

        def evaluate(params: Any, model_state: Any) -> Metrics:
            return prepared.task.evaluate(embed(params, model_state), prepared.split)

        return evaluate

    def baseline(self) -> dict[str, Any]:
        """Return the metrics of what is to be beaten, and its name."""
        found = self.prepared.task.baseline(self.prepared.split)
        return {} if found is None else {"name": found[0], **found[1]}

    def identity(self) -> dict[str, Any]:
        """Return what every checkpoint tells."""
        prepared = self.prepared
        return {
            "config": prepared.config,
            "config_sha256": configs.fingerprint(prepared.config),
            "data_sha256": prepared.split.sha256,
            "class_names": list(prepared.split.train.class_names),
            "held_out": [],
        }

    def files(self) -> Mapping[str, str | bytes]:
        """Return what the kind of pairs keeps with the run."""
        return self.prepared.task.files(self.prepared.split)

    def describe(self, trained: outcome.Trained, command: str) -> dict[str, Any]:
        """Return what summary.json tells besides the metrics."""
        split, program = self.prepared.split, self.prepared.program
        return {
            "status": "finished",
            "command": command,
            "kind": self.prepared.task.name,
            "steps": trained.step,
            "epochs": trained.step / program.sampler.steps_per_epoch,
            "skipped_steps": int(trained.state.skipped),
            "batch": [program.sampler.batch_size],
            "loss": {"name": self.prepared.loss.name, **self.prepared.loss.settings},
            "model": program.model,
            "num_parameters": sum(
                x.size for x in jax.tree.leaves(trained.state.params)
            ),
            "parameters_sha256": summary.sha256_of(trained.state.params),
            "data": {
                "name": split.name,
                "sha256": split.sha256,
                "train_rows": len(split.train),
                "held_out_rows": len(split.held_out),
            },
            "categories": list(split.train.class_names),
            "compilation_seconds": round(trained.seconds["compile"], 3),
            "training_seconds": round(trained.seconds["train"], 3),
            "evaluation_seconds": round(trained.seconds["evaluate"], 3),
            "devices": program.devices.count,
            "versions": {
                "jaxmetric": jm.__version__,
                "jax": jax.__version__,
                "python": platform.python_version(),
            },
        }

    def write_figures(
        self, folder: Path, records: list[Record], state: TrainState
    ) -> None:
        """Write the curves."""
        del state
        from jaxmetric.cli import figures

        curves = [r for r in records if r.get("kind") in ("train", "eval")]
        try:
            figures.write_curves(folder / folders.CURVES, curves)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:200]
            print(
                f"jaxmetric: warning: {folder}: the curves were not drawn "
                f"({type(error).__name__}: {first})",
                file=sys.stderr,
            )

    def write_report(
        self,
        folder: Path,
        records: Sequence[Mapping[str, Any]],
        state: TrainState,
        told: Mapping[str, Any],
    ) -> None:
        """Write the report; what goes wrong is told in one line."""
        guarded(folder, lambda: self._write_report(folder, records, state, told))

    def _write_report(
        self,
        folder: Path,
        records: Sequence[Mapping[str, Any]],
        state: TrainState,
        told: Mapping[str, Any],
    ) -> None:
        """Write the report, or raise."""
        from jaxmetric.cli.paired.reporting import write

        prepared = self.prepared
        embed = embedder(prepared.program.embed_fn)(state.params, state.model_state)
        write(
            folder,
            prepared.task,
            prepared.split,
            embed,
            config=prepared.config,
            summary=told,
            records=records,
        )

    def beginning(self) -> list[str]:
        """Return lines on what is about to happen."""
        prepared, split = self.prepared, self.prepared.split
        program = prepared.program
        lines = [f"Note: {note}" for note in split.notes]
        lines.append(
            f"{split.name}: {len(split.train):,} pairs to train on, "
            f"{len(split.held_out):,} held out; {prepared.loss.name}, "
            f"{program.total_steps:,} steps of {program.sampler.batch_size}"
        )
        return lines

    def print_table(self, blocks: Mapping[str, Mapping[str, Any]]) -> None:
        """Print the metrics before and after."""
        task = self.prepared.task
        shown = {}
        for name, block in blocks.items():
            if name != "baseline":
                shown[name] = block
            elif "name" in block:
                shown[str(block["name"])] = block
        summary.print_table(task.title(self.prepared.split), shown, task.columns)
