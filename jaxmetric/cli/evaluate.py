"""`jaxmetric eval`: how well a run retrieves, on its held-out classes or other data."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxmetric as jm
from jaxmetric.cli import configs, folders, measure, summary
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import EvalOptions, TrainOptions
from jaxmetric.cli.split import load_like, split_data


class Encoder(NamedTuple):
    """The encoder of a run.

    Attributes:
      embed: a function from raw inputs [n, ...] to embeddings [n, dim].
      shape: of one example that it takes.
      folder: of the run.
    """

    embed: Any
    shape: tuple[int, ...]
    folder: Path


def load_encoder(run: str) -> Encoder:
    """Return the encoder of a run, from its newest intact checkpoint.

    Raises:
      UsageError, CheckpointError: there is no such run, or it is damaged.
    """
    folder = folders.check_run(run)
    embed_fn, params, model_state, config = jm.training.load_run(folder)
    embed = measure.embedder(embed_fn)
    return Encoder(
        lambda inputs: embed(params, model_state, inputs),
        tuple(config["model"]["input_shape"]),
        folder,
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
    encoder = load_encoder(options.run)
    if options.query is not None and options.gallery is not None:
        query = _labelled(options.query, encoder, options)
        gallery = _labelled(options.gallery, encoder, options)
        labels, ref_labels = _common_labels(query, gallery)
        metrics = measure.evaluate(
            encoder.embed(query.inputs),
            labels,
            encoder.embed(gallery.inputs),
            ref_labels,
        )
        title = f"{options.query} searched in {options.gallery}"
    else:
        data, title = _data_of(options, encoder)
        assert data.labels is not None
        metrics = measure.evaluate(encoder.embed(data.inputs), data.labels)
    if metrics["num_queries"] == 0:
        raise UsageError(
            f"{title}: no query has another row of its class to find. Give data with "
            "two examples of a class."
        )
    if options.json:
        print(json.dumps({k: v if v == v else None for k, v in metrics.items()}))
    else:
        summary.print_metrics(title, metrics)


def _data_of(options: EvalOptions, encoder: Encoder) -> tuple[jm.data.Dataset, str]:
    """Return what is evaluated, and its title."""
    if options.data is not None:
        data = _labelled(options.data, encoder, options)
        return data, f"{options.data}: {len(data):,} rows, all classes"
    config = configs.read_config(encoder.folder / folders.CONFIG, TrainOptions)
    held_out = split_data(config.data, encoder.shape).held_out
    counts = f"{len(held_out):,} rows of {held_out.num_classes:,} classes"
    return held_out, f"{encoder.folder}: {counts} held out"


def _labelled(data: str, encoder: Encoder, options: EvalOptions) -> jm.data.Dataset:
    """Return a labelled data set that the encoder takes."""
    return load_like(data, encoder.shape, on_error=options.on_error)


def _common_labels(
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
