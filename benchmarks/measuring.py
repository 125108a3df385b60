"""From programs to results: one batch, several functions, one interleaved race.

A `Race` holds a batch and its entrants. The yardstick, a bare x @ x.T of the same run
with the product written out, runs twice in every round: its second copy shows how much
of a difference is noise. Where the product alone is too large there is no yardstick.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import exactness, harness, memory, programs, specs
from benchmarks.harness import Contestant
from benchmarks.programs import Program
from benchmarks.results import Result
from benchmarks.settings import Settings

MODES = ("value", "gradient")


@dataclass(eq=False)
class Entrant:
    """Something that runs in a race.

    Attributes:
      result: what is known of it so far.
      contestants: by mode.
      program: what JAX compiles, without mode; None for another library.
      judge: the loss whose float64 numbers it must give; None for no check.
      answer: returns (value, gradient), to be checked.
    """

    result: Result
    contestants: dict[str, Contestant] = field(default_factory=dict)
    program: Program | None = None
    judge: str | None = None
    answer: Callable[[], tuple[Any, Any]] | None = None


class Race:
    """The functions that are compared on one batch.

    Args:
      settings: of the run.
      topic: of the results.
      workload: a name.
      batch, dim: size of the embeddings.

    Memory: the batch; the yardstick writes [batch, batch] numbers.
    """

    def __init__(
        self, settings: Settings, topic: str, *, workload: str, batch: int, dim: int
    ):
        self.settings, self.topic, self.workload = settings, topic, workload
        made = specs.WORKLOADS[workload].make(batch, dim)
        rows = jnp.asarray(made.embeddings).astype(settings.dtype)
        # What is checked is what is timed: the rounded rows.
        self.batch = made._replace(embeddings=np.asarray(rows, np.float32))
        self.arrays = jax.device_put((rows, jnp.asarray(made.labels)), settings.device)
        self.entrants: list[Entrant] = []
        self._references: dict[str, exactness.Reference] = {}
        self._yardsticks = [self.add("matmul", modes=("value",)) for _ in range(2)]
        if not settings.is_cpu and self._yardsticks[0].contestants:
            self._add_copy()

    def add(
        self,
        function: str,
        *,
        block_size: int | None = None,
        modes: Sequence[str] = MODES,
        judge: str | None = None,
    ) -> Entrant:
        """Compile a function of `benchmarks.programs` and let it run."""
        rows, dim = self.batch.embeddings.shape
        program = Program(
            function,
            rows,
            dim,
            block_size=block_size,
            precision=self.settings.precision,
            dtype=self.settings.dtype,
        )
        entrant = self.enter(function, block_size=block_size, judge=judge)
        needed = programs.bytes_needed(program)
        if self.is_refused(entrant, needed):
            return entrant
        entrant.program = program
        seconds = None
        for mode in modes:
            of_mode = replace(program, mode=mode)
            compiled = harness.compile_for(
                of_mode.build(), self.arrays, self.settings.device
            )
            contestant = Contestant(function, compiled, repeat=compiled.repeat)
            entrant.contestants[mode] = contestant
            seconds = compiled.seconds
            if mode == "gradient":
                entrant.answer = compiled
        is_gradient = "gradient" in modes
        gflop = specs.gflop(judge or function, self.batch, is_gradient=is_gradient)
        entrant.result = replace(entrant.result, compile_seconds=seconds, gflop=gflop)
        return entrant

    def enter(
        self,
        function: str,
        *,
        block_size: int | None = None,
        judge: str | None = None,
    ) -> Entrant:
        """Return a new entrant that nothing is known of."""
        result = Result(
            self.topic,
            function,
            *self.batch.embeddings.shape,
            workload=self.workload,
            m_per_class=self.batch.m_per_class,
            block_size=block_size,
            dtype=self.settings.dtype,
            precision=self.settings.precision,
        )
        entrant = Entrant(result, judge=judge)
        self.entrants.append(entrant)
        return entrant

    def is_refused(self, entrant: Entrant, needed: float) -> bool:
        """Tell, and note, whether something needs more memory than is allowed."""
        limit = self.settings.memory_limit
        if needed < limit:
            return False
        text = f"needs {needed / 2**30:.1f} GiB, the limit is {limit / 2**30:.1f} GiB"
        entrant.result = replace(entrant.result, status=text)
        return True

    def run(self) -> list[Result]:
        """Check, time, and return the results; the second yardstick is "again"."""
        for entrant in self.entrants:
            self._check(entrant)
        yardsticks = [c for e in self._yardsticks for c in e.contestants.values()]
        contestants = [
            contestant
            for entrant in self.entrants
            if entrant not in self._yardsticks
            for contestant in entrant.contestants.values()
        ]
        harness.interleave(
            contestants,
            yardsticks=yardsticks,
            samples=self.settings.samples,
            seconds=self.settings.seconds,
        )
        self._yardsticks[1].result = replace(
            self._yardsticks[1].result, function="matmul again"
        )
        for entrant in self.entrants:
            _add_timings(entrant, yardsticks[0] if yardsticks else None)
        self._add_memory()
        return [entrant.result for entrant in self.entrants]

    def _add_copy(self) -> None:
        """Let the other floor of an accelerator run: read and write the matrix."""
        matrix = self._yardsticks[0].contestants["value"].call()
        compiled = harness.compile_for(lambda a: a + 1, (matrix,), self.settings.device)
        contestant = Contestant("copy", compiled, repeat=compiled.repeat)
        self.enter("copy").contestants["value"] = contestant

    def _check(self, entrant: Entrant) -> None:
        """Compare with float64, and drop a peer that computes something else."""
        rows = len(self.batch.labels)
        if entrant.answer is None or rows > self.settings.check_limit:
            return
        judge = entrant.judge
        if judge is None:
            return
        if judge not in self._references:
            self._references[judge] = exactness.reference(judge, self.batch)
        expected = self._references[judge]
        value, gradient = entrant.answer()
        found = exactness.errors(value, gradient, expected)
        entrant.result = replace(
            entrant.result,
            error_value=found.value,
            error_gradient=found.gradient,
            rows_other=found.rows_other,
            reference=expected.source,
        )
        is_ours = entrant.result.function == judge
        # Half of the rows another way is another gradient.
        is_same = found.value <= 1e-3 and 2 * found.rows_other <= rows
        if not (is_ours or is_same):
            text = f"gives {float(value):.6g}, {judge} is {expected.value:.6g}"
            if found.value <= 1e-3:
                text = f"{found.rows_other} rows of the gradient differ from {judge}"
            entrant.result = replace(entrant.result, status=f"not timed: {text}")
            entrant.contestants = {}

    def _add_memory(self) -> None:
        """Measure the temporaries of all programs in one other process."""
        if not self.settings.has_memory:
            return
        compiled = [e for e in self.entrants if e.program and e.contestants]
        asked = []
        for entrant in compiled:
            assert entrant.program is not None
            mode = "gradient" if "gradient" in entrant.contestants else "value"
            asked.append(replace(entrant.program, mode=mode))
        found = memory.temp_bytes(asked, self.settings.device)
        for entrant, temp in zip(compiled, found, strict=True):
            entrant.result = replace(entrant.result, temp_bytes=temp)


def _add_timings(entrant: Entrant, yardstick: Contestant | None) -> None:
    """Put the samples of an entrant into its result."""
    fields: dict[str, Any] = {}
    for mode, name in zip(MODES, ("forward", "gradient"), strict=True):
        if mode in entrant.contestants:
            contestant = entrant.contestants[mode]
            fields[name] = contestant.timing()
            if yardstick is not None:
                fields[f"{name}_ratio"] = harness.ratio(contestant, yardstick)
    entrant.result = replace(entrant.result, **fields)
