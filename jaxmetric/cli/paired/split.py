"""The rows of a run of pairs: trained on, and held out."""

import hashlib
from typing import NamedTuple

import numpy as np

from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import DataOptions
from jaxmetric.data import PairedDataset, hold_out_rows


class PairedSplit(NamedTuple):
    """What is trained on, and what is not.

    Attributes:
      name: of the data set.
      train, held_out: with labels of one numbering.
      notes: lines on what is odd but no mistake.
      sha256: of everything in both.
    """

    name: str
    train: PairedDataset
    held_out: PairedDataset
    notes: tuple[str, ...]
    sha256: str


def make_split(train: PairedDataset, held_out: PairedDataset) -> PairedSplit:
    """Return the split of two sets, classes numbered alike where both have names."""
    if train.labels is None or held_out.labels is None:
        names, train_labels, held_out_labels = (), None, None
    else:
        names = tuple(dict.fromkeys((*train.class_names, *held_out.class_names)).keys())
        numbers = {name: i for i, name in enumerate(names)}
        train_labels, held_out_labels = (
            np.array([numbers[name] for name in data.class_names], np.int32)[
                data.labels
            ]
            for data in (train, held_out)
        )
    train, held_out = (
        PairedDataset(
            data.query, data.key, data.name, labels, names, data.scores, data.notes
        )
        for data, labels in ((train, train_labels), (held_out, held_out_labels))
    )
    notes = tuple(dict.fromkeys(train.notes + held_out.notes))
    digest = _sha256(train, held_out)
    return PairedSplit(train.name, train, held_out, notes, digest)


def hold_out(data: DataOptions, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a file to train on, and the share that is held out.

    Raises:
      UsageError: the share is none, or there are too few rows.
    """
    if not 0 < data.eval_fraction < 1:
        raise UsageError(
            "--eval-fraction must be above 0 and below 1, got "
            f"{data.eval_fraction:g}. Use 0.2."
        )
    if num_rows < 4:
        raise UsageError(
            f"{data.data}: has {num_rows} pairs, and at least 4 are needed to hold "
            "some out. Give more, or other data with --eval-data."
        )
    return hold_out_rows(num_rows, fraction=data.eval_fraction, seed=data.split_seed)


def _sha256(*sets: PairedDataset) -> str:
    """Return a hash of all arrays and class names."""
    digest = hashlib.sha256()
    for data in sets:
        for array in (data.query, data.key, data.labels, data.scores):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        digest.update(repr(data.class_names).encode())
    return digest.hexdigest()
