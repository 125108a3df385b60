"""A report as one file: the sections in their template, nothing to be fetched."""

from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

import jaxmetric as jm
from jaxmetric.cli.records import write_atomically
from jaxmetric.cli.report import plots, sections
from jaxmetric.cli.report.escape import escape, script_json
from jaxmetric.cli.report.facts import Facts
from jaxmetric.cli.report.thumbnails import Sprite, Thumbnails

REPORT = "report.html"


def write_page(path: Path, facts: Facts, inputs: np.ndarray) -> None:
    """Write a report, whole or not at all.

    Args:
      path: the file; an older one is replaced.
      facts: what it tells.
      inputs: [n, ...] held-out rows, shown where they are images.
    """
    write_atomically(path, page(facts, inputs))


def page(facts: Facts, inputs: np.ndarray) -> str:
    """Return a report as HTML."""
    pictures, sprite = None, None
    if facts.is_image:
        rows = facts.projection.rows
        thumbnails = Thumbnails(inputs, rows)
        pictures, sprite = thumbnails.one, thumbnails.sprite(rows)
    parts = [
        ("metrics", "Metrics", sections.metrics(facts)),
        ("before-after", "Before and after", sections.before_and_after(facts)),
        ("curves", "Training", plots.training(facts.records)),
        ("projection", "Held-out embeddings", _projection(facts, sprite)),
        ("gallery", "Worst queries", sections.gallery(facts, pictures)),
        ("distances", "Same or different", _distances(facts)),
        (
            "confusion",
            "Mistaken classes",
            sections.confusion(facts.confusion, pictures),
        ),
        ("about", "What was trained on what", sections.about(facts)),
    ]
    if facts.sweep is not None:
        drawn = plots.sweep(facts.sweep) + sections.sweep_table(facts.sweep)
        parts.insert(-1, ("sweep", "The sweep behind this run", drawn))
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{inner}</section>'
        for key, title, inner in parts
    )
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in parts)
    notes = "".join(f'<p class="warning">{escape(note)}</p>' for note in facts.notes)
    return Template(_read("page.html")).substitute(
        title=escape(facts.name),
        headline=sections.headline(facts),
        links=links,
        notes=notes,
        body=body,
        style=_read("page.css"),
        script=_read("page.js"),
        version=escape(jm.__version__),
    )


def _distances(facts: Facts) -> str:
    """Return the section on pairs."""
    if facts.pairs is None:
        return '<p class="quiet">There are no pairs of both kinds to compare.</p>'
    drawn = plots.distances(facts.pairs, facts.calibrated)
    rates = sections.rates(facts.pairs, facts.calibrated)
    return f'<div class="beside">{drawn}{rates}</div>'


def _projection(facts: Facts, sprite: Sprite | None) -> str:
    """Return the section with the points, and their numbers for the script."""
    found = facts.projection
    shown, classes = np.unique(found.classes, return_inverse=True)
    data = {
        "x": np.rint(1e4 * found.places[:, 0]).astype(int).tolist(),
        "y": np.rint(1e4 * found.places[:, 1]).astype(int).tolist(),
        "row": found.rows.tolist(),
        "of": classes.tolist(),
        "wrong": (~found.is_right).astype(int).tolist(),
        "names": [sections.plain(facts.classes[c]) for c in shown],
        "cell": None,
    }
    image = ""
    if sprite is not None:
        data["cell"] = [sprite.columns, sprite.width, sprite.height]
        image = f'<img id="sprite" alt="" hidden src="{sprite.uri}">'
    which = f"{len(found.rows):,} rows of {len(shown):,} classes"
    if len(shown) < len(facts.classes):
        which += f", of {len(facts.classes):,}"
    return Template(_read("projection.html")).substitute(
        which=which,
        share=f"{100 * found.share:.0f} %",
        image=image,
        data=script_json(data),
    )


def _read(name: str) -> str:
    """Return a part of the page that lies beside this file."""
    return (
        resources.files("jaxmetric.cli.report")
        .joinpath(name)
        .read_text(encoding="utf-8")
    )
