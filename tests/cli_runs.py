"""Small runs of the command line: data in files, and one trained run to look at."""

import json
from pathlib import Path

import numpy as np

# Twelve classes of ten rows, well apart; a step of an MLP this small takes no time.
NUM_CLASSES, NUM_ROWS, WIDTH = 12, 10, 6
SMALL = ["--hidden", "8", "--dim", "4", "--batch-classes", "4", "--m-per-class", "3"]


def write_features(path: Path, *, classes=NUM_CLASSES, rows=NUM_ROWS, seed=0) -> str:
    """Write feature rows around one centre a class; return the path."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 1, WIDTH))
    features = centres + 0.4 * random.normal(size=(classes, rows, WIDTH))
    labels = np.repeat(np.arange(classes), rows)
    features = features.reshape(-1, WIDTH).astype(np.float32)
    np.savez(path, features=features, labels=labels)
    return str(path)


def write_images(path: Path, *, classes=6, rows=5) -> str:
    """Write 8 x 8 images, a bright bar at the place of the class; return the path."""
    random = np.random.default_rng(0)
    images = random.integers(0, 60, (classes, rows, 8, 8), np.uint8)
    for c in range(classes):
        images[c, :, c % 8] += 150
    labels = np.repeat(np.arange(classes), rows).reshape(classes, rows)
    np.savez(path, images=images, labels=labels)
    return str(path)


def read_json(path: Path) -> dict:
    """Return the content of a JSON file."""
    return json.loads(path.read_text())


def read_lines(path: Path) -> list[dict]:
    """Return the content of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
