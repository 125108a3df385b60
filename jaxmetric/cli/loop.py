"""The loop of a run: steps, evaluations and checkpoints, each at its place."""

import contextlib
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxmetric as jm
from jaxmetric.cli.collapse import CollapseWatch
from jaxmetric.cli.distributed import Processes
from jaxmetric.cli.errors import DivergedError
from jaxmetric.cli.measure import Metrics
from jaxmetric.cli.program import Phase, Program, StepFn, is_wished, named_metrics
from jaxmetric.cli.progress import Progress
from jaxmetric.cli.records import Log
from jaxmetric.cli.signals import Interrupted, Interrupts

_MAX_SKIPPED = 10
_MAX_LINES, _NUM_EVALUATIONS = 1000, 10


class Loop:
    """Train from a state to the end of a program.

    At step s the order is: the switch to the next phase, the evaluation, the
    checkpoint, step s itself. All of it is a function of the state and of s, so a run
    that was cut anywhere goes on as if it had not been.

    Args:
      program: what is computed.
      folder: of the run; checkpoints go to `checkpoints` in it.
      metadata: what every checkpoint tells besides.
      log: where records go.
      evaluate: a function (params, model_state) -> metrics.
      interrupts: where signals arrive.
      processes: who trains; of several, the first saves, and all stop at the same step
        when one of them has a signal.

    Attributes:
      state: after the last finished step.
      step: how many steps are finished.
      in_a_row: how many of the last steps were skipped.
      seconds: {"compile", "train", "evaluate"}, spent so far on each.
    """

    def __init__(
        self,
        program: Program,
        *,
        folder: Path,
        metadata: dict[str, Any],
        log: Log,
        evaluate: Callable[[Any, Any], Metrics],
        interrupts: Interrupts,
        processes: Processes,
    ):
        self._processes = processes
        self.program, self.folder, self.metadata = program, folder, metadata
        self.log, self.interrupts, self._evaluate = log, interrupts, evaluate
        self.state = program.initial_state()
        self.step = self.in_a_row = 0
        self.seconds = {"compile": 0.0, "train": 0.0, "evaluate": 0.0}
        self._saved: int | None = None
        self._began = (0, 0.0)
        self._watch: CollapseWatch | None = None
        run, total = program.options.run, program.total_steps
        self._eval_every = run.eval_every or max(total // _NUM_EVALUATIONS, 1)
        self._save_every = run.save_every or self._eval_every
        self._log_every = run.log_every or -(-total // _MAX_LINES)
        # Steps whose metrics are still on the device: reading them at once would make
        # the device wait for the host at every step.
        self._pending: deque[tuple[int, jax.Array]] = deque()

    def restore(self) -> dict[str, Any] | None:
        """Go to the newest checkpoint, if there is one; return its metadata."""
        folder, processes = self.folder / "checkpoints", self._processes
        step = processes.first(lambda: jm.training.latest_checkpoint(folder))
        if step is None:
            return None
        state = self.program.state_like(step)

        def read() -> dict[str, Any]:
            nonlocal state
            state, metadata = jm.training.restore_checkpoint(folder, state, step)
            return metadata

        metadata = processes.first(read)
        self.state = self.program.devices.copied(processes.arrays_of_first(state))
        self.step = self._saved = step
        self.in_a_row = metadata["skipped_in_a_row"]
        self.seconds = dict(metadata["seconds"])
        self._began = (step, self.seconds["train"])
        return metadata

    def save(self) -> None:
        """Write the checkpoint of the current step, unless it has been written."""
        if self._saved == self.step:
            return
        self._saved = self.step
        if not self._processes.is_first:
            return
        phase = self.program.phase_at(self.step)
        epoch, position = divmod(self.step, self.program.sampler.steps_per_epoch)
        metadata = self.metadata | {
            "step": self.step,
            "phase": phase.name,
            "sampler": {"epoch": epoch, "step": position},
            "skipped_in_a_row": self.in_a_row,
            "seconds": self.seconds,
        }
        state = self.program.devices.local(self.state)
        jm.training.save_checkpoint(
            self.folder / "checkpoints", self.step, state, metadata=metadata
        )

    def run(self, bar: Progress) -> None:
        """Take the steps that are left.

        Raises:
          DivergedError: ten steps in a row had a loss or gradient that is not finite.
          Interrupted: a signal has come; `finish` then keeps all finished steps.
        """
        compiled: StepFn | None = None
        phase = self.program.phase_at(self.step)
        self._watch = self.program.watch(phase)
        total = self.program.total_steps
        while True:
            if phase is not self.program.phase_at(self.step):
                self._drain(bar)
                phase = self.program.phase_at(self.step)
                self._watch, compiled = self.program.watch(phase), None
            if self.step % self._eval_every == 0 or self.step == total:
                self._drain(bar)
                self.evaluate_now()
            if self.step % self._save_every == 0 or self.step == total:
                self._drain(bar)
                with self.interrupts.held():
                    self.save()
            if self.step == total:
                return
            if compiled is None:
                compiled = self._compile(phase)
            with self.interrupts.held():
                self._take_step(compiled, phase)
                if len(self._pending) > 1:
                    self._report(bar)

    def finish(self) -> None:
        """Read what is still on the device, and save: the run ends early."""
        while self._pending:
            with contextlib.suppress(DivergedError, Interrupted):
                self._report(None)
        self.save()

    def evaluate_now(self) -> Metrics:
        """Return the metrics of the current state, from the log if it has them."""
        found = self.log.find("eval", self.step)
        if found is not None:
            return found
        state, start = self.state, time.perf_counter()
        metrics = self.interrupts.run_aside(
            lambda: self._evaluate(state.params, state.model_state)
        )
        self.seconds["evaluate"] += time.perf_counter() - start
        self.log.write({"step": self.step, "kind": "eval", **metrics})
        return metrics

    def _compile(self, phase: Phase) -> StepFn:
        """Return the compiled step of a phase, and note how long it took."""
        start = time.perf_counter()
        compiled = self.interrupts.run_aside(lambda: self.program.compile(phase))
        self.seconds["compile"] += time.perf_counter() - start
        return compiled

    def _take_step(self, compiled: StepFn, phase: Phase) -> None:
        """Take one step; its metrics are read later."""
        start = time.perf_counter()
        rows = self.program.batch(self.step)
        # Alone, a process stops by itself.
        wish = self._processes.count > 1 and self.interrupts.is_requested
        self.state, metrics = compiled(self.state, rows, wish)
        self.step += 1
        self._pending.append((self.step, metrics))
        following = self.program.phase_at(self.step)
        if following is not phase:
            # Here, so that a state belongs to the phase of its step at all times.
            self.state = self.program.switch(self.state, following)
        self.seconds["train"] += time.perf_counter() - start

    def _drain(self, bar: Progress) -> None:
        """Read the metrics of all steps that are still on the device."""
        with self.interrupts.held():
            while self._pending:
                self._report(bar)

    def _report(self, bar: Progress | None) -> None:
        """Read, log, show and judge the metrics of the oldest step on the device."""
        start = time.perf_counter()
        step, values = self._pending.popleft()
        values = np.asarray(values)
        metrics = named_metrics(values)
        self.seconds["train"] += time.perf_counter() - start
        is_skipped = metrics.pop("skipped") > 0
        self.in_a_row = self.in_a_row + 1 if is_skipped else 0
        taken = step - 1
        is_last = step == self.program.total_steps
        if is_skipped or taken % self._log_every == 0 or is_last:
            record = {
                "step": step,
                "kind": "train",
                "phase": self.program.phase_at(taken).name,
                "epoch": taken // self.program.sampler.steps_per_epoch,
                **metrics,
                "skipped": is_skipped,
                "seconds": round(self.seconds["train"], 3),
            }
            self.log.write(record)
        watch, advice = self._watch, ""
        if watch is not None and watch.notice(metrics):
            advice = watch.advice
        if bar is not None:
            bar.update(step, metrics, self._examples_per_second(step))
            if advice:
                bar.message(f"step {step:,}: {advice}")
        if advice:
            self.log.write({"step": step, "kind": "warning", "text": advice})
        if self.in_a_row >= _MAX_SKIPPED:
            raise DivergedError(
                f"the loss or its gradient was not finite in {self.in_a_row} steps in "
                f"a row; the last good step is {step - self.in_a_row:,}"
            )
        if is_wished(values):
            raise Interrupted

    def _examples_per_second(self, step: int) -> float:
        """Return the speed of training since this process began."""
        first_step, first_second = self._began
        seconds = max(self.seconds["train"] - first_second, 1e-9)
        return (step - first_step) * self.program.sampler.batch_size / seconds
