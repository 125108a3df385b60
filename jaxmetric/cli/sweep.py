"""`jaxmetric sweep`: many models trained at once, compared, and the best one kept."""

import shlex
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmetric.cli import folders, hooks, measure
from jaxmetric.cli import sweep_results as results
from jaxmetric.cli.errors import DivergedError, UsageError
from jaxmetric.cli.options import SweepOptions
from jaxmetric.cli.prepare import Prepared, prepare
from jaxmetric.cli.program import METRICS, named_metrics
from jaxmetric.cli.progress import Progress
from jaxmetric.cli.records import read_records
from jaxmetric.cli.signals import Interrupted, Interrupts
from jaxmetric.cli.sweep_grid import Grid, Point, options_of, read_grid
from jaxmetric.cli.sweep_program import SweepProgram, use_all_cores
from jaxmetric.data.texts import is_text_file

_MAX_SKIPPED = 10
_MAX_LINES = 1000
# The last steps, whose mean is the active fraction and the loss of a model.
_END_SHARE = 0.1


def sweep(options: SweepOptions, command: str, interrupts: Interrupts) -> None:
    """Run `jaxmetric sweep`.

    Args:
      options: as the user gave them.
      command: the command line, for the results.
      interrupts: where signals arrive.

    Raises:
      UsageError, DataError: mistakes; nothing has been written.
      DivergedError: no model reached the last step with a finite loss; their numbers
        are saved.
      Interrupted: a signal has come; nothing has been written.
    """
    use_all_cores()
    folders.check_out(options.out, can_resume=False)
    prepared, grid = _prepare(options)
    program = SweepProgram(prepared, grid, options.grid.together)
    traced = {p.name: program.trace(p) for p in program.programs[0].phases}
    _tell_beginning(prepared, grid, program)
    training = Training(program, grid, traced, interrupts)
    try:
        pixels = interrupts.run_aside(
            lambda: measure.evaluate_pixels(prepared.split.held_out)
        )
        plain = options.plain or None
        with Progress(total_steps=program.total_steps, plain=plain) as bar:
            training.run(bar)
        rows = interrupts.run_aside(lambda: _evaluated(prepared, training))
    except Interrupted:
        raise Interrupted(
            f"stopped after {training.step:,} of {program.total_steps:,} steps; "
            "nothing was written."
        ) from None
    result = results.Outcome(prepared, grid, rows, pixels, training.seconds, command)
    is_any_left = not training.is_diverged.all()
    best = _best(result, training) if is_any_left else None
    with interrupts.held():
        folder = folders.make_whole(
            options.out,
            f"{prepared.split.name}-sweep",
            lambda path: results.write(path, result, best),
        )
    if best is None:
        raise DivergedError(
            f"{folder}: the loss or its gradient was not finite in {_MAX_SKIPPED} "
            f"steps in a row, in all {grid.num_models:,} models. Their numbers are in "
            f"{folder / results.RESULTS}. Try a lower --learning-rate."
        )
    interrupts.run_aside(lambda: _log_best(options, best, folder))
    results.print_table(result)
    _tell_end(result, best, training, folder)


class Training:
    """Train all models to the end.

    Args:
      program: what is computed.
      grid: the models.
      traced: the step of each phase, by its name.
      interrupts: where signals arrive.

    Attributes:
      states: of all models, after the last finished step.
      step: how many steps are finished.
      is_diverged: [models] bool, who had ten skipped steps in a row.
      end: [models, metrics], means over the last steps, without skipped ones.
      history: (step, [models, metrics]) of at most about 1,000 steps.
      seconds: {"compile", "train", "evaluate"}.

    Memory: the states, and 28 bytes a model for each step of the history.
    """

    def __init__(
        self,
        program: SweepProgram,
        grid: Grid,
        traced: dict[str, Any],
        interrupts: Interrupts,
    ):
        self.program, self.grid = program, grid
        self._traced, self._interrupts = traced, interrupts
        self.states = program.initial_state()
        self.step = 0
        self.seconds = {"compile": 0.0, "train": 0.0, "evaluate": 0.0}
        self.history: list[tuple[int, np.ndarray]] = []
        self.is_diverged = np.zeros(grid.num_models, bool)
        self._in_a_row = np.zeros(grid.num_models, int)
        total = program.total_steps
        self._log_every = -(-total // _MAX_LINES)
        self._end_begins = total - max(int(_END_SHARE * total), 1)
        self._sums = np.zeros((grid.num_models, len(METRICS)))
        self._counts = np.zeros((grid.num_models, len(METRICS)))
        self._pending: deque[tuple[int, jax.Array]] = deque()

    @property
    def end(self) -> np.ndarray:
        """Means over the last steps, NaN where no step counts."""
        with np.errstate(invalid="ignore"):
            return self._sums / self._counts

    def run(self, bar: Progress) -> None:
        """Take all steps, unless no model is left.

        Raises:
          Interrupted: a signal has come.
        """
        phase, compiled = self.program.phase_at(0), None
        while self.step < self.program.total_steps and not self.is_diverged.all():
            following = self.program.phase_at(self.step)
            if following is not phase:
                self._drain(bar)
                self.states = self.program.switch(self.states, following)
                self._in_a_row[:], phase, compiled = 0, following, None
            if compiled is None:
                compiled = self._compile(phase.name)
            with self._interrupts.held():
                start = time.perf_counter()
                rows = self.program.batch(self.step)
                self.states, metrics = compiled(self.states, rows)
                self.step += 1
                self._pending.append((self.step, metrics))
                self.seconds["train"] += time.perf_counter() - start
                # One step stays on the device, which so never waits for the host.
                if len(self._pending) > 1:
                    self._report(bar)
        self._drain(bar)

    def records_of(self, model: int) -> list[dict[str, Any]]:
        """Return what metrics.jsonl of a run tells of the steps of a model."""
        records, first = [], self.program.programs[0]
        for step, values in self.history:
            metrics = named_metrics(values[model])
            is_skipped = metrics.pop("skipped") > 0
            phase = first.phase_at(step - 1).name
            epoch = (step - 1) // first.sampler.steps_per_epoch
            told = {"step": step, "kind": "train", "phase": phase, "epoch": epoch}
            records.append({**told, **metrics, "skipped": is_skipped})
        return records

    def _compile(self, name: str) -> Callable[..., Any]:
        """Return the compiled step of a phase, and note how long it took."""
        start = time.perf_counter()
        compiled = self._interrupts.run_aside(
            lambda: self.program.compile(self._traced[name])
        )
        self.seconds["compile"] += time.perf_counter() - start
        return compiled

    def _drain(self, bar: Progress) -> None:
        """Read the metrics of all steps that are still on the device."""
        with self._interrupts.held():
            while self._pending:
                self._report(bar)

    def _report(self, bar: Progress) -> None:
        """Read, keep and show the metrics of the oldest step on the device."""
        start = time.perf_counter()
        step, array = self._pending.popleft()
        values = self.program.numbers_of(array).reshape(self.grid.num_models, -1)
        self.seconds["train"] += time.perf_counter() - start
        is_skipped = values[:, METRICS.index("skipped")] > 0
        self._in_a_row = np.where(is_skipped, self._in_a_row + 1, 0)
        self.is_diverged |= self._in_a_row >= _MAX_SKIPPED
        if (step - 1) % self._log_every == 0 or step == self.program.total_steps:
            self.history.append((step, values))
        is_known = np.isfinite(values) & ~is_skipped[:, None]
        known = np.where(is_known, values, 0)
        if step > self._end_begins:
            self._sums += known
            self._counts += is_known
        with np.errstate(invalid="ignore"):
            shown = named_metrics(known.sum(axis=0) / is_known.sum(axis=0))
        batch_size = self.program.programs[0].sampler.batch_size
        examples = step * batch_size * self.grid.num_models
        bar.update(step, shown, examples / max(self.seconds["train"], 1e-9))


def _prepare(options: SweepOptions) -> tuple[Prepared, Grid]:
    """Check everything that can be checked before the first step."""
    together = options.grid.together
    if together is not None and together < 1:
        raise UsageError(f"--together must be at least 1, got {together}. Use 16.")
    hooks.check(options.log)
    if is_text_file(options.data.data):
        raise UsageError(
            f"{options.data.data}: holds texts, which sweep does not take. Use train "
            "with several values, one after the other."
        )
    name = options.loss.name
    # Before the data is read, where that is possible.
    grid = None if name is None else read_grid(options, name)
    point = Point(options.optimization.learning_rate, {})
    prepared = prepare(options_of(options, point, 0))
    if grid is None:
        grid = read_grid(options, prepared.loss.name)
    rate = prepared.options.optimization.learning_rate
    points = tuple(
        p if p.learning_rate is not None else p._replace(learning_rate=rate)
        for p in grid.points
    )
    return prepared, grid._replace(points=points)


def _evaluated(prepared: Prepared, training: Training) -> list[results.Row]:
    """Return what is told of each model, with its metrics on the held-out classes."""
    start, grid, held_out = time.perf_counter(), training.grid, prepared.split.held_out
    assert held_out.labels is not None
    embed = measure.embedder(prepared.program.embed_fn)
    # On the host at one stroke: each model is then cut out without a computation.
    host = jax.tree.map(
        training.program.numbers_of,
        training.states._replace(key=None, opt_state=None),
    )
    rows = []
    for i in range(grid.num_models):
        seed, place = divmod(i, len(grid.points))
        point, ends = grid.points[place], named_metrics(training.end[i])
        row: results.Row = {
            **point.hyper,
            "learning_rate": point.learning_rate,
            "seed": grid.seeds[seed],
            "status": "diverged" if training.is_diverged[i] else "finished",
            "active_fraction": ends["active_fraction"],
            "loss": ends["loss"],
            "skipped_steps": int(host.skipped[seed, place]),
        }
        if not training.is_diverged[i]:
            params, model_state = jax.tree.map(
                lambda x, seed=seed, place=place: x[seed, place],
                (host.params, host.model_state),
            )
            embeddings = embed(params, model_state, held_out.inputs)
            row |= measure.evaluate(embeddings, held_out.labels)
        rows.append(row)
    training.seconds["evaluate"] += time.perf_counter() - start
    return rows


def _best(result: results.Outcome, training: Training) -> results.Best:
    """Return the best model, as it would be alone."""
    index, grid = result.ranking[0], result.grid
    program = training.program.programs[index // len(grid.points)]
    alone = results.prepared_alone(result.prepared, grid, index, program)
    held_out, initial = result.prepared.split.held_out, program.initial_state()
    assert held_out.labels is not None
    embed = measure.embedder(program.embed_fn)
    rows = embed(initial.params, initial.model_state, held_out.inputs)
    return results.Best(
        index,
        alone,
        training.program.state_of(training.states, index),
        training.step,
        training.seconds,
        measure.evaluate(rows, held_out.labels),
        training.records_of(index),
    )


def _log_best(options: SweepOptions, best: results.Best, folder: Path) -> None:
    """Tell the hooks all that is on record of the best model."""
    run = folder / results.BEST
    opened = hooks.open_hooks(
        options.log,
        run,
        config=best.prepared.config,
        records=read_records(run / folders.METRICS),
        name=f"{folder.name}-best",
    )
    hooks.show_hooks(opened, best.prepared, run, best.state)
    for hook in opened:
        hook.close()


def _tell_beginning(prepared: Prepared, grid: Grid, program: SweepProgram) -> None:
    """Print what is about to happen."""
    split, sampler = prepared.split, prepared.program.sampler
    for note in split.notes:
        print(f"Note: {note}")
    if split.skipped:
        print(f"Note: {len(split.skipped)} files skipped, first: {split.skipped[0]}")
    counts = [f"{len(values)} x {name}" for name, values in grid.varied.items()]
    rates = {point.learning_rate for point in grid.points}
    counts += [f"{len(rates)} x learning rate"] if len(rates) > 1 else []
    counts += [f"{len(grid.seeds)} x seed"] if len(grid.seeds) > 1 else []
    print(
        f"{split.name}: {len(split.train):,} rows of {split.train.num_classes:,} "
        f"classes to train on, {len(split.held_out):,} of "
        f"{split.held_out.num_classes:,} held out; {prepared.loss.name}, "
        f"{grid.num_models:,} models ({', '.join(counts)}), "
        f"{program.total_steps:,} steps of {sampler.num_classes} x "
        f"{sampler.m_per_class}",
        flush=True,
    )


def _tell_end(
    result: results.Outcome, best: results.Best, training: Training, folder: Path
) -> None:
    """Print how long it took, where everything is, and the next command."""
    seconds = training.seconds
    num_diverged = int(training.is_diverged.sum())
    if num_diverged:
        print(f"Note: {num_diverged:,} of {len(result.rows):,} models diverged")
    print(
        f"Compiled in {seconds['compile']:.1f} s, trained in {seconds['train']:.1f} s, "
        f"evaluated in {seconds['evaluate']:.1f} s; everything is in {folder}"
    )
    run = folder / results.BEST
    print(f"Best: {results.name_of(result, best.index)}; a run in {run}")
    print(f"Next: {shlex.join(['jaxmetric', 'eval', str(run)])}", flush=True)
