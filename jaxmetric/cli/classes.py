"""A run on classes: rows with labels, whole classes of them held out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmetric.cli import measure, outcome, summary, texts
from jaxmetric.cli.measure import Metrics
from jaxmetric.cli.prepare import Prepared
from jaxmetric.cli.records import Record
from jaxmetric.cli.report.ending import write_report
from jaxmetric.training import TrainState


class Classes:
    """What `train` asks of a run on classes; see `jaxmetric.cli.subjects.Subject`."""

    baseline_kind = "pixels"

    def __init__(self, prepared: Prepared):
        self.prepared = prepared

    def evaluation(self) -> Callable[[Any, Any], Metrics]:
        """Return a function (params, model_state) -> metrics on held-out classes."""
        held_out = self.prepared.split.held_out
        assert held_out.labels is not None
        labels, spread = held_out.labels, self.prepared.program.devices
        embed = measure.embedder(self.prepared.program.embed_fn, spread)

        def evaluate(params: Any, model_state: Any) -> Metrics:
            rows = embed(params, model_state, held_out.inputs)
            return measure.evaluate_spread(spread, rows, labels)

        return evaluate

    def baseline(self) -> dict[str, Any]:
        """Return the metrics of the raw inputs, and of texts those of tf-idf."""
        prepared, split = self.prepared, self.prepared.split
        if split.train.texts is not None and split.held_out.texts is not None:
            rows = texts.tf_idf_rows(split.train.texts, split.held_out.texts)
            assert split.held_out.labels is not None
            return measure.evaluate(rows, split.held_out.labels)
        return measure.evaluate_pixels(
            prepared.split.held_out, prepared.program.devices
        )

    def identity(self) -> dict[str, Any]:
        """Return what every checkpoint tells."""
        return outcome.identity(self.prepared)

    def files(self) -> Mapping[str, str | bytes]:
        """Return the vocabulary of texts; of anything else config.yaml tells all."""
        vocabulary = self.prepared.split.vocabulary
        return {} if vocabulary is None else {texts.VOCABULARY: vocabulary.to_json()}

    def describe(self, trained: outcome.Trained, command: str) -> dict[str, Any]:
        """Return what summary.json tells besides the metrics."""
        return outcome.describe(self.prepared, trained, command)

    def write_figures(
        self, folder: Path, records: list[Record], state: TrainState
    ) -> None:
        """Write the curves and, for images, queries with their neighbours."""
        outcome.write_figures(self.prepared, folder, records, state)

    def write_report(
        self,
        folder: Path,
        records: Sequence[Mapping[str, Any]],
        state: TrainState,
        told: Mapping[str, Any],
    ) -> None:
        """Write the report."""
        write_report(self.prepared, folder, records, state, told)

    def beginning(self) -> list[str]:
        """Return lines on what is about to happen."""
        prepared, split = self.prepared, self.prepared.split
        lines = [f"Note: {note}" for note in split.notes]
        if split.skipped:
            lines.append(
                f"Note: {len(split.skipped)} files skipped, first: {split.skipped[0]}"
            )
        sampler = prepared.program.sampler
        lines.append(
            f"{split.name}: {len(split.train):,} rows of {split.train.num_classes:,} "
            f"classes to train on, {len(split.held_out):,} of "
            f"{split.held_out.num_classes:,} held out; {prepared.loss.name}, "
            f"{prepared.program.total_steps:,} steps of {sampler.num_classes} x "
            f"{sampler.m_per_class}"
        )
        return lines

    def print_table(self, blocks: Mapping[str, Mapping[str, Any]]) -> None:
        """Print the metrics before and after."""
        held_out = self.prepared.split.held_out
        title = (
            f"Retrieval among {len(held_out):,} rows of {held_out.num_classes:,} "
            "classes never seen"
        )
        shown = dict(blocks)
        if not held_out.is_image:
            name = "raw features" if held_out.texts is None else "tf-idf"
            shown = {"untrained": blocks["untrained"], name: blocks["pixels"]}
            shown["trained"] = blocks["trained"]
        summary.print_table(title, shown)
