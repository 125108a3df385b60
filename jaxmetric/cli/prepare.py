"""From options to a run that is ready: everything is checked, nothing written."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

from jaxmetric.cli import configs, defaults, hooks, losses, texts
from jaxmetric.cli.devices import ONE, Devices
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import ModelOptions, TrainOptions
from jaxmetric.cli.program import Program
from jaxmetric.cli.split import (
    Split,
    class_sizes,
    make_sampler,
    split_data,
    told_as_usage,
)
from jaxmetric.data.texts import is_text_file


class Prepared(NamedTuple):
    """A run that has been checked, before anything is written.

    Attributes:
      options: with every default filled in.
      config: what config.yaml holds.
      loss: what is minimised.
      split: the data.
      program: what is computed.
    """

    options: TrainOptions
    config: dict[str, Any]
    loss: losses.Loss
    split: Split
    program: Program


def prepare(options: TrainOptions, devices: Devices = ONE) -> Prepared:
    """Check everything that can be checked before the first step.

    Args:
      options: as the user gave them.
      devices: what is computed on.

    Raises:
      UsageError, DataError: the options, the data, or both together are a mistake.
    """
    check_numbers(options)
    hooks.check(options.run.log)
    if options.loss.name is not None:
        # Before the data is read, which may take a while.
        losses.resolve(options.loss.name, hyper_of(options))
    _check_text(options)
    split = split_data(options.data, options.model.input_shape, text=options.text)
    options = _with_split(options, split)
    if split.vocabulary is not None:
        model = texts.section(options, split.vocabulary, split.vectors)
        model["input_shape"] = tuple(model["input_shape"])
        options = dataclasses.replace(options, model=ModelOptions(**model))
    options = defaults.fill(options, split.input_shape, class_sizes(split.train))
    assert options.loss.name is not None
    loss = losses.resolve(options.loss.name, hyper_of(options))
    _check_kind(options, split)
    sampler = make_sampler(
        split.train,
        options.optimization,
        options.run.seed,
        has_pairs=not loss.has_proxies,
    )
    devices.check_batch(sampler.num_classes, sampler.m_per_class)
    with told_as_usage():
        program = Program(
            options,
            loss,
            split.train,
            sampler,
            devices=devices,
            start=_start(options, split),
        )
        program.trace()
    return Prepared(options, configs.to_mapping(options), loss, split, program)


def hyper_of(options: TrainOptions) -> dict[str, Any]:
    """Return the hyper-parameters in the section of the loss, None for the default."""
    values = dataclasses.asdict(options.loss)
    return {key: value for key, value in values.items() if key != "name"}


def _with_split(options: TrainOptions, split: Split) -> TrainOptions:
    """Return options that name the classes that are held out, and absolute paths."""
    data = options.data
    held_out = None if data.eval_data else split.held_out.class_names
    data = dataclasses.replace(
        data,
        data=_absolute(data.data),
        eval_data=None if data.eval_data is None else _absolute(data.eval_data),
        held_out=held_out,
    )
    text = options.text
    if text.word_vectors is not None:
        path = _absolute(text.word_vectors)
        text = dataclasses.replace(text, word_vectors=path)
    return dataclasses.replace(options, data=data, text=text)


def _start(options: TrainOptions, split: Split) -> Any:
    """Return what puts word vectors into an encoder of texts, None for any other."""
    if split.vocabulary is None:
        return None
    return functools.partial(
        texts.started,
        vocabulary=split.vocabulary,
        vectors=split.vectors,
        ids=split.train.inputs,
        seed=options.run.seed,
    )


def _check_text(options: TrainOptions) -> None:
    """Refuse options of texts where there are none, and those of scores."""
    for name, value in dataclasses.asdict(options.text).items():
        if value is None:
            continue
        flag = name.replace("_", "-")
        if not is_text_file(options.data.data):
            raise UsageError(
                f"--{flag} takes texts in a .tsv file, and {options.data.data} is "
                "none. Leave it out."
            )
        if name in ("above", "below"):
            raise UsageError(
                f"--{flag} takes pairs with scores, and {options.data.data} has "
                "labels. Leave it out."
            )


def _absolute(data: str) -> str:
    """Return the path of a data set from the root, to be found from anywhere."""
    return data if data == "digits" else str(Path(data).absolute())


def check_numbers(options: TrainOptions) -> None:
    """Require numbers in their range, whatever the data is."""
    optimization, run = options.optimization, options.run
    if optimization.steps is not None and optimization.epochs is not None:
        raise UsageError("--steps and --epochs exclude each other. Leave out one.")
    at_least = {
        "steps": (optimization.steps, 1),
        "epochs": (optimization.epochs, 1),
        "warmup-epochs": (optimization.warmup_epochs, 0),
        "batch-classes": (optimization.batch_classes, 1),
        "m-per-class": (optimization.m_per_class, 1),
        "batch-size": (options.pairs.batch_size, 1),
        "dim": (options.model.dim, 1),
        "image-size": (options.data.image_size, 1),
        "eval-every": (run.eval_every, 1),
        "save-every": (run.save_every, 1),
        "log-every": (run.log_every, 1),
        "seed": (run.seed, 0),
        "split-seed": (options.data.split_seed, 0),
    }
    for name, (value, least) in at_least.items():
        if value is not None and value < least:
            raise UsageError(f"--{name} must be at least {least}, got {value}.")
        if value is not None and value >= 2**31:
            raise UsageError(f"--{name} must be below 2147483648, got {value}.")
    rate = optimization.learning_rate
    if rate is not None and not 0 < rate < float("inf"):
        raise UsageError(
            f"--learning-rate must be a finite number above 0, got {rate:g}. Use 1e-3."
        )


def _check_kind(options: TrainOptions, split: Split) -> None:
    """Refuse options that have no effect on this kind of model or data."""
    model, augment = options.model, options.augment
    if model.kind == "towers":
        raise UsageError(
            "--model towers takes pairs: name the two sides with --query and --key, or "
            "use another model."
        )
    if split.vocabulary is None:
        _check_features(options, split)
    ranges = {"shift": augment.shift, "rotation": augment.rotation}
    ranges["scale"] = augment.scale
    chosen = [name for name, value in ranges.items() if value]
    if chosen and not augment.enabled:
        raise UsageError(
            f"--augment-{chosen[0]} has no effect with --no-augment. Leave out one."
        )
    if chosen and len(split.input_shape) == 1:
        what = "rows of features" if split.vocabulary is None else "texts"
        raise UsageError(
            f"--augment-{chosen[0]} takes images, and {options.data.data} has {what}. "
            "Leave it out."
        )


def _check_features(options: TrainOptions, split: Split) -> None:
    """Refuse options that have no effect on images or rows of features."""
    model = options.model
    if model.kind in texts.KINDS:
        raise UsageError(
            f"--model {model.kind} takes texts in a .tsv file, and "
            f"{options.data.data} is none. Leave it out."
        )
    for name in ("width", "depth", "heads", "trainable"):
        if getattr(model, name) is not None:
            raise UsageError(
                f"--{name} is about encoders of texts, and {options.data.data} has "
                "none. Leave it out."
            )
    other = {"conv": ("hidden", "mlp"), "mlp": ("widths", "conv")}[model.kind or "mlp"]
    name, kind = other
    if model.kind == "conv" and model.dropout is not None:
        raise UsageError("--dropout has no effect on --model conv. Leave it out.")
    if getattr(model, name) is not None:
        raise UsageError(
            f"--{name} has no effect on --model {model.kind}. Leave it out, or use "
            f"--model {kind}."
        )
    if model.kind == "conv" and len(split.input_shape) == 1:
        raise UsageError(
            f"--model conv takes images, and {options.data.data} has rows of features. "
            "Use --model mlp."
        )
