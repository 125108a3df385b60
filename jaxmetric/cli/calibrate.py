"""`jaxmetric calibrate`: the threshold for a wanted false-accept rate."""

import json
from typing import Any

import numpy as np

from jaxmetric.cli import pairs as pairing
from jaxmetric.cli import summary
from jaxmetric.cli.calibration import (
    NAME,
    Calibration,
    find_threshold,
    write_calibration,
)
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.evaluate import data_of, load_encoder
from jaxmetric.cli.outputs import check_file
from jaxmetric.cli.run_options import CalibrateOptions

# Rows whose nearest of another class is looked for, at most.
_MOST_QUERIES = 1024

_BLOCK = 64


def calibrate(options: CalibrateOptions) -> None:
    """Run `jaxmetric calibrate`.

    Raises:
      UsageError, CheckpointError, DataError: mistakes; nothing has been written.
    """
    if not 0 < options.far < 1:
        raise UsageError(
            f"--far must be above 0 and below 1, got {options.far:g}. Use 1e-3."
        )
    encoder = load_encoder(options.run)
    check_file(options.run, encoder.folder / NAME, ".json")
    data, title = data_of(encoder, options.data, options.on_error)
    assert data.labels is not None
    chosen = pairing.choose(pairing.Rows(data.labels))
    num_same = int(chosen.is_same.sum())
    num_different = len(chosen.is_same) - num_same
    if not num_same or not num_different:
        missing = "two classes" if num_same else "two examples of a class"
        raise UsageError(f"{title}: has not {missing}. Give more data.")
    rows = encoder.embed(data.inputs)
    distances = pairing.distances(chosen, rows)
    threshold, far, tar = find_threshold(distances, chosen.is_same, options.far)
    nearest = _nearest_of_another_class(rows, data.labels)
    calibration = Calibration(
        threshold=threshold,
        wanted=options.far,
        false_accept_rate=far,
        true_accept_rate=tar,
        false_identification_rate=float(np.mean(nearest <= threshold)),
        same_pairs=num_same,
        different_pairs=num_different,
        rows=len(rows),
        data=title,
        parameters_sha256=encoder.fingerprint,
    )
    path = write_calibration(encoder.folder, calibration)
    if options.json:
        print(json.dumps(calibration._asdict()))
        return
    shown: dict[str, Any] = {
        name: value
        for name, value in calibration._asdict().items()
        if name not in ("wanted", "data", "parameters_sha256")
    }
    shown["threshold"] = f"{threshold:.4f}"
    # A rate of one in a million is not to read 0.00 %.
    shown["false_accept_rate"] = f"{100 * far:.3g} %"
    summary.print_metrics(title, shown)
    print(f"Threshold: {path}")
    print(f"Next: jaxmetric search {options.run} QUERY GALLERY -k 10")


def _nearest_of_another_class(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the distances of rows, a share of many, to the nearest of other classes.

    Memory: O(n) and a block of 64 queries against all rows.
    """
    queries = np.arange(len(rows))
    if len(rows) > _MOST_QUERIES:
        queries = np.random.default_rng(0).permutation(len(rows))[:_MOST_QUERIES]
    squares = np.einsum("ij,ij->i", rows, rows)
    found = []
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        far = squares - 2 * (rows[block] @ rows.T)
        far[labels[block][:, None] == labels] = np.inf
        # Measured afresh: the product form is noise for rows that are near.
        differences = rows[block] - rows[far.argmin(axis=1)]
        found.append(np.sqrt(np.einsum("ij,ij->i", differences, differences)))
    return np.concatenate(found)
