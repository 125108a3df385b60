"""`jaxmetric train`: from options to a finished run, or from a cut run to its end."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import jaxmetric as jm
from jaxmetric.cli import configs, devices, folders, measure, outcome, summary
from jaxmetric.cli.distributed import Processes
from jaxmetric.cli.errors import DivergedError, UsageError
from jaxmetric.cli.loop import Loop
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.prepare import Prepared, prepare
from jaxmetric.cli.progress import Progress
from jaxmetric.cli.records import Log
from jaxmetric.cli.report.ending import write_report
from jaxmetric.cli.signals import Interrupted, Interrupts


def train(
    options: TrainOptions, command: str, interrupts: Interrupts, processes: Processes
) -> None:
    """Run `jaxmetric train`.

    Args:
      options: as the user gave them; with `resume`, over those of the run.
      command: the command line, for the summary.
      interrupts: where signals arrive.
      processes: who trains; the first alone writes.

    Raises:
      UsageError, CheckpointError, DataError: mistakes; nothing has been written.
      DivergedError: training went where no step is finite; the log is saved.
      Interrupted: a signal has come; a checkpoint is saved if steps were taken.
    """
    if options.resume is not None:
        _resume(options, command, interrupts, processes)
        return
    processes.first(lambda: folders.check_out(options.out))
    prepared = _prepared(options, processes)
    folder = None

    def make() -> str:
        name, config = prepared.split.name, prepared.config
        return str(folders.make_folder(options.out, name, config))

    try:
        with interrupts.held():
            folder = Path(processes.first(make))
        _tell_beginning(prepared, folder)
        with _lock(folder, processes):
            _run(prepared, folder, command, interrupts, processes, is_resumed=False)
    except Interrupted as error:
        if folder is None or str(error):
            raise
        text = f"stopped before the first step. {_to_go_on(folder)}"
        raise Interrupted(text) from None


def _prepared(options: TrainOptions, processes: Processes) -> Prepared:
    """Return the run, ready and the same in all processes."""

    def make() -> Prepared:
        count = processes.count
        return prepare(options, devices.choose(options.devices, num_processes=count))

    prepared = processes.each(make)
    identity = outcome.identity(prepared)
    processes.check_alike(
        {
            "options": identity["config_sha256"],
            "data": identity["data_sha256"],
            "devices": prepared.program.devices.count,
            "versions": [jm.__version__, jax.__version__],
        }
    )
    return prepared


@contextlib.contextmanager
def _lock(folder: Path, processes: Processes) -> Iterator[None]:
    """Hold a folder for writing."""
    with contextlib.ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(jm.training.RunLock(folder))

        processes.first(enter)
        yield


def _resume(
    options: TrainOptions, command: str, interrupts: Interrupts, processes: Processes
) -> None:
    """Go on with a run, under the options that it has."""
    folder = Path(str(options.resume))
    config = processes.first(
        lambda: configs.to_mapping(
            configs.read_config(folder / folders.CONFIG, TrainOptions)
        )
    )
    changed = configs.difference(config, configs.to_mapping(options))

    def check() -> None:
        if changed:
            raise UsageError(
                f"--resume {options.resume}: the options differ from those of the run: "
                f"{changed}. Leave them out, or begin a new run."
            )

    processes.each(check)
    with _lock(folder, processes):
        found = processes.first(lambda: summary.read_summary(folder / folders.SUMMARY))
        if found is not None and found.get("status") == "finished":
            print(f"{folder}: is finished, after {found.get('steps', 0):,} steps.")
            _tell_next(folder, options.data.data)
            return
        prepared = _prepared(options, processes)
        _tell_beginning(prepared, folder)
        _run(prepared, folder, command, interrupts, processes, is_resumed=True)


def _run(
    prepared: Prepared,
    folder: Path,
    command: str,
    interrupts: Interrupts,
    processes: Processes,
    *,
    is_resumed: bool,
) -> None:
    """Train in a folder that is ours, from its newest checkpoint or the beginning."""
    identity = outcome.identity(prepared)
    step = 0
    if is_resumed:
        step = processes.first(lambda: _checked_step(folder, identity))
    path = folder / folders.METRICS if processes.is_first else None
    with Log(path, step=step) as log:
        log.records = processes.first(lambda: log.records)
        loop = Loop(
            prepared.program,
            folder=folder,
            metadata=identity,
            log=log,
            evaluate=_evaluation(prepared),
            interrupts=interrupts,
            processes=processes,
        )
        if is_resumed:
            loop.restore()
        try:
            blocks = _train(prepared, loop, log, interrupts)
            if processes.is_first:
                state = prepared.program.devices.local(loop.state)
                outcome.write_figures(prepared, folder, log.records, state)
        except Interrupted:
            loop.finish()
            raise Interrupted(
                f"stopped after {loop.step:,} of {prepared.program.total_steps:,} "
                f"steps, all saved. {_to_go_on(folder)}"
            ) from None
        except DivergedError as error:
            loop.finish()
            raise DivergedError(
                f"{folder}: {error}. The log is in {folder / folders.METRICS}. Try a "
                "lower --learning-rate."
            ) from error
        if processes.is_first:
            told = outcome.describe(prepared, loop, command) | blocks
            with interrupts.held():
                summary.write_summary(folder / folders.SUMMARY, told)
            state = prepared.program.devices.local(loop.state)
            write_report(prepared, folder, log.records, state, told)
    _tell_end(prepared, folder, loop, blocks)


def _train(
    prepared: Prepared, loop: Loop, log: Log, interrupts: Interrupts
) -> dict[str, measure.Metrics]:
    """Take the steps that are left, and return the metrics before and after."""
    held_out, plain = prepared.split.held_out, prepared.options.plain or None
    pixels = log.find("pixels", 0)
    if pixels is None:
        spread = prepared.program.devices
        pixels = interrupts.run_aside(lambda: measure.evaluate_pixels(held_out, spread))
        log.write({"step": 0, "kind": "pixels", **pixels})
    with Progress(total_steps=prepared.program.total_steps, plain=plain) as bar:
        loop.run(bar)
    trained = loop.evaluate_now()
    untrained = log.find("eval", 0)
    if untrained is None:
        state, evaluate = prepared.program.initial_state(), _evaluation(prepared)
        untrained = evaluate(state.params, state.model_state)
    return {"untrained": untrained, "pixels": pixels, "trained": trained}


def _evaluation(prepared: Prepared) -> Any:
    """Return a function (params, model_state) -> metrics on the held-out classes."""
    held_out = prepared.split.held_out
    assert held_out.labels is not None
    labels, spread = held_out.labels, prepared.program.devices
    embed = measure.embedder(prepared.program.embed_fn, spread)

    def evaluate(params: Any, model_state: Any) -> measure.Metrics:
        rows = embed(params, model_state, held_out.inputs)
        return measure.evaluate_spread(spread, rows, labels)

    return evaluate


def _checked_step(folder: Path, identity: Mapping[str, Any]) -> int:
    """Return the step of the newest checkpoint, made of the same data and options."""
    checkpoints = folder / folders.CHECKPOINTS
    step = jm.training.latest_checkpoint(checkpoints)
    if step is None:
        return 0
    _, metadata = jm.training.restore_checkpoint(checkpoints, {}, step, subset=True)
    stored = metadata.get("config", {})
    if metadata.get("config_sha256") != identity["config_sha256"]:
        changed = configs.difference(stored, identity["config"])
        raise UsageError(
            f"{folder / folders.CONFIG}: is not the one that the checkpoint was made "
            f"with: {changed}. Restore it, or begin a new run."
        )
    for name in ("class_names", "held_out"):
        before, now = metadata.get(name, []), identity[name]
        if before != now:
            gone = [n for n in before if n not in now] or [n for n in now]
            raise UsageError(
                f"{folder}: the classes of the data are not those of the run: "
                f"{len(before)} before, {len(now)} now, first difference "
                f"{gone[0]!r}. Restore the data, or begin a new run."
            )
    if metadata.get("data_sha256") != identity["data_sha256"]:
        raise UsageError(
            f"{folder}: the data has changed since the run began, in its rows though "
            "not in its classes. Restore it, or begin a new run."
        )
    return step


def _to_go_on(folder: Path) -> str:
    """Return how to go on with a run that was stopped."""
    return f"To go on: {shlex.join(['jaxmetric', 'train', '--resume', str(folder)])}"


def _tell_beginning(prepared: Prepared, folder: Path) -> None:
    """Print what is about to happen."""
    split, program = prepared.split, prepared.program
    for note in split.notes:
        print(f"Note: {note}")
    if split.skipped:
        print(f"Note: {len(split.skipped)} files skipped, first: {split.skipped[0]}")
    print(
        f"{split.name}: {len(split.train):,} rows of {split.train.num_classes:,} "
        f"classes to train on, {len(split.held_out):,} of "
        f"{split.held_out.num_classes:,} held out; {prepared.loss.name}, "
        f"{program.total_steps:,} steps of {program.sampler.num_classes} x "
        f"{program.sampler.m_per_class}; {folder}",
        flush=True,
    )


def _tell_end(
    prepared: Prepared,
    folder: Path,
    loop: Loop,
    blocks: Mapping[str, Mapping[str, Any]],
) -> None:
    """Print the table and the next command."""
    held_out = prepared.split.held_out
    title = (
        f"Retrieval among {len(held_out):,} rows of {held_out.num_classes:,} classes "
        "never seen"
    )
    shown = dict(blocks)
    if not held_out.is_image:
        shown = {"untrained": blocks["untrained"], "raw features": blocks["pixels"]}
        shown["trained"] = blocks["trained"]
    summary.print_table(title, shown)
    print(
        f"Compiled in {loop.seconds['compile']:.1f} s, trained in "
        f"{loop.seconds['train']:.1f} s; everything is in {folder}"
    )
    _tell_next(folder, prepared.options.data.data)


def _tell_next(folder: Path, data: str) -> None:
    """Print what to try next."""
    words = ("jaxmetric", "embed", str(folder), data, "-o", "embeddings.npz")
    print(f"Next: {shlex.join(words)}", flush=True)
