"""From a run of pairs to its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmetric.cli import folders, summary
from jaxmetric.cli.paired.measure import EmbedSide
from jaxmetric.cli.paired.split import PairedSplit
from jaxmetric.cli.paired.tasks import Task
from jaxmetric.cli.records import read_records
from jaxmetric.cli.report.facts import Told
from jaxmetric.cli.report.page import REPORT


def write(
    folder: Path,
    task: Task,
    split: PairedSplit,
    embed: EmbedSide,
    *,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> None:
    """Write the report of a run.

    Args:
      folder: of the run.
      task, split: the kind of pairs, and the data.
      embed: the trained encoders.
      config, summary, records: of its files; see `Told`.
      notes: what is odd.
    """
    from jaxmetric.cli.report.paired import write_paired_page

    data = {
        "data": split.name,
        "trained on": f"{len(split.train):,} pairs",
        "held out": f"{len(split.held_out):,} pairs",
    }
    for side, name in config.get("pairs", {}).items():
        if side in ("query", "key"):
            shape = " x ".join(map(str, split.train.side(side).shape[1:]))
            data[side] = f"{name}, examples of {shape or 'one id'}"
    if split.train.class_names:
        data["categories"] = ", ".join(split.train.class_names[:50])
    told = Told(
        folder.absolute().name,
        task.title(split),
        config,
        summary,
        records,
        task.columns,
        data,
        notes,
    )
    write_paired_page(folder / REPORT, told, task.report_parts(embed, split))


def report(run: str) -> Path:
    """Write the report of a run that is there, and return where it is.

    Raises:
      UsageError, CheckpointError, DataError: mistakes; nothing has been written.
    """
    from jaxmetric.cli import configs
    from jaxmetric.cli.paired.runs import load_paired

    loaded = load_paired(run)
    folder, split = loaded.folder, loaded.held_out()
    told = summary.read_summary(folder / folders.SUMMARY) or {}
    notes = [] if told else ["The run has not finished: this is how far it came."]
    if told.get("data", {}).get("sha256") not in (None, split.sha256):
        notes.append("The data has changed since the run was trained.")
    write(
        folder,
        loaded.task,
        split,
        loaded.embed,
        config=configs.to_mapping(loaded.options),
        summary=told,
        records=read_records(folder / folders.METRICS),
        notes=notes,
    )
    return folder / REPORT
