"""Interleaved timing: everything that is compared takes turns in one process.

The machine may be shared and its speed may drift, so a ratio is formed round by round,
of two calls that stood next to each other, and its median is what is reported. Besides
wall time every sample has the processor time of all threads of the process, which other
processes disturb less.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from benchmarks.settings import Device

# A call that takes longer when it is warmed up is not called again.
_PATIENCE = 30.0
# A sample on an accelerator lasts at least about so long, in seconds.
_SHORTEST = 5e-3


@dataclass(eq=False)
class Contestant:
    """Something to be timed.

    Attributes:
      name: for messages.
      call: does the work, and returns when it is done.
      settle: seconds to wait afterwards, for threads that spin until they sleep.
      repeat: how often `call` does the work, by which its time is divided.
      wall, cpu: seconds of each sample. rounds: the round each was taken in.
    """

    name: str
    call: Callable[[], Any]
    settle: float = 0.0
    repeat: int = 1
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)

    def sample(self, round_: int) -> float:
        """Take one sample and return its wall seconds."""
        cpu, wall = time.process_time(), time.perf_counter()
        self.call()
        self.wall.append((time.perf_counter() - wall) / self.repeat)
        self.cpu.append((time.process_time() - cpu) / self.repeat)
        self.rounds.append(round_)
        if self.settle:
            time.sleep(self.settle)
        return self.wall[-1] * self.repeat

    def forget(self) -> None:
        """Drop all samples."""
        self.wall, self.cpu, self.rounds = [], [], []

    def timing(self) -> dict[str, float]:
        """Return median, min and max of the wall seconds, and median CPU seconds."""
        return spread(self.wall) | {
            "cpu": statistics.median(self.cpu),
            "samples": len(self.wall),
        }


def interleave(
    contestants: Sequence[Contestant],
    *,
    yardsticks: Sequence[Contestant] = (),
    samples: int = 20,
    seconds: float = 1.0,
    at_least: int = 3,
) -> None:
    """Let everybody take turns until each has its samples.

    A contestant is done after `samples` samples, or after `at_least` of them when it
    has used `seconds`. The yardsticks stand first and last in every round until all are
    done. The first call of each is discarded, unless it took half a minute.
    """
    first, last = list(yardsticks[:1]), list(yardsticks[1:])
    everybody = [*first, *contestants, *last]
    patient = []
    for contestant in everybody:
        if contestant.sample(0) <= _PATIENCE:
            contestant.forget()
            patient.append(contestant)

    def is_open(contestant: Contestant) -> bool:
        taken = len(contestant.wall)
        is_spent = taken >= at_least and sum(contestant.wall) >= seconds
        return contestant in patient and taken < samples and not is_spent

    round_ = 0
    gc.collect()
    # Yardsticks alone are contestants like any other.
    judged = contestants or yardsticks
    while any(is_open(c) for c in judged) or not all(c.wall for c in everybody):
        turn = [c for c in contestants if is_open(c)]
        for contestant in (*first, *turn, *last):
            contestant.sample(round_)
            if contestant.settle:
                # Nobody is timed on threads that have just been woken.
                (first or [contestants[0]])[0].call()
        round_ += 1


def ratio(contestant: Contestant, yardstick: Contestant) -> dict[str, float] | None:
    """Return median, min and max over the rounds of the quotient of wall times."""
    below = dict(zip(yardstick.rounds, yardstick.wall, strict=True))
    pairs = zip(contestant.rounds, contestant.wall, strict=True)
    quotients = [wall / below[r] for r, wall in pairs if r in below]
    if not quotients:
        return None
    cpu = statistics.median(contestant.cpu) / statistics.median(yardstick.cpu)
    return spread(quotients) | {"cpu": cpu}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, min and max."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


@dataclass(eq=False)
class Compiled:
    """A compiled function with its arguments.

    Attributes:
      executable: what JAX compiled.
      arguments: arrays on the device.
      seconds: spent on lowering and compiling.
      repeat: how often a call runs it before it waits.
    """

    executable: Any
    arguments: tuple
    seconds: float
    repeat: int = 1

    def __call__(self) -> Any:
        """Run and wait."""
        for _ in range(self.repeat - 1):
            self.executable(*self.arguments)
        return jax.block_until_ready(self.executable(*self.arguments))


def compile_for(function: Callable, arguments: tuple, device: Device) -> Compiled:
    """Return a function compiled for the arrays at hand, timed.

    On an accelerator, whose queue keeps the order, a call runs it often enough that the
    launch from the host does not count.
    """
    start = time.perf_counter()
    executable = jax.jit(function).lower(*arguments).compile()
    compiled = Compiled(executable, arguments, time.perf_counter() - start)
    if device.platform != "cpu":
        compiled()
        start = time.perf_counter()
        compiled()
        each = time.perf_counter() - start
        compiled.repeat = max(1, math.ceil(_SHORTEST / each))
    return compiled
