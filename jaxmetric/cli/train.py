"""`jaxmetric train`: from options to a finished run, or from a cut run to its end."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import jaxmetric as jm
from jaxmetric.cli import configs, devices, folders, summary
from jaxmetric.cli.distributed import Processes
from jaxmetric.cli.errors import DivergedError, UsageError
from jaxmetric.cli.hooks import open_hooks, show_hooks
from jaxmetric.cli.loop import Loop
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.progress import Progress
from jaxmetric.cli.records import Log
from jaxmetric.cli.signals import Interrupted, Interrupts
from jaxmetric.cli.subjects import Subject, prepare_subject


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
    subject = _prepared(options, processes)
    folder = None

    def make() -> str:
        prepared = subject.prepared
        name, config, files = prepared.split.name, prepared.config, subject.files()
        return str(folders.make_folder(options.out, name, config, files))

    try:
        with interrupts.held():
            folder = Path(processes.first(make))
        _tell_beginning(subject, folder)
        with _lock(folder, processes):
            _run(subject, folder, command, interrupts, processes, is_resumed=False)
    except Interrupted as error:
        if folder is None or str(error):
            raise
        text = f"stopped before the first step. {_to_go_on(folder)}"
        raise Interrupted(text) from None


def _prepared(options: TrainOptions, processes: Processes) -> Subject:
    """Return the run, ready and the same in all processes."""

    def make() -> Subject:
        count = processes.count
        chosen = devices.choose(options.devices, num_processes=count)
        return prepare_subject(options, chosen)

    subject = processes.each(make)
    identity = subject.identity()
    processes.check_alike(
        {
            "options": identity["config_sha256"],
            "data": identity["data_sha256"],
            "devices": subject.prepared.program.devices.count,
            "versions": [jm.__version__, jax.__version__],
        }
    )
    return subject


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
        subject = _prepared(options, processes)
        _tell_beginning(subject, folder)
        _run(subject, folder, command, interrupts, processes, is_resumed=True)


def _run(
    subject: Subject,
    folder: Path,
    command: str,
    interrupts: Interrupts,
    processes: Processes,
    *,
    is_resumed: bool,
) -> None:
    """Train in a folder that is ours, from its newest checkpoint or the beginning."""
    prepared, identity = subject.prepared, subject.identity()
    step = 0
    if is_resumed:
        step = processes.first(lambda: _checked_step(folder, identity))
    path = folder / folders.METRICS if processes.is_first else None
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(Log(path, step=step))
        log.records = processes.first(lambda: log.records)
        if processes.is_first:
            # The network may take its time, and a signal should not wait for it.
            log.hooks = interrupts.run_aside(
                lambda: open_hooks(
                    prepared.options.run.log,
                    folder,
                    config=prepared.config,
                    records=log.records,
                )
            )
            for hook in log.hooks:
                stack.callback(hook.close)
        loop = Loop(
            prepared.program,
            folder=folder,
            metadata=identity,
            log=log,
            evaluate=subject.evaluation(),
            interrupts=interrupts,
            processes=processes,
        )
        if is_resumed:
            loop.restore()
        try:
            blocks = _train(subject, loop, log, interrupts)
            if processes.is_first:
                state = prepared.program.devices.local(loop.state)
                subject.write_figures(folder, log.records, state)
                show_hooks(log.hooks, prepared, folder, state)
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
            told = subject.describe(loop, command) | blocks
            with interrupts.held():
                summary.write_summary(folder / folders.SUMMARY, told)
            state = prepared.program.devices.local(loop.state)
            subject.write_report(folder, log.records, state, told)
    _tell_end(subject, folder, loop, blocks)


def _train(
    subject: Subject, loop: Loop, log: Log, interrupts: Interrupts
) -> dict[str, dict[str, Any]]:
    """Take the steps that are left, and return the metrics before and after."""
    prepared, kind = subject.prepared, subject.baseline_kind
    plain = prepared.options.plain or None
    baseline = log.find(kind, 0)
    if baseline is None:
        baseline = interrupts.run_aside(subject.baseline)
        log.write({"step": 0, "kind": kind, **baseline})
    with Progress(total_steps=prepared.program.total_steps, plain=plain) as bar:
        loop.run(bar)
    trained = loop.evaluate_now()
    untrained = log.find("eval", 0)
    if untrained is None:
        state, evaluate = prepared.program.initial_state(), subject.evaluation()
        untrained = evaluate(state.params, state.model_state)
    return {"untrained": untrained, kind: baseline, "trained": trained}


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


def _tell_beginning(subject: Subject, folder: Path) -> None:
    """Print what is about to happen."""
    *notes, last = subject.beginning()
    for note in notes:
        print(note)
    print(f"{last}; {folder}", flush=True)


def _tell_end(
    subject: Subject,
    folder: Path,
    loop: Loop,
    blocks: Mapping[str, Mapping[str, Any]],
) -> None:
    """Print the table and the next command."""
    subject.print_table(blocks)
    print(
        f"Compiled in {loop.seconds['compile']:.1f} s, trained in "
        f"{loop.seconds['train']:.1f} s; everything is in {folder}"
    )
    _tell_next(folder, subject.prepared.options.data.data)


def _tell_next(folder: Path, data: str) -> None:
    """Print what to try next."""
    words = ("jaxmetric", "embed", str(folder), data, "-o", "embeddings.npz")
    print(f"Next: {shlex.join(words)}", flush=True)
