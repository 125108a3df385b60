"""`jaxmetric search`: the nearest rows of a gallery, known or unknown."""

import sys
from pathlib import Path

import numpy as np

from jaxmetric.cli import search_blocks, search_index, search_output
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.outputs import check_file
from jaxmetric.cli.run_options import SearchOptions
from jaxmetric.cli.search_index import Index
from jaxmetric.cli.search_sides import load_sides


def search(options: SearchOptions) -> None:
    """Run `jaxmetric search`.

    Raises:
      UsageError, CheckpointError, DataError: mistakes; nothing has been written.
    """
    _check(options)
    sides = load_sides(options)
    notes = list(sides.notes)
    path = _index_path(options, sides.folder)
    known = search_index.read_index(path)
    if known is not None and known.fingerprint != sides.gallery.fingerprint:
        if options.index is not None:
            raise UsageError(
                f"--index {path}: was made with another run or checkpoint than "
                f"{options.run}. Remove it, or give another name."
            )
        notes.append(f"{path} was made with another encoder; it is made anew.")
    query = sides.query.load(options.query)
    gallery = sides.gallery.load(options.gallery)
    if options.k > len(gallery):
        raise UsageError(
            f"-k must be at most the {len(gallery):,} rows of {options.gallery}, got "
            f"{options.k}. Use -k {len(gallery)}."
        )
    for data, path_of in ((query, options.query), (gallery, options.gallery)):
        if options.picture is not None and not data.is_image:
            raise UsageError(
                f"--picture: {path_of} has rows of features, which have no picture. "
                "Leave it out."
            )
    index, num_new = search_index.embed_new(
        gallery.inputs, known, sides.gallery.embed, sides.gallery.fingerprint
    )
    rows = sides.query.embed(query.inputs)
    if options.backend == "faiss":
        found = search_blocks.nearest_by_faiss(rows, index.embeddings, options.k)
    else:
        found = search_blocks.nearest(rows, index.embeddings, options.k)
    if _is_news(known, index, num_new):
        search_index.write_index(path, index)
    answer = search_output.Answer(query, gallery, *found, sides.calibration)
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


def _index_path(options: SearchOptions, folder: Path) -> Path:
    """Return the file of the index, which must be one that can be made."""
    path = search_index.usual_path(folder, options.gallery)
    if options.index is not None:
        path = Path(options.index)
    check_file("--index", path, ".npz")
    for data in (options.query, options.gallery):
        if path.exists() and Path(data).exists() and path.samefile(data):
            raise UsageError(f"--index {path}: is the data itself. Give another name.")
    return path


def _is_news(known: Index | None, index: Index, num_new: int) -> bool:
    """Return whether the file does not hold this index already."""
    return num_new > 0 or known is None or not np.array_equal(known.keys, index.keys)
