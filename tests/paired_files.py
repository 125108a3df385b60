"""Small files of pairs: two views of one thing, in some categories."""

from pathlib import Path

import numpy as np

from jaxmetric.cli import main

SMALL = ["--hidden", "8", "--dim", "4", "--batch-size", "16", "--plain"]
NUM_PAIRS, NUM_CATEGORIES = 60, 3


def write_pairs(path: Path, *, rows: int = NUM_PAIRS, seed: int = 0, **more) -> Path:
    """Write two views `image` [n, 6] and `text` [n, 5], `kind` [n], and more arrays."""
    random = np.random.default_rng(seed)
    maps = np.random.default_rng(9)
    hidden = random.normal(size=(rows, 3))
    kind = hidden.argmax(axis=1) * 10
    # One column is tiny and far from 0, as histograms are.
    image = hidden @ maps.normal(size=(3, 6)) * [1, 1, 1, 1, 1, 1e-4] + 1
    text = hidden @ maps.normal(size=(3, 5)) + 0.1 * random.normal(size=(rows, 5))
    np.savez(path, image=image, text=text, kind=kind, **more)
    return path


def train(path: Path, out: Path, *options: str) -> Path:
    """Train on such a file, and return the run."""
    words = ["train", str(path), "--query", "image", "--key", "text", "--out", str(out)]
    assert main([*words, *SMALL, *options]) == 0
    return out
