"""From the folder of a run and its held-out embeddings to what a report tells."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import jaxmetric as jm
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.report.confusion import confuse
from jaxmetric.cli.report.facts import Facts, Neighbor, Query
from jaxmetric.cli.report.pairs import measure_pairs
from jaxmetric.cli.report.projection import project
from jaxmetric.cli.report.ranking import Ranking, interval, rank
from jaxmetric.cli.sweep_figure import MAP_AT_R

METRICS = (
    *(f"recall_at_{k}" for k in (1, 2, 4, 8)),
    "r_precision",
    MAP_AT_R,
    "mean_average_precision",
    "mean_reciprocal_rank",
)
_NEIGHBORS = 6
_WORST, _OF_A_CLASS = 12, 2


def gather(
    folder: Path,
    *,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    held_out: jm.data.Dataset,
    embeddings: np.ndarray,
    sweep: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Facts:
    """Return what a report tells.

    Args:
      folder: of the run.
      config: what config.yaml holds.
      summary: what summary.json holds, or will; empty for a run that was cut.
      records: of metrics.jsonl.
      held_out: the data that the run is measured on.
      embeddings: [n, dim] of its rows.
      sweep: what sweep.json holds, where the run is the best of a sweep.
      notes: what is odd.

    Raises:
      UsageError: the embeddings cannot be compared.
    """
    if not np.isfinite(embeddings).all():
        raise UsageError(
            f"{folder}: some embeddings are not finite, so nothing can be told of them."
            " Train again with a lower --learning-rate."
        )
    assert held_out.labels is not None
    labels, names = held_out.labels, held_out.class_names
    found = rank(embeddings, labels, k=min(_NEIGHBORS, len(labels) - 1))
    is_right = labels[found.neighbors[:, 0]] == labels
    return Facts(
        name=folder.name,
        config=config,
        summary=summary,
        records=records,
        data=_told_of_data(config, summary, held_out),
        blocks=_blocks(summary, records, held_out),
        metrics={name: interval(found.scores[name]) for name in METRICS},
        num_queries=int(found.scores["num_queries"].sum()),
        queries=_worst(labels, names, found),
        projection=project(embeddings, labels, is_right),
        pairs=measure_pairs(embeddings, labels),
        confusion=confuse(labels, names, found.neighbors[:, 0]),
        classes=tuple(names),
        sweep=sweep,
        is_image=held_out.is_image,
        notes=tuple(notes),
        texts=held_out.texts,
    )


def read_sweep(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return sweep.json of the sweep that a run is the best of, None without one."""
    if "sweep" not in summary:
        return None
    try:
        text = (folder.absolute().parent / "sweep.json").read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, ValueError):
        return None
    is_sweep = isinstance(found, dict) and isinstance(found.get("models"), list)
    return found if is_sweep and isinstance(found.get("varied"), dict) else None


def _worst(
    labels: np.ndarray, names: Sequence[str], ranking: Ranking
) -> tuple[Query, ...]:
    """Return the queries with the lowest MAP@R, the worst first.

    Of equals the one whose first right row comes later is worse.
    """
    scores = ranking.scores[MAP_AT_R]
    ranks = 1 / ranking.scores["mean_reciprocal_rank"]
    counts: Counter[int] = Counter()
    chosen = []
    for q in np.lexsort((-ranks, scores)):
        label = int(labels[q])
        if np.isnan(scores[q]) or counts[label] >= _OF_A_CLASS:
            continue
        counts[label] += 1
        pairs = zip(ranking.neighbors[q], ranking.distances[q], strict=True)
        neighbors = tuple(
            Neighbor(int(i), names[int(labels[i])], float(d), bool(labels[i] == label))
            for i, d in pairs
        )
        rank_of_first = round(float(ranks[q]))
        score = float(scores[q])
        chosen.append(Query(int(q), names[label], score, rank_of_first, neighbors))
        if len(chosen) == _WORST:
            break
    return tuple(chosen)


def _blocks(
    summary: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    held_out: jm.data.Dataset,
) -> dict[str, Mapping[str, Any]]:
    """Return the metrics before and after, from the log where there is no summary."""
    evals = [r for r in records if r.get("kind") == "eval"]
    pixels = next((r for r in records if r.get("kind") == "pixels"), None)
    last = evals[-1] if evals and evals[-1]["step"] > 0 else None
    found = {
        "untrained": summary.get("untrained") or next(iter(evals), None),
        _raw(held_out): summary.get("pixels") or pixels,
        "trained": summary.get("trained") or last,
    }
    return {name: block for name, block in found.items() if isinstance(block, Mapping)}


def _raw(data: jm.data.Dataset) -> str:
    """Return what the metrics of the raw inputs are called."""
    if data.texts is not None:
        return "tf-idf"
    return "pixels" if data.is_image else "raw features"


def _told_of_data(
    config: Mapping[str, Any], summary: Mapping[str, Any], held_out: jm.data.Dataset
) -> dict[str, str]:
    """Return words on what was trained on and what was held out."""
    data, classes = summary.get("data", {}), summary.get("classes", {})
    told = {"data": str(data.get("name", config.get("data", {}).get("data", "")))}
    if "train_rows" in data and "train" in classes:
        told["trained on"] = _rows_of(data["train_rows"], len(classes["train"]))
    told["held out"] = _rows_of(len(held_out), held_out.num_classes)
    shape = " x ".join(map(str, held_out.inputs.shape[1:]))
    told["an example"] = (
        f"image of {shape}" if held_out.is_image else f"{shape} numbers"
    )
    if held_out.texts is not None:
        told["an example"] = f"text of up to {shape} tokens"
    return told


def _rows_of(rows: int, classes: int) -> str:
    """Return counts in words."""
    return f"{rows:,} rows of {classes:,} classes"
