"""A report as one file: the sections in their template, nothing to be fetched."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

import jaxmetric as jm
from jaxmetric.cli.records import write_atomically
from jaxmetric.cli.report import plots, sections
from jaxmetric.cli.report.escape import escape, script_json
from jaxmetric.cli.report.facts import Facts, Projection
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
    pictures: sections.Pictures = None
    sprite = None
    if facts.is_image:
        rows = facts.projection.rows
        thumbnails = Thumbnails(inputs, rows)
        pictures, sprite = thumbnails.one, thumbnails.sprite(rows)
    elif facts.texts is not None:
        pictures = facts.texts
    parts = [
        ("metrics", "Metrics", sections.metrics(facts)),
        ("before-after", "Before and after", sections.before_and_after(facts.blocks)),
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
    return assemble(facts.name, sections.headline(facts), facts.notes, parts)


def assemble(
    title: str,
    headline: str,
    notes: Sequence[str],
    parts: Sequence[tuple[str, str, str]],
) -> str:
    """Return a page of its parts.

    Args:
      title: of the page, plain text.
      headline: below it, HTML.
      notes: what is odd, plain text.
      parts: (key, title, HTML) of the sections.
    """
    body = "".join(
        f'<section id="{key}"><h2>{name}</h2>{inner}</section>'
        for key, name, inner in parts
    )
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in parts)
    told = "".join(f'<p class="warning">{escape(note)}</p>' for note in notes)
    return Template(_read("page.html")).substitute(
        title=escape(title),
        headline=headline,
        links=links,
        notes=told,
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
    found, names = facts.projection, facts.classes
    which = f"{len(found.rows):,} rows of {len(np.unique(found.classes)):,} classes"
    if len(np.unique(found.classes)) < len(names):
        which += f", of {len(names):,}"
    said = None
    if facts.texts is not None:
        said = [sections.beginning(facts.texts[row]) for row in found.rows.tolist()]
    return draw_projection(found, names, which, sprite, rows=said)


def draw_projection(
    found: Projection,
    names: Sequence[str],
    which: str,
    sprite: Sprite | None = None,
    *,
    nearest: Sequence[str] = ("same class", "another class"),
    ring: str = "a row whose nearest other row is of another class",
    rows: Sequence[str] | None = None,
    colour: str = "class",
) -> str:
    """Return points in a plane, and their numbers for the script.

    Args:
      found: the points.
      names: of the classes.
      which: what they are, in words.
      sprite: their pictures, or None.
      nearest: what is said of a row whose nearest one is right, and wrong.
      ring: what is marked by a ring, in words: what is wrong.
      rows: [n] what each point is called; by default its row.
      colour: what the classes are called.
    """
    shown, classes = np.unique(found.classes, return_inverse=True)
    data: dict[str, Any] = {
        "x": np.rint(1e4 * found.places[:, 0]).astype(int).tolist(),
        "y": np.rint(1e4 * found.places[:, 1]).astype(int).tolist(),
        "row": found.rows.tolist(),
        "of": classes.tolist(),
        "wrong": (~found.is_right).astype(int).tolist(),
        "names": [sections.plain(names[c]) for c in shown],
        "nearest": list(nearest),
        "called": None if rows is None else list(rows),
        "cell": None,
    }
    image = ""
    if sprite is not None:
        data["cell"] = [sprite.columns, sprite.width, sprite.height]
        image = f'<img id="sprite" alt="" hidden src="{sprite.uri}">'
    return Template(_read("projection.html")).substitute(
        which=which,
        colour=colour,
        ring=ring,
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
