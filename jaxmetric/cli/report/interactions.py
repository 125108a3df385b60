"""The report of a run of users and items: what was found, of popular and rare items."""

import numpy as np

from jaxmetric import retrieval
from jaxmetric.cli.paired.interactions import KS, pairs_of
from jaxmetric.cli.paired.split import PairedSplit
from jaxmetric.cli.report import page, sections
from jaxmetric.cli.report.escape import escape
from jaxmetric.cli.report.projection import project
from jaxmetric.cli.report.ranking import interval

_NAMES = {f"{m}_at_{k}": f"{n}@{k}" for m, n in (("recall", "Recall"), ("ndcg", "NDCG"))
          for k in KS}  # fmt: skip
_PARTS = ("least popular", "less popular", "more popular", "most popular")


def parts_of(
    split: PairedSplit,
    users: np.ndarray,
    items: np.ndarray,
    user_rows: np.ndarray,
    item_rows: np.ndarray,
) -> list[tuple[str, str, str]]:
    """Return sections of the report, (key, title, HTML).

    Args:
      split: the interactions.
      users, items: the ids of the rows.
      user_rows, item_rows: their embeddings.
    """
    relevant, seen = pairs_of(split)
    scores = retrieval.recommendation(
        user_rows, item_rows, relevant, seen, ks=KS, reduction="none"
    )
    found = {name: np.asarray(value) for name, value in scores.items()}
    counts = np.bincount(split.train.key, minlength=items.max() + 1)[items]
    shares = _by_popularity(counts, relevant, seen, user_rows, item_rows)
    return [
        ("metrics", "Metrics", _metrics(found, len(users), len(items))),
        ("popularity", "Popular and rare items", shares),
        ("projection", "Items", _projection(items, counts, item_rows)),
    ]


def _metrics(found: dict[str, np.ndarray], num_users: int, num_items: int) -> str:
    """Return the metrics with their intervals."""
    lines = []
    for key, name in _NAMES.items():
        spread = interval(found[key])
        low, high = 100 * spread.low, 100 * spread.high
        lines.append(
            f"<tr><th scope='row'>{escape(name)}</th>"
            f"<td class='number'>{sections.percent(spread.value)}</td>"
            f"<td class='number'>{low:.2f} to {high:.2f} %</td></tr>"
        )
    head = "<th>metric</th><th class='number'>mean</th><th class='number'>95 % interval"
    return (
        f"<div class='wide'><table><thead><tr>{head}</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        + sections.quiet(
            f"Averages of {num_users:,} users, for each of whom all {num_items:,} "
            "items but those of training are ranked; those held out are to be found. "
            "The intervals tell how they would vary over other users (bootstrap)."
        )
    )


def _by_popularity(
    counts: np.ndarray,
    relevant: np.ndarray,
    seen: np.ndarray,
    user_rows: np.ndarray,
    item_rows: np.ndarray,
) -> str:
    """Return how many of the wanted items are found, by how popular they are."""
    order = np.argsort(np.argsort(counts[relevant[:, 1]], kind="stable"))
    quarter = order * len(_PARTS) // max(len(order), 1)
    lines, k = [], max(KS)
    for i, name in enumerate(_PARTS):
        part = relevant[quarter == i]
        if not len(part):
            continue
        told = retrieval.recommendation(user_rows, item_rows, part, seen, ks=(k,))
        mean = float(np.mean(counts[part[:, 1]]))
        lines.append(
            f"<tr><th scope='row'>{name}</th><td class='number'>{mean:,.0f}</td>"
            f"<td class='number'>{sections.percent(float(told[f'recall_at_{k}']))}</td>"
            "</tr>"
        )
    head = (
        "<th>quarter</th><th class='number'>interactions of an item</th>"
        f"<th class='number'>Recall@{k}</th>"
    )
    return (
        f"<div class='wide'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        + sections.quiet(
            "The items held out in quarters, by how often they occur in training. A "
            "list of the most popular finds none of the rare."
        )
    )


def _projection(items: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> str:
    """Return the items as points, coloured by how popular they are.

    Where tastes are learned, and not popularity alone, neighbours differ in it.
    """
    order = np.argsort(np.argsort(counts, kind="stable"))
    quarter = (order * len(_PARTS) // len(order)).astype(np.int32)
    k = min(2, len(items))
    nearest = np.asarray(retrieval.nearest_neighbors(rows, rows, k=k).indices)
    other = np.where(
        nearest[:, 0] == np.arange(len(rows)), nearest[:, -1], nearest[:, 0]
    )
    found = project(rows, quarter, quarter[other] == quarter)
    return page.draw_projection(
        found,
        _PARTS,
        f"{len(found.rows):,} items",
        nearest=("as popular", "more or less popular"),
        ring="an item whose nearest other one is of another popularity",
        rows=[f"item {items[row]}, met {counts[row]:,} times" for row in found.rows],
        colour="popularity",
    )
