"""The report of a run of pairs: the same page, with both directions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmetric import retrieval
from jaxmetric.cli.paired.measure import ARROWS, DIRECTIONS, KS
from jaxmetric.cli.records import write_atomically
from jaxmetric.cli.report import page, plots, sections
from jaxmetric.cli.report.escape import escape
from jaxmetric.cli.report.facts import Pairs, Spread, Told
from jaxmetric.cli.report.pairs import measure_distances
from jaxmetric.cli.report.projection import project
from jaxmetric.cli.report.ranking import interval
from jaxmetric.data import PairedDataset

_NAMES = {f"recall_at_{k}": f"Recall@{k}" for k in KS} | {
    "mean_reciprocal_rank": "mean reciprocal rank",
    "mean_average_precision": "mAP of the category",
}
_WORST, _NEIGHBORS = 12, 5
_MOST_PAIRS = 200_000

Part = tuple[str, str, str]


def write_paired_page(path: Path, told: Told, parts: Sequence[Part]) -> None:
    """Write a report, whole or not at all.

    Args:
      path: the file; an older one is replaced.
      told: what every report has.
      parts: sections of the kind of pairs, (key, title, HTML).
    """
    blocks = _blocks(told.summary, told.records)
    trained = blocks.get("trained", {})
    words = [
        f"<b>{escape(heading)} {sections.percent(trained.get(key))}</b>"
        for key, heading in told.columns.items()
        if key in trained
    ]
    headline = f"{' and '.join(words[:2])}. {escape(told.title)}"
    compared = {k: v for k, v in told.columns.items() if k in trained}
    first = [part for part in parts if part[0] == "metrics"]
    every = [
        *first,
        (
            "before-after",
            "Before and after",
            sections.before_and_after(blocks, compared),
        ),
        ("curves", "Training", plots.training(told.records)),
        *(part for part in parts if part[0] != "metrics"),
        ("about", "What was trained on what", sections.about(told)),
    ]
    write_atomically(path, page.assemble(told.name, headline, told.notes, every))


def parts_of(data: PairedDataset, queries: np.ndarray, keys: np.ndarray) -> list[Part]:
    """Return the sections on pairs of which each belongs to the other.

    Args:
      data: the pairs that are held out.
      queries, keys: [n, dim], their embeddings.
    """
    rows = np.arange(len(data), dtype=np.int32)
    scores = {
        "query_to_key": _scores(queries, keys, rows, data.labels),
        "key_to_query": _scores(keys, queries, rows, data.labels),
    }
    found = retrieval.nearest_neighbors(queries, keys, k=min(_NEIGHBORS, len(data)))
    neighbors = np.asarray(found.indices)
    parts = [
        ("metrics", "Metrics", _metrics(scores, len(data))),
        ("projection", "Held-out pairs", _projection(data, queries, keys, neighbors)),
        (
            "gallery",
            "Worst queries",
            _worst(
                data, scores["query_to_key"], neighbors, np.asarray(found.distances)
            ),
        ),
    ]
    pairs = _distances(queries, keys)
    if pairs is not None:
        drawn = plots.distances(pairs, of=("pairs that belong together", "other pairs"))
        inner = f'<div class="beside">{drawn}{sections.rates(pairs)}</div>'
        parts.append(("distances", "Together or not", inner))
    return parts


def _scores(
    x: np.ndarray, y: np.ndarray, rows: np.ndarray, labels: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return [n] numbers by metric of the queries x among y."""
    found = retrieval.evaluate(x, rows, y, rows, ks=KS, reduction="none")
    names = (*(f"recall_at_{k}" for k in KS), "mean_reciprocal_rank")
    told = {name: np.asarray(found[name]) for name in names}
    if labels is not None:
        found = retrieval.evaluate(x, labels, y, labels, ks=(1,), reduction="none")
        name = "mean_average_precision"
        told[name] = np.asarray(found[name])
    return told


def _metrics(scores: Mapping[str, Mapping[str, np.ndarray]], num_pairs: int) -> str:
    """Return both directions with their intervals."""
    head = "".join(
        f"<th class='number'>{arrow}</th><th class='number'>95 % interval</th>"
        for arrow in ARROWS.values()
    )
    lines = []
    for key, name in _NAMES.items():
        if key in scores["query_to_key"]:
            cells = "".join(_cells(interval(scores[d][key])) for d in DIRECTIONS)
            lines.append(f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>")
    return (
        f"<div class='wide'><table><thead><tr><th>metric</th>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        + sections.quiet(
            f"Averages of {num_pairs:,} queries in each direction, each among all "
            "held-out rows of the other side: the one that belongs to it is to be "
            "found, and for mAP all of its category. The intervals tell how they would "
            "vary over other queries (bootstrap)."
        )
    )


def _cells(found: Spread) -> str:
    """Return a metric and its interval as two cells."""
    low, high = 100 * found.low, 100 * found.high
    return (
        f"<td class='number'>{sections.percent(found.value)}</td>"
        f"<td class='number'>{low:.2f} to {high:.2f} %</td>"
    )


def _projection(
    data: PairedDataset, queries: np.ndarray, keys: np.ndarray, neighbors: np.ndarray
) -> str:
    """Return the points of both sides, coloured by category or else by side."""
    both = np.concatenate([queries, keys])
    n = len(queries)
    if data.labels is not None:
        names, labels = data.class_names, np.concatenate([data.labels, data.labels])
        back = retrieval.nearest_neighbors(keys, queries, k=1).indices
        nearest = np.concatenate([neighbors[:, 0], np.asarray(back)[:, 0]])
        is_right = data.labels[nearest] == labels
        said, colour = ("same category", "another category"), "category"
    else:
        names, labels = ("queries", "keys"), np.repeat([0, 1], n)
        back = retrieval.nearest_neighbors(keys, queries, k=1).indices
        nearest = np.concatenate([neighbors[:, 0], np.asarray(back)[:, 0]])
        is_right = nearest == np.tile(np.arange(n), 2)
        said, colour = ("its own", "another one"), "side"
    found = project(both, labels.astype(np.int32), is_right)
    called = [f"{'query' if r < n else 'key'} {r % n}" for r in found.rows.tolist()]
    which = f"{len(found.rows):,} held-out queries and keys"
    return page.draw_projection(
        found,
        names,
        which,
        nearest=said,
        ring=f"a row for which the nearest one of the other side is {said[1]}",
        rows=called,
        colour=colour,
    )


def _worst(
    data: PairedDataset,
    scores: Mapping[str, np.ndarray],
    neighbors: np.ndarray,
    distances: np.ndarray,
) -> str:
    """Return the queries whose own key comes last, with what they find in its place."""
    ranks = np.rint(1 / scores["mean_reciprocal_rank"]).astype(int)
    cards = []
    for q in np.argsort(-ranks, kind="stable")[:_WORST].tolist():
        found = "".join(
            _found(data, q, int(i), float(d))
            for i, d in zip(neighbors[q], distances[q], strict=True)
        )
        label = "" if data.labels is None else data.class_names[data.labels[q]]
        head = f"<b>{sections.breakable(label)}</b><br>" if label else ""
        cards.append(
            f"<article><header><figure class='asked'><span class='chip'>query {q:,}"
            f"</span></figure><div>{head}<span class='quiet'>its own key comes at rank "
            f"{ranks[q]:,} of {len(data):,}</span></div></header>"
            f"<div class='found'>{found}</div></article>"
        )
    kinds = "✓ the own key" if data.labels is None else "✓ a key of its category"
    return (
        sections.quiet(
            "The held-out queries whose own key comes last, and the nearest keys from "
            f"left to right. {kinds}, ✗ another."
        )
        + f"<div class='gallery'>{''.join(cards)}</div>"
    )


def _found(data: PairedDataset, query: int, key: int, distance: float) -> str:
    """Return one key that was found for a query."""
    if data.labels is None:
        is_right, label = query == key, ""
    else:
        is_right = bool(data.labels[query] == data.labels[key])
        label = data.class_names[data.labels[key]]
    shown = f"<br>{sections.breakable(label)}" if label and not is_right else ""
    return (
        f"<figure class='{'right' if is_right else 'wrong'}'><span class='chip'>key "
        f"{key:,}</span><figcaption>{'✓' if is_right else '✗'} {distance:.2f}{shown}"
        "</figcaption></figure>"
    )


def _distances(queries: np.ndarray, keys: np.ndarray) -> Pairs | None:
    """Return the distances of rows that belong together, and of as many others."""
    n = min(len(queries), _MOST_PAIRS // 2)
    if n < 2:
        return None
    num_shifts = min(n - 1, _MOST_PAIRS // n - 1, 64)
    shifts = np.unique(np.linspace(1, n - 1, num_shifts).astype(int))
    rows = np.arange(n)
    own = np.linalg.norm(queries[:n] - keys[:n], axis=1)
    others = [
        np.linalg.norm(queries[:n] - keys[(rows + shift) % n], axis=1)
        for shift in shifts.tolist()
    ]
    d = np.concatenate([own, *others])
    return measure_distances(d, np.arange(len(d)) < n)


def _blocks(
    summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Return the metrics before and after, from the log where there is no summary."""
    evals = [r for r in records if r.get("kind") == "eval"]
    logged = next((r for r in records if r.get("kind") == "baseline"), {})
    last = evals[-1] if evals and evals[-1]["step"] > 0 else None
    baseline = summary.get("baseline") or logged
    found = {
        "untrained": summary.get("untrained") or next(iter(evals), None),
        str(baseline.get("name", "")): baseline if "name" in baseline else None,
        "trained": summary.get("trained") or last,
    }
    return {name: block for name, block in found.items() if isinstance(block, Mapping)}
