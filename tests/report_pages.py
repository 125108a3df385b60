"""Reports of rows that no run has made, and how a page is read."""

from html.parser import HTMLParser

import numpy as np

from jaxmetric.cli.report import page as pages
from jaxmetric.cli.report.gather import gather
from jaxmetric.data import Dataset

HOSTILE = ("<img src=x onerror=alert(1)>", "a\"b'c &amp; <b>", "<!--<script>")


def gathered(folder, inputs, labels, names, embeddings):
    """Return what a report tells of rows that no run has made."""
    records = [{"step": s, "kind": "train", "loss": 1 / s} for s in (1, 2, 3)]
    return gather(
        folder,
        config={"model": {"kind": "mlp"}, "data": {"data": names[0]}},
        summary={"command": names[0], "classes": {"train": list(names)}},
        records=records,
        held_out=Dataset(inputs, labels, names, names[0]),
        embeddings=embeddings,
    )


def write_images(folder):
    """Write the report of images whose classes have hostile names."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3, dtype=np.int32), 5)
    images = random.integers(0, 256, (15, 8, 8, 1), np.uint8)
    x = (labels[:, None] + random.normal(size=(15, 2))).astype(np.float32)
    folder.mkdir()
    facts = gathered(folder, images, labels, HOSTILE, x)
    pages.write_page(folder / "report.html", facts, images)
    return folder


def overlapping():
    """Return rows of five classes that overlap, and their labels."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(5, dtype=np.int32), 8)
    centres = random.normal(size=(5, 1, 3))
    x = centres + 0.7 * random.normal(size=(5, 8, 3))
    return x.reshape(40, 3).astype(np.float32), labels


def told_of_features(folder):
    """Return what a report tells of these rows."""
    x, labels = overlapping()
    return gathered(folder, x, labels, tuple("abcde"), x)


class Outline(HTMLParser):
    """The elements of a page and their attributes; all must be closed in order."""

    VOID = ("meta", "link", "img", "br", "wbr", "input")

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
