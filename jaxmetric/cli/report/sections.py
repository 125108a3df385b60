"""The sections of a report as HTML; everything from data is escaped here."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxmetric.cli.report.escape import escape, plain
from jaxmetric.cli.report.facts import Confusion, Facts, Pairs, Query, Told
from jaxmetric.cli.sweep_figure import MAP_AT_R, word

_NAMES = {
    MAP_AT_R: "MAP@R",
    "r_precision": "R-precision",
    "mean_average_precision": "mAP",
    "mean_reciprocal_rank": "mean reciprocal rank",
}
_COMPARED = ("recall_at_1", MAP_AT_R, "r_precision")
_MOST_NAMES, _MOST_MODELS = 500, 40

# A row as a picture's data URI; the texts of all rows; None where rows are neither.
Pictures = Callable[[int], str] | Sequence[str] | None
# Letters of a text that a tip or a card has room for.
_MOST_LETTERS = 200


def headline(facts: Facts) -> str:
    """Return the one sentence that a reader wants first."""
    parts = []
    for key in ("recall_at_1", MAP_AT_R):
        found = facts.metrics.get(key)
        if found is not None and math.isfinite(found.value):
            parts.append(f"<b>{_name(key)} {percent(found.value)}</b>")
    trained = facts.summary.get("classes", {}).get("train", facts.classes)
    is_new = not set(trained) & set(facts.classes)
    what = "classes never seen in training" if is_new else "held-out classes"
    return f"{' and '.join(parts)} on {len(facts.classes):,} {what}"


def about(facts: Facts | Told) -> str:
    """Return what was trained on what."""
    summary = facts.summary
    told = {**facts.data}
    loss = dict(summary.get("loss") or facts.config.get("loss", {}))
    if loss:
        settings = ", ".join(f"{word(k)} {_value(v)}" for k, v in loss.items())
        told["loss"] = settings.removeprefix("name ")
    model = dict(facts.config.get("model", {}))
    told["model"] = ", ".join(f"{word(k)} {_value(v)}" for k, v in model.items())
    told["model"] = told["model"].removeprefix("kind ")
    if "num_parameters" in summary:
        told["parameters"] = f"{summary['num_parameters']:,}"
    if "steps" in summary:
        epochs = summary.get("epochs", 0)
        batch = " x ".join(map(str, summary.get("batch", [])))
        told["steps"] = f"{summary['steps']:,} of {batch} rows, {epochs:,.3g} epochs"
        told["skipped steps"] = f"{summary.get('skipped_steps', 0):,}"
    if "training_seconds" in summary:
        told["time"] = (
            f"{summary['training_seconds']:,.1f} s, after "
            f"{summary.get('compilation_seconds', 0):,.1f} s of compilation"
        )
    versions = summary.get("versions", {})
    if versions:
        told["versions"] = ", ".join(f"{k} {v}" for k, v in versions.items())
    if "command" in summary:
        told["command"] = summary["command"]
    lines = "".join(
        f"<dt>{escape(k)}</dt><dd>{breakable(v)}</dd>" for k, v in told.items() if v
    )
    return f'<dl class="facts">{lines}</dl>{_config(facts)}{_classes(facts)}'


def metrics(facts: Facts) -> str:
    """Return the metrics of the trained encoder with their intervals."""
    lines = []
    for key, found in facts.metrics.items():
        if not math.isfinite(found.value):
            continue
        low, high = 100 * found.low, 100 * found.high
        lines.append(
            f"<tr><th scope='row'>{escape(_name(key))}</th>"
            f"<td class='number'>{percent(found.value)}</td>"
            f"<td class='number'>{low:.2f} to {high:.2f} %</td>"
            "<td class='interval' aria-hidden='true'><span>"
            f"<i style='left:{low:.2f}%;width:{max(high - low, 0.4):.2f}%'></i>"
            f"<b style='left:{100 * found.value:.2f}%'></b></span></td></tr>"
        )
    if not lines:
        return quiet("No query has another row of its class to find.")
    return (
        "<div class='wide'><table><thead><tr><th>metric</th><th class='number'>value"
        "</th><th class='number'>95 % interval</th><th class='interval'>0 to 100 %</th>"
        f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        + quiet(
            f"Averages of {facts.num_queries:,} queries, each among all other held-out "
            "rows. The intervals tell how they would vary over other queries of these "
            "classes (bootstrap), not over other classes."
        )
    )


def before_and_after(
    blocks: Mapping[str, Mapping[str, Any]], compared: Mapping[str, str] | None = None
) -> str:
    """Return bars of the untrained encoder, what is to be beaten, and the trained one.

    Args:
      blocks: metrics by what they are of.
      compared: metrics with their headings; None for those of classes.
    """
    groups = []
    if compared is None:
        compared = {key: _name(key) for key in _COMPARED}
    for key, heading in compared.items():
        bars = []
        for name, block in blocks.items():
            value = block.get(key)
            if value is None or not math.isfinite(value):
                continue
            tone = "strong" if name == "trained" else ""
            bars.append(
                f"<li class='{tone}'><span>{escape(name)}</span><span class='bar'>"
                f"<i style='width:{100 * value:.2f}%'></i></span>"
                f"<span class='number'>{percent(value)}</span></li>"
            )
        if bars:
            title = f"<h3>{escape(heading)}</h3>"
            groups.append(f"<div>{title}<ul class='bars'>{''.join(bars)}</ul></div>")
    if not groups:
        return quiet("The run has no evaluation yet.")
    return f"<div class='groups'>{''.join(groups)}</div>"


def gallery(facts: Facts, pictures: Pictures) -> str:
    """Return the worst queries with what was found for them."""
    if not facts.queries:
        return quiet("No query has another row of its class to find.")
    cards = "".join(_query(query, pictures) for query in facts.queries)
    return (
        quiet(
            "The queries with the lowest MAP@R, the worst first, at most two of a "
            "class; their nearest rows from left to right. ✓ same class, ✗ another."
        )
        + f"<div class='gallery'>{cards}</div>"
    )


def rates(pairs: Pairs, calibrated: tuple[float, float] | None = None) -> str:
    """Return what the threshold comes to, in numbers."""
    told = {
        "equal error rate": percent(pairs.rates["eer"]),
        "its threshold": f"{pairs.threshold:.4f}",
        "area under the curve": percent(pairs.rates["auc"]),
    }
    for key, value in pairs.rates.items():
        if key.startswith("tar_at_far_"):
            rate = float(key.removeprefix("tar_at_far_"))
            told[f"accepted of same at {100 * rate:g} % false accepts"] = percent(value)
    if calibrated is not None:
        name = f"calibrated for {100 * calibrated[1]:g} % false accepts"
        told[name] = f"{calibrated[0]:.4f}"
    lines = "".join(
        f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in told.items()
    )
    return f"<dl class='facts'>{lines}</dl>"


def confusion(found: Confusion, pictures: Pictures) -> str:
    """Return the pairs of classes that are mistaken most, and their matrix."""
    share = percent(found.num_wrong / max(found.num_queries, 1))
    text = (
        f"The nearest other row is of another class for {found.num_wrong:,} of "
        f"{found.num_queries:,} queries ({share})."
    )
    if not found.mistakes:
        return quiet(text)
    lines = []
    for mistake in found.mistakes:
        seen = ""
        if pictures is not None:
            seen = _picture(pictures, mistake.row, mistake.label) + _picture(
                pictures, mistake.other_row, mistake.taken_for
            )
            seen = f"<span class='pair'>{seen}</span>"
        lines.append(
            f"<li>{seen}<span><b>{breakable(mistake.label)}</b> taken for "
            f"<b>{breakable(mistake.taken_for)}</b><br><span class='quiet'>"
            f"{mistake.count:,} of {mistake.size:,} queries</span></span></li>"
        )
    return quiet(text) + f"<ol class='mistakes'>{''.join(lines)}</ol>" + _matrix(found)


def sweep_table(told: Mapping[str, Any]) -> str:
    """Return the models of a sweep, the best first."""
    models = told["models"]
    names = [k for k, v in told["varied"].items() if len(v) > 1]
    order = sorted(range(len(models)), key=lambda i: -(models[i].get(MAP_AT_R) or -1.0))
    head = "".join(
        f"<th class='number'>{escape(text)}</th>"
        for text in (*map(word, names), "Recall@1", "MAP@R", "active", "loss")
    )
    lines = []
    for i in order[:_MOST_MODELS]:
        model = models[i]
        cells = [f"{model[name]:g}" for name in names]
        for key in ("recall_at_1", MAP_AT_R, "active_fraction"):
            cells.append(percent(model.get(key)))
        loss = model.get("loss")
        is_finished = model.get("status") == "finished" and loss is not None
        cells.append(f"{loss:.4g}" if is_finished else str(model.get("status", "-")))
        kind = " class='strong'" if i == told.get("best") else ""
        inner = "".join(f"<td class='number'>{escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr{kind}>{inner}</tr>")
    more = len(models) - _MOST_MODELS
    note = quiet(f"and {more:,} more in sweep.json") if more > 0 else ""
    chosen = (
        "This run is the best of the sweep by MAP@R on the held-out classes, so its "
        "own figures there are a little too good; measure it on other data as well."
    )
    table = (
        f"<div class='wide'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
    return (
        f"<details open><summary>All {len(models):,} models</summary>{table}{note}"
        f"</details>{quiet(chosen)}"
    )


def _query(query: Query, pictures: Pictures) -> str:
    """Return one query and its neighbours."""
    rank = f"{query.first_right:,}"
    found = "".join(
        f"<figure class='{'right' if n.is_right else 'wrong'}'>"
        f"{_picture(pictures, n.row, n.label)}<figcaption>"
        f"{'✓' if n.is_right else '✗'} {n.distance:.2f}"
        f"{'' if n.is_right else f'<br>{breakable(n.label)}'}</figcaption></figure>"
        for n in query.neighbors
    )
    return (
        "<article><header>"
        f"<figure class='asked'>{_picture(pictures, query.row, query.label)}</figure>"
        f"<div><b>{breakable(query.label)}</b><br><span class='quiet'>row "
        f"{query.row:,}, MAP@R {percent(query.score)}<br>first row of its class at "
        f"rank {rank}</span></div></header><div class='found'>{found}</div></article>"
    )


def _picture(pictures: Pictures, row: int, label: str) -> str:
    """Return a row as a picture, or its number where it has none."""
    if pictures is None:
        return f"<span class='chip'>row {row:,}</span>"
    if not callable(pictures):
        text = beginning(pictures[row])
        return f"<span class='chip text' title='row {row:,}'>{escape(text)}</span>"
    return f"<img src='{pictures(row)}' alt='{escape(label)}, row {row}'>"


def beginning(text: str) -> str:
    """Return as much of a text as there is room for."""
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"


def _matrix(found: Confusion) -> str:
    """Return the matrix of the classes that are mistaken most."""
    numbers = range(1, len(found.labels) + 1)
    has_more = bool(found.elsewhere.any())
    head = "".join(f"<th class='number'>{k}</th>" for k in numbers)
    head += "<th class='number'>other</th>" if has_more else ""
    lines = []
    for i, label in enumerate(found.labels):
        size = max(int(found.counts[i].sum() + found.elsewhere[i]), 1)
        cells = []
        for j, count in enumerate(found.counts[i]):
            kind = "hit" if i == j else "miss"
            share = f" style='--share:{100 * count / size:.0f}%'" if count else ""
            cells.append(f"<td class='cell {kind}'{share}>{count or ''}</td>")
        if has_more:
            cells.append(f"<td class='cell'>{found.elsewhere[i] or ''}</td>")
        name = f"<th scope='row'><span>{i + 1}</span> {breakable(label)}</th>"
        lines.append(f"<tr>{name}{''.join(cells)}</tr>")
    return (
        quiet("Down: the class of the query. Across: the class of its nearest row.")
        + f"<div class='wide'><table class='matrix'><thead><tr><th></th>{head}</tr>"
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _config(facts: Facts | Told) -> str:
    """Return the whole configuration, folded away."""
    lines = []
    for section, values in facts.config.items():
        for key, value in dict(values).items():
            if key != "held_out":
                name = escape(f"{section}.{key}")
                text = breakable(_value(value))
                lines.append(f"<tr><th scope='row'>{name}</th><td>{text}</td></tr>")
    return (
        "<details><summary>Every setting</summary><div class='wide'><table><tbody>"
        f"{''.join(lines)}</tbody></table></div></details>"
    )


def _classes(facts: Facts | Told) -> str:
    """Return the names of the classes, folded away."""
    parts = []
    trained = facts.summary.get("classes", {}).get("train", [])
    for title, names in (
        ("Held-out classes", facts.classes),
        ("Training classes", trained),
    ):
        if not names:
            continue
        shown = ", ".join(breakable(name) for name in names[:_MOST_NAMES])
        more = len(names) - _MOST_NAMES
        shown += f" and {more:,} more" if more > 0 else ""
        parts.append(
            f"<details><summary>{title}: {len(names):,}</summary>"
            f"<p class='names'>{shown}</p></details>"
        )
    return "".join(parts)


def breakable(text: Any) -> str:
    """Return text for HTML that may go on in a new line after its separators."""
    pieces = re.split(r"(?<=[/_\-.,])", plain(text))
    return "<wbr>".join(escape(piece) for piece in pieces)


def quiet(text: str) -> str:
    """Return a remark."""
    return f"<p class='quiet'>{escape(text)}</p>"


def _name(key: str) -> str:
    """Return what a metric is called."""
    if key.startswith("recall_at_"):
        return f"Recall@{key.removeprefix('recall_at_')}"
    return _NAMES.get(key, word(key))


def _value(value: Any) -> str:
    """Return a setting as text."""
    if isinstance(value, list | tuple):
        return ", ".join(_value(v) for v in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{word(k)} {_value(v)}" for k, v in value.items() if v != [])
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def percent(value: Any) -> str:
    """Return a share as a percentage, a dash if there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{100 * value:.2f} %"
