"""Topic `margins`: many margins by `vmap` over one margin.

The distances, the search and the sort are shared, so it costs less than so many times
one of them.
"""

from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np

from benchmarks import harness
from benchmarks.harness import Contestant
from benchmarks.measuring import MODES, Entrant, Race
from benchmarks.programs import Program
from benchmarks.results import Result
from benchmarks.settings import Settings

NUM_MARGINS = (1, 4, 16, 64)
_FUNCTIONS = (
    "batch_all_triplet_loss",
    "batch_hard_triplet_loss",
    "semi_hard_triplet_loss",
)


def margins(settings: Settings) -> Iterator[Result]:
    """Values, and values and gradients, at 1 to 64 margins."""
    for workload in settings.workloads or ("pk4",):
        for batch in settings.sizes or (512,):
            for dim in settings.dims or (128,):
                for function in settings.functions or _FUNCTIONS:
                    yield from _race(settings, function, workload, batch, dim)


def _race(
    settings: Settings, function: str, workload: str, batch: int, dim: int
) -> list[Result]:
    """Return the results of one loss at several numbers of margins."""
    race = Race(settings, "margins", workload=workload, batch=batch, dim=dim)
    one = race.add(function, judge=function)
    many = [_enter(race, function, number) for number in NUM_MARGINS]
    race.run()
    for entrant in many:
        entrant.result = replace(entrant.result, extra=_over(entrant, one))
    return [entrant.result for entrant in race.entrants]


def _enter(race: Race, function: str, number: int) -> Entrant:
    """Let a loss at so many margins run."""
    entrant = race.enter(function)
    rows, dim = race.batch.embeddings.shape
    program = Program(
        function,
        rows,
        dim,
        num_margins=number,
        precision=race.settings.precision,
        dtype=race.settings.dtype,
    )
    margins = np.linspace(0.05, 1.0, number, dtype=np.float32)
    arguments = (*race.arrays, jax.device_put(margins, race.settings.device))
    seconds = 0.0
    for mode in MODES:
        compiled = harness.compile_for(
            replace(program, mode=mode).build(), arguments, race.settings.device
        )
        contestant = Contestant(function, compiled, repeat=compiled.repeat)
        entrant.contestants[mode] = contestant
        seconds = compiled.seconds
    entrant.program = program
    entrant.result = replace(
        entrant.result, num_margins=number, compile_seconds=seconds
    )
    return entrant


def _over(entrant: Entrant, one: Entrant) -> dict:
    """Return how many times the loss at one margin it takes."""
    return {
        f"{name}_over_one": harness.ratio(
            entrant.contestants[mode], one.contestants[mode]
        )
        for mode, name in (("value", "forward"), ("gradient", "gradient"))
    }
