"""What a finished run leaves in its folder besides checkpoints and log."""

import platform
import sys
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

import jaxmetric as jm
from jaxmetric.cli import configs, folders, measure, summary
from jaxmetric.cli.prepare import Prepared
from jaxmetric.cli.records import Record
from jaxmetric.training import TrainState

_GALLERY_QUERIES, _GALLERY_NEIGHBORS = 8, 8


class Trained(Protocol):
    """What is told of training.

    Attributes:
      state: after the last step.
      step: how many steps were taken.
      seconds: {"compile", "train", "evaluate"}.
    """

    @property
    def state(self) -> TrainState: ...  # noqa: D102

    @property
    def step(self) -> int: ...  # noqa: D102

    @property
    def seconds(self) -> dict[str, float]: ...  # noqa: D102


def identity(prepared: Prepared) -> dict[str, Any]:
    """Return what every checkpoint tells of its run, to be compared on resumption."""
    split = prepared.split
    return {
        "config": prepared.config,
        "config_sha256": configs.fingerprint(prepared.config),
        "data_sha256": split.sha256,
        "class_names": list(split.train.class_names),
        "held_out": list(split.held_out.class_names),
    }


def describe(prepared: Prepared, trained: Trained, command: str) -> dict[str, Any]:
    """Return what summary.json tells besides the metrics."""
    split, program = prepared.split, prepared.program
    seconds = {f"{name}_seconds": round(s, 3) for name, s in trained.seconds.items()}
    return {
        "status": "finished",
        "command": command,
        "steps": trained.step,
        "epochs": trained.step / program.sampler.steps_per_epoch,
        "skipped_steps": int(trained.state.skipped),
        "batch": [program.sampler.num_classes, program.sampler.m_per_class],
        "loss": {"name": prepared.loss.name, **prepared.loss.settings},
        "model": program.model,
        "num_parameters": sum(x.size for x in jax.tree.leaves(trained.state.params)),
        "parameters_sha256": summary.sha256_of(trained.state.params),
        "data": {
            "name": split.name,
            "sha256": split.sha256,
            "train_rows": len(split.train),
            "held_out_rows": len(split.held_out),
            "skipped": list(split.skipped),
        },
        "classes": {
            "train": list(split.train.class_names),
            "held_out": list(split.held_out.class_names),
        },
        "compilation_seconds": seconds.pop("compile_seconds"),
        "training_seconds": seconds.pop("train_seconds"),
        "evaluation_seconds": seconds.pop("evaluate_seconds"),
        "devices": program.devices.count,
        "versions": {
            "jaxmetric": jm.__version__,
            "jax": jax.__version__,
            "python": platform.python_version(),
        },
    }


def write_figures(
    prepared: Prepared, folder: Path, records: list[Record], state: TrainState
) -> None:
    """Write the curves and, for images, queries with their neighbours.

    What goes wrong is told in one line: a run is worth more than its pictures.
    """
    try:
        _write_figures(prepared, folder, records, state)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        print(
            f"jaxmetric: warning: {folder}: not all pictures were written "
            f"({type(error).__name__}: {first})",
            file=sys.stderr,
        )


def _write_figures(
    prepared: Prepared, folder: Path, records: list[Record], state: TrainState
) -> None:
    """Write them, or raise."""
    from jaxmetric.cli import figures

    curves = [r for r in records if r.get("kind") in ("train", "eval")]
    figures.write_curves(folder / folders.CURVES, curves)
    held_out = prepared.split.held_out
    if not held_out.is_image or len(held_out) < 2:
        return
    assert held_out.labels is not None
    rows = _gallery_rows(held_out.labels)
    k = min(_GALLERY_NEIGHBORS, len(held_out) - 1)
    embed = measure.embedder(prepared.program.embed_fn)
    embeddings = embed(state.params, state.model_state, held_out.inputs)
    indices, distances = measure.neighbors_of(embeddings, rows, k)
    figures.write_gallery(
        folder / folders.GALLERY,
        inputs=held_out.inputs,
        labels=held_out.labels,
        class_names=held_out.class_names,
        neighbor_indices=indices,
        query_rows=rows,
        distances=distances,
    )


def _gallery_rows(labels: np.ndarray) -> np.ndarray:
    """Return rows of classes spread evenly over all, several of few classes."""
    order = np.argsort(labels, kind="stable")
    places = np.linspace(0, len(order), _GALLERY_QUERIES, endpoint=False).astype(int)
    return np.unique(order[places])
