"""The distance up to which rows are taken for one class, as a run keeps it."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.outputs import whole

NAME = "calibration.json"

_VERSION = 1


class Calibration(NamedTuple):
    """A threshold and what it was found on.

    Attributes:
      threshold: rows at this Euclidean distance or less are taken for one class.
      wanted: the false-accept rate that was asked for.
      false_accept_rate, true_accept_rate: of the pairs it was found on.
      false_identification_rate: the share of rows that have a row of another class as
        near, among all rows it was found on: of so large a gallery, what is called
        known though its class is not there.
      same_pairs, different_pairs: how many pairs these were.
      rows: how many rows.
      data: what they were, in words.
      parameters_sha256: of the encoder; another one has other distances.
    """

    threshold: float
    wanted: float
    false_accept_rate: float
    true_accept_rate: float
    false_identification_rate: float
    same_pairs: int
    different_pairs: int
    rows: int
    data: str
    parameters_sha256: str


def find_threshold(
    distances: np.ndarray, is_same: np.ndarray, far: float
) -> tuple[float, float, float]:
    """Return the largest distance that occurs and accepts few enough different pairs.

    Args:
      distances: [pairs].
      is_same: [pairs] bool; both kinds are there.
      far: the share of different pairs that may be accepted.

    Returns:
      (threshold, false accept rate, true accept rate): a pair at the threshold is
      accepted.

    Raises:
      UsageError: even the nearest different pair is more than that share.
    """
    different = np.sort(distances[~is_same])
    num_different = len(different)
    # As many may be accepted; the next one must be beyond the threshold.
    allowed = int(np.floor(far * num_different * (1 + 1e-12)))
    same = np.sort(distances[is_same])
    beyond = different[allowed] if allowed < num_different else np.float32(np.inf)
    below = [
        side[: np.searchsorted(side, beyond, "left")] for side in (same, different)
    ]
    if allowed < 1 or not any(map(len, below)):
        least = 1 / num_different if allowed < 1 else _first_rate(different)
        raise UsageError(
            f"--far {far:g}: of {num_different:,} pairs of different classes, the "
            f"smallest rate is {least:.3g}. Use a larger one, or give more data."
        )
    threshold = max(side[-1] for side in below if len(side))
    accepted, mistaken = (len(side) for side in below)
    return float(threshold), mistaken / num_different, accepted / len(same)


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write the calibration of a run, whole or not at all; return its path."""
    path = folder / NAME
    content = {"version": _VERSION, **calibration._asdict()}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with whole(path) as file:
        file.write(text.encode())
    return path


def read_calibration(folder: Path) -> Calibration | None:
    """Return the calibration of a run, None where it has none.

    Raises:
      UsageError: the file is damaged, or of another version.
    """
    path = folder / NAME
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("version") != _VERSION:
            raise ValueError("of another version")
        calibration = Calibration(**found)
        for name, kind in Calibration.__annotations__.items():
            value = getattr(calibration, name)
            is_number = type(value) in (int, float) and kind is float
            if not is_number and type(value) is not kind:
                raise ValueError(f"{name} must be {kind.__name__}")
        if not math.isfinite(calibration.threshold) or calibration.threshold < 0:
            raise ValueError("threshold must be a distance")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UsageError(
            f"{path}: is damaged ({reason}). Use jaxmetric calibrate {folder}."
        ) from error
    return calibration


def _first_rate(different: np.ndarray) -> float:
    """Return the share of different pairs that is accepted at their least distance."""
    return int(np.searchsorted(different, different[0], "right")) / len(different)
