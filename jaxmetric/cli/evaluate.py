"""`jaxmetric eval`: how well a run retrieves, on its held-out classes or other data."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

import jaxmetric as jm
from jaxmetric.cli import (
    configs,
    folders,
    groups,
    identification,
    measure,
    summary,
    texts,
)
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.identification import Sides
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.paired import runs
from jaxmetric.cli.run_options import EvalOptions
from jaxmetric.cli.split import load_like, split_data
from jaxmetric.data import Vocabulary


class Encoder(NamedTuple):
    """The encoder of a run.

    Attributes:
      embed: a function from raw inputs [n, ...] to embeddings [n, dim].
      shape: of one example that it takes.
      folder: of the run.
      fingerprint: a hash of its parameters, the same for the same embeddings.
      vocabulary: of a run on texts, else None.
    """

    embed: Any
    shape: tuple[int, ...]
    folder: Path
    fingerprint: str
    vocabulary: Vocabulary | None = None


def load_encoder(run: str) -> Encoder:
    """Return the encoder of a run, from its newest intact checkpoint.

    Raises:
      UsageError, CheckpointError: there is no such run, or it is damaged.
    """
    folder = folders.check_run(run)
    if runs.is_paired(run):
        raise UsageError(
            f"{run}: was trained on pairs, and has two encoders. Use eval, embed, "
            "search or report, or a run on classes."
        )
    embed_fn, params, model_state, config = jm.training.load_run(folder)
    embed = measure.embedder(embed_fn)
    return Encoder(
        lambda inputs: embed(params, model_state, inputs),
        tuple(config["model"]["input_shape"]),
        folder,
        summary.sha256_of((params, model_state)),
        texts.load_vocabulary(folder)
        if config["model"].get("kind") in texts.KINDS
        else None,
    )


def evaluate(options: EvalOptions) -> None:
    """Run `jaxmetric eval`.

    Raises:
      UsageError, CheckpointError, DataError: mistakes.
    """
    if (options.query is None) != (options.gallery is None):
        given, other = ("query", "gallery")[:: 1 if options.query else -1]
        raise UsageError(f"--{given} needs --{other} as well, the other set.")
    if options.query is not None and options.data is not None:
        raise UsageError(
            f"{options.data}: has no place beside --query and --gallery. Leave it out."
        )
    if runs.is_paired(options.run):
        runs.evaluate(options)
        return
    request = identification.check(options)
    encoder = load_encoder(options.run)
    if options.query is not None and options.gallery is not None:
        sides, note = _two_sets(options.query, options.gallery, encoder, options)
        title = f"{options.query} searched in {options.gallery}{note}"
    else:
        sides, title = _one_set(encoder, options)
    if sides.groups is not None:
        title += ", rows of one class and one group left out"
    metrics = identification.measure(sides, request)
    if metrics.get("num_queries") == 0:
        raise UsageError(
            f"{title}: no query has another row of its class to find. Give data with "
            "two examples of a class."
        )
    if options.json:
        print(json.dumps({k: v if v == v else None for k, v in metrics.items()}))
    else:
        summary.print_metrics(title, identification.to_show(metrics))
        if request.roc is not None:
            print(f"Curve: {request.roc}")


def _one_set(encoder: Encoder, options: EvalOptions) -> tuple[Sides, str]:
    """Return rows that are compared with each other, and their title."""
    if options.data is None:
        data, title = data_of(encoder, None, options.on_error)
    else:
        data = _labelled(options.data, encoder, options)
        title = f"{options.data}: {len(data):,} rows, all classes"
    numbers = None
    if options.groups is not None and options.data is not None:
        found = groups.read_groups(options.data, len(data), options.groups)
        numbers = None if found is None else groups.number(found)[0]
    return Sides(encoder.embed(data.inputs), data.labels, groups=numbers), title


def _two_sets(
    query_data: str, gallery_data: str, encoder: Encoder, options: EvalOptions
) -> tuple[Sides, str]:
    """Return the queries and the gallery, and a note for the title.

    Groups count where both have them.
    """
    query = _labelled(query_data, encoder, options)
    gallery = _labelled(gallery_data, encoder, options)
    labels = ref_labels = None
    if query.labels is not None and gallery.labels is not None:
        labels, ref_labels = common_labels(query, gallery)
    sides = ((query_data, len(query)), (gallery_data, len(gallery)))
    found = [groups.read_groups(*side, options.groups) for side in sides]
    both = [group for group in found if group is not None]
    numbers = groups.number(*both) if len(both) == 2 else [None, None]
    note = ", groups left aside: one of them has none" if len(both) == 1 else ""
    rows, ref_rows = (encoder.embed(data.inputs) for data in (query, gallery))
    return Sides(rows, labels, ref_rows, ref_labels, *numbers), note


def data_of(
    encoder: Encoder, data: str | None, on_error: Literal["stop", "skip"]
) -> tuple[jm.data.Dataset, str]:
    """Return labelled data, that which the run held out if none is named; its title."""
    if data is not None:
        loaded = load_like(
            data, encoder.shape, on_error=on_error, vocabulary=encoder.vocabulary
        )
        return loaded, f"{data}: {len(loaded):,} rows, all classes"
    config = configs.read_config(encoder.folder / folders.CONFIG, TrainOptions)
    held_out = split_data(
        config.data, encoder.shape, vocabulary=encoder.vocabulary
    ).held_out
    counts = f"{len(held_out):,} rows of {held_out.num_classes:,} classes"
    return held_out, f"{encoder.folder}: {counts} held out"


def _labelled(data: str, encoder: Encoder, options: EvalOptions) -> jm.data.Dataset:
    """Return a data set that the encoder takes; a list of pairs needs no labels."""
    wants_labels = (
        options.pairs is None or options.rerank or options.few_shot is not None
    )
    return load_like(
        data,
        encoder.shape,
        on_error=options.on_error,
        require_labels=wants_labels,
        vocabulary=encoder.vocabulary,
    )


def common_labels(
    query: jm.data.Dataset, gallery: jm.data.Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels that are equal where the names of the classes are.

    Raises:
      UsageError: no name is in both.
    """
    numbers = {name: i for i, name in enumerate(gallery.class_names)}
    if not numbers.keys() & set(query.class_names):
        raise UsageError(
            f"{query.name} and {gallery.name} have no class name in common, such as "
            f"{query.class_names[0]!r} and {gallery.class_names[0]!r}. "
            "Name classes alike in both."
        )
    for name in query.class_names:
        numbers.setdefault(name, len(numbers))
    to_common = np.array([numbers[name] for name in query.class_names], np.int32)
    assert query.labels is not None
    assert gallery.labels is not None
    return to_common[query.labels], gallery.labels
