"""Small files of texts whose meaning is in a few words, for the tests of texts."""

import random
from pathlib import Path

import numpy as np

TOPICS = ("bird", "lamp", "rock", "ship", "song", "tree")
_FILL = ("the", "a", "of", "and", "on", "in")


def sentence(topic: str, rng: random.Random) -> str:
    """Return a text with two of the six words of a topic."""
    words = rng.sample([f"{topic}{k}" for k in "abcdef"], 2) + rng.sample(_FILL, 3)
    return " ".join(words) + "."


def labelled(path: Path, rows: int = 12) -> Path:
    """Write labelled texts, `rows` of each topic, with a header."""
    rng = random.Random(0)
    lines = [f"{t}\t{sentence(t, rng)}" for t in TOPICS for _ in range(rows)]
    path.write_text("label\ttext\n" + "\n".join(lines) + "\n")
    return path


def scored(path: Path, rows: int = 96, seed: int = 0) -> Path:
    """Write pairs: 5 for one topic, 0 to 2 for two."""
    rng = random.Random(seed)
    lines = []
    for k in range(rows):
        first = rng.choice(TOPICS)
        second = first if k % 2 else rng.choice([t for t in TOPICS if t != first])
        score = 5.0 if k % 2 else k % 3
        texts = (sentence(first, rng), sentence(second, rng))
        lines.append("\t".join((str(score), *texts)))
    path.write_text("\n".join(lines) + "\n")
    return path


def vectors(path: Path, dim: int = 4) -> Path:
    """Write vectors of half of the words, alike within a topic."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(len(TOPICS), dim))
    words = [f"{t}{k}" for t in TOPICS for k in "abc"]
    rows = np.repeat(centers, 3, axis=0) + 0.1 * rng.normal(size=(len(words), dim))
    np.savez(path, words=words, vectors=rows.astype(np.float32))
    return path
