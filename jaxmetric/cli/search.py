"""`jaxmetric search`: the nearest rows of a gallery, known or unknown."""

import sys
from pathlib import Path

import numpy as np

import jaxmetric as jm
from jaxmetric.cli import search_blocks, search_index, search_output
from jaxmetric.cli.calibration import Calibration, read_calibration
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.evaluate import Encoder, load_encoder
from jaxmetric.cli.outputs import check_file
from jaxmetric.cli.run_options import SearchOptions
from jaxmetric.cli.search_index import Index
from jaxmetric.cli.split import load_like


def search(options: SearchOptions) -> None:
    """Run `jaxmetric search`.

    Raises:
      UsageError, CheckpointError, DataError: mistakes; nothing has been written.
    """
    _check(options)
    encoder = load_encoder(options.run)
    calibration, notes = _calibration(encoder)
    path = _index_path(options, encoder)
    known = search_index.read_index(path)
    if known is not None and known.fingerprint != encoder.fingerprint:
        if options.index is not None:
            raise UsageError(
                f"--index {path}: was made with another run or checkpoint than "
                f"{options.run}. Remove it, or give another name."
            )
        notes.append(f"{path} was made with another checkpoint; it is made anew.")
    query = _load(options.query, encoder, options)
    gallery = _load(options.gallery, encoder, options)
    if options.k > len(gallery):
        raise UsageError(
            f"-k must be at most the {len(gallery):,} rows of {options.gallery}, got "
            f"{options.k}. Use -k {len(gallery)}."
        )
    if options.picture is not None and not query.is_image:
        raise UsageError(
            f"--picture: {options.query} has rows of features, which have no picture. "
            "Leave it out."
        )
    index, num_new = search_index.embed_new(
        gallery.inputs, known, encoder.embed, encoder.fingerprint
    )
    rows = encoder.embed(query.inputs)
    if options.backend == "faiss":
        found = search_blocks.nearest_by_faiss(rows, index.embeddings, options.k)
    else:
        found = search_blocks.nearest(rows, index.embeddings, options.k)
    if _is_news(known, index, num_new):
        search_index.write_index(path, index)
    answer = search_output.Answer(query, gallery, *found, calibration)
    notes += [f"skipped {skipped}" for skipped in query.skipped + gallery.skipped]
    if options.picture is not None:
        search_output.write_picture(Path(options.picture), answer)
    if options.json:
        search_output.print_lines(answer)
        for note in notes:
            print(f"jaxmetric search: note: {note}", file=sys.stderr)
        return
    search_output.print_table(options.query, options.gallery, answer)
    for note in notes:
        print(f"Note: {note}")
    print(f"Index: {path}, {num_new:,} of {len(gallery):,} rows were new")
    if options.picture is not None:
        print(f"Picture: {options.picture}")


def _check(options: SearchOptions) -> None:
    """Refuse what is a mistake whatever the data is."""
    if options.k < 1:
        raise UsageError(f"-k must be at least 1, got {options.k}. Use -k 10.")
    if options.picture is not None:
        check_file("--picture", Path(options.picture), ".png")
    if options.backend == "faiss":
        search_blocks.find_faiss()


def _calibration(encoder: Encoder) -> tuple[Calibration | None, list[str]]:
    """Return the threshold of the run, or a note on why there is none to go by."""
    found = read_calibration(encoder.folder)
    remedy = f"Use jaxmetric calibrate {encoder.folder}."
    if found is None:
        why = "has no threshold yet, so nothing is called known or unknown"
        return None, [f"{encoder.folder} {why}. {remedy}"]
    if found.parameters_sha256 != encoder.fingerprint:
        why = "belongs to another checkpoint, so nothing is called known or unknown"
        return None, [f"the threshold of {encoder.folder} {why}. {remedy}"]
    return found, []


def _index_path(options: SearchOptions, encoder: Encoder) -> Path:
    """Return the file of the index, which must be one that can be made."""
    path = search_index.usual_path(encoder.folder, options.gallery)
    if options.index is not None:
        path = Path(options.index)
    check_file("--index", path, ".npz")
    for data in (options.query, options.gallery):
        if path.exists() and Path(data).exists() and path.samefile(data):
            raise UsageError(f"--index {path}: is the data itself. Give another name.")
    return path


def _load(data: str, encoder: Encoder, options: SearchOptions) -> jm.data.Dataset:
    """Return a data set that the encoder takes."""
    return load_like(
        data,
        encoder.shape,
        on_error=options.on_error,
        require_labels=False,
        vocabulary=encoder.vocabulary,
    )


def _is_news(known: Index | None, index: Index, num_new: int) -> bool:
    """Return whether the file does not hold this index already."""
    return num_new > 0 or known is None or not np.array_equal(known.keys, index.keys)
