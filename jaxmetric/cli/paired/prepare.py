"""From options to a run of pairs that is ready: all is checked, nothing written."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from jaxmetric import data
from jaxmetric.cli import configs, hooks
from jaxmetric.cli.devices import ONE, Devices
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import ModelOptions, TrainOptions
from jaxmetric.cli.paired.losses import PairedLoss
from jaxmetric.cli.paired.program import PairedProgram
from jaxmetric.cli.paired.split import PairedSplit
from jaxmetric.cli.paired.tasks import Task
from jaxmetric.cli.prepare import check_numbers, hyper_of
from jaxmetric.cli.split import told_as_usage


class PairedPrepared(NamedTuple):
    """A run of pairs that has been checked, before anything is written.

    Attributes:
      options: with every default filled in.
      config: what config.yaml holds.
      loss: what is minimised.
      split: the data.
      program: what is computed.
      task: the kind of pairs.
    """

    options: TrainOptions
    config: dict[str, Any]
    loss: PairedLoss
    split: PairedSplit
    program: PairedProgram
    task: Task


def prepare_pairs(
    options: TrainOptions, task: Task, devices: Devices = ONE
) -> PairedPrepared:
    """Check everything that can be checked before the first step.

    Args:
      options: as the user gave them.
      task: the kind of pairs.
      devices: what is computed on.

    Raises:
      UsageError, DataError: the options, the data, or both together are a mistake.
    """
    check_numbers(options)
    hooks.check(options.run.log)
    _check_options(options)
    if options.loss.name is not None:
        # Before the data is read, which may take a while.
        task.resolve(options.loss.name, hyper_of(options))
    split = task.split(options)
    train = split.train
    options = _with_paths(options)
    options = task.defaults(options, train)
    model = task.sections(options, train)
    options = dataclasses.replace(options, model=ModelOptions(**model))
    assert options.loss.name is not None
    loss = task.resolve(options.loss.name, hyper_of(options))
    rows, notes = task.rows(options, train)
    _check_loss(loss, rows, split)
    size = options.pairs.batch_size
    assert size is not None
    with told_as_usage():
        sampler = data.PairSampler(len(train), batch_size=size, seed=options.run.seed)
    if size % devices.count:
        raise UsageError(
            f"--batch-size {size} cannot be shared alike by {devices.count} devices. "
            f"Use a multiple of {devices.count}."
        )
    with told_as_usage():
        program = task.program_class(
            options,
            loss,
            train,
            sampler,
            rows=rows,
            start=lambda params, state: task.start(options, params, state, train),
            devices=devices,
        )
        program.trace()
    split = split._replace(notes=(*split.notes, *notes))
    config = configs.to_mapping(options)
    return PairedPrepared(options, config, loss, split, program, task)


def _with_paths(options: TrainOptions) -> TrainOptions:
    """Return options with absolute paths, to be found from anywhere."""
    given = options.data
    chosen = {"data": str(Path(given.data).absolute())}
    if given.eval_data is not None:
        chosen["eval_data"] = str(Path(given.eval_data).absolute())
    return dataclasses.replace(options, data=dataclasses.replace(given, **chosen))


def _check_options(options: TrainOptions) -> None:
    """Refuse options that classes have and pairs have not."""
    optimization = options.optimization
    for name, value in (
        ("warmup-epochs", optimization.warmup_epochs),
        ("batch-classes", optimization.batch_classes),
        ("m-per-class", optimization.m_per_class),
        ("held-out", options.data.held_out),
    ):
        if value:
            remedy = {
                "held-out": "Use --eval-fraction or --eval-data.",
                "warmup-epochs": "Leave it out.",
            }.get(name, "Use --batch-size.")
            raise UsageError(f"--{name} is about classes, these are pairs. {remedy}")
    size = options.pairs.batch_size
    if size is not None and size < 2:
        raise UsageError(
            f"--batch-size must be at least 2, got {size}. Without another pair in the "
            "batch nothing is a negative."
        )


def _check_loss(loss: PairedLoss, rows: dict[str, Any], split: PairedSplit) -> None:
    """Require what the loss is to be given."""
    if loss.has_proxies and split.train.labels is None:
        raise UsageError(
            f"--loss {loss.name} has a proxy for each category, and the pairs have "
            "none. Name an array of categories with --labels, or use --loss info_nce."
        )
    if "scores" in loss.arrays and "scores" not in rows:
        raise UsageError(
            f"--loss {loss.name} takes pairs with scores, which these have not. "
            "Use --loss info_nce."
        )
