"""The two sides of a search: how each is read, and by what it is embedded."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import jaxmetric as jm
from jaxmetric.cli.calibration import Calibration, read_calibration
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.evaluate import Encoder, load_encoder
from jaxmetric.cli.paired import runs
from jaxmetric.cli.run_options import SearchOptions
from jaxmetric.cli.split import load_like
from jaxmetric.data.paired import Side


class SearchSide(NamedTuple):
    """One side of a search.

    Attributes:
      load: from a path to the data, of the kind that the run takes on this side.
      embed: from its inputs to embeddings.
      fingerprint: a hash that is the same for the same embeddings.
    """

    load: Callable[[str], jm.data.Dataset]
    embed: Callable[[np.ndarray], np.ndarray]
    fingerprint: str


class SearchSides(NamedTuple):
    """What a run offers to a search.

    Attributes:
      folder: of the run.
      query, gallery: the sides.
      calibration: the threshold of the run; None where there is none to go by.
      notes: on why there is none.
    """

    folder: Path
    query: SearchSide
    gallery: SearchSide
    calibration: Calibration | None
    notes: tuple[str, ...]


def load_sides(options: SearchOptions) -> SearchSides:
    """Return the sides of a run: of pairs each has a tower of its own.

    Raises:
      UsageError, CheckpointError: there is no such run, or it is damaged; the options
        do not fit it.
    """
    if runs.is_paired(options.run):
        return _of_pairs(options)
    if options.side is not None:
        raise UsageError(
            f"--side {options.side} takes a run of pairs, and {options.run} has one "
            "encoder. Leave it out."
        )
    encoder = load_encoder(options.run)
    load = functools.partial(
        load_like,
        shape=encoder.shape,
        on_error=options.on_error,
        require_labels=False,
        vocabulary=encoder.vocabulary,
    )
    side = SearchSide(load, encoder.embed, encoder.fingerprint)
    return SearchSides(encoder.folder, side, side, *_calibration(encoder))


def _of_pairs(options: SearchOptions) -> SearchSides:
    """Return the sides of a run of pairs; a distance of its pairs has no threshold."""
    run = runs.load_paired(options.run)
    query: Side = options.side or "query"

    def of(side: Side) -> SearchSide:
        return SearchSide(
            lambda path: run.task.searched(path, side, run.options),
            lambda inputs: run.task.embed_searched(run.embed, side, inputs),
            f"{run.fingerprint} {side}",
        )

    gallery: Side = "key" if query == "query" else "query"
    return SearchSides(run.folder, of(query), of(gallery), None, ())


def _calibration(encoder: Encoder) -> tuple[Calibration | None, tuple[str, ...]]:
    """Return the threshold of the run, or a note on why there is none to go by."""
    found = read_calibration(encoder.folder)
    remedy = f"Use jaxmetric calibrate {encoder.folder}."
    if found is None:
        why = "has no threshold yet, so nothing is called known or unknown"
        return None, (f"{encoder.folder} {why}. {remedy}",)
    if found.parameters_sha256 != encoder.fingerprint:
        why = "belongs to another checkpoint, so nothing is called known or unknown"
        return None, (f"the threshold of {encoder.folder} {why}. {remedy}",)
    return found, ()
