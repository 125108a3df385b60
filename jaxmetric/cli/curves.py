"""What the curves of a run show: which numbers of its log, over which steps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Okabe and Ito: these stay apart for every kind of colour vision.
GREEN, RED, BLUE, ORANGE = "#009e73", "#d55e00", "#0072b2", "#e69f00"


class Curve(NamedTuple):
    """A number of the records, over the steps.

    Attributes:
      key: of the records.
      label: in the legend; may be empty.
      colour: of the line.
      marker: at every point, of a few points that are far apart.
    """

    key: str
    label: str
    colour: str
    marker: str = ""


class Panel(NamedTuple):
    """Curves that share an axis.

    Attributes:
      title: above it.
      curves: in the order they are drawn.
      bottom, top: ends of the axis. None: as the numbers want it, linear or not.
      is_share: whether numbers are shares, read as percentages.
    """

    title: str
    curves: tuple[Curve, ...]
    bottom: float | None = None
    top: float | None = None
    is_share: bool = False


PANELS = (
    Panel("Loss", (Curve("loss", "", BLUE),)),
    Panel("Active fraction", (Curve("active_fraction", "", BLUE),), 0.0, 1.0, True),
    Panel(
        "Mean distance",
        (
            Curve("positive_distance", "positive pairs", GREEN),
            Curve("negative_distance", "negative pairs", RED),
        ),
        0.0,
    ),
    Panel(
        "Held-out classes",
        (
            Curve("recall_at_1", "Recall@1", BLUE, "o"),
            Curve("mean_average_precision_at_r", "MAP@R", ORANGE, "s"),
        ),
        0.0,
        1.0,
        True,
    ),
    Panel(
        "Held-out pairs: Recall@10",
        (
            Curve("query_to_key_recall_at_10", "query to key", BLUE, "o"),
            Curve("key_to_query_recall_at_10", "key to query", ORANGE, "s"),
        ),
        0.0,
        is_share=True,
    ),
    Panel(
        "Held-out items of users",
        (
            Curve("recall_at_10", "Recall@10", BLUE, "o"),
            Curve("ndcg_at_10", "NDCG@10", ORANGE, "s"),
        ),
        0.0,
        is_share=True,
    ),
    Panel(
        "Held-out categories: mAP",
        (
            Curve("query_to_key_mean_average_precision", "query to key", BLUE, "o"),
            Curve("key_to_query_mean_average_precision", "key to query", ORANGE, "s"),
        ),
        0.0,
        is_share=True,
    ),
)


def series(
    records: Sequence[Mapping[str, Any]], key: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the [n] steps that have a key, ascending, and its [n] numbers."""
    by_step = {}
    for record in records:
        if key in record and record.get("step") is not None:
            value = record[key]
            by_step[record["step"]] = np.nan if value is None else float(value)
    steps = sorted(by_step)
    values = np.array([by_step[step] for step in steps], np.float64)
    return np.array(steps, np.float64), np.where(np.isfinite(values), values, np.nan)


def filled(
    records: Sequence[Mapping[str, Any]],
) -> list[tuple[Panel, list[tuple[Curve, np.ndarray, np.ndarray]]]]:
    """Return the panels with a number, each with its curves, their steps and numbers.

    Args:
      records: see `figures.write_curves`.
    """
    found = []
    for panel in PANELS:
        data = [(curve, *series(records, curve.key)) for curve in panel.curves]
        data = [d for d in data if np.isfinite(d[2]).any()]
        if data:
            found.append((panel, data))
    return found


def switch_step(records: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the first step of the metric loss, None unless softmax came before it."""
    steps: dict[Any, list[int]] = {"softmax": [], "metric": []}
    for record in records:
        if record.get("phase") in steps and record.get("step") is not None:
            steps[record["phase"]].append(record["step"])
    return min(steps["metric"]) if steps["softmax"] and steps["metric"] else None


def running_mean(values: np.ndarray) -> np.ndarray:
    """Return [n] means over a window of a twentieth; gaps stay gaps."""
    half = max(len(values) // 40, 1)
    known = np.isfinite(values)
    window = np.ones(2 * half + 1)
    total = np.convolve(np.where(known, values, 0.0), window)[half:-half]
    count = np.convolve(known.astype(float), window)[half:-half]
    return np.where(known, total / np.maximum(count, 1), np.nan)


def spans_decades(values: np.ndarray) -> bool:
    """Return whether numbers are all positive and too unequal for a linear axis."""
    low, high = np.nanmin(values), np.nanmax(values)
    return bool(low > 0 and high > 30 * low)
