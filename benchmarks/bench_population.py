"""Topic `population`: a step of many models at once, over a step of one of them.

The program of `jaxmetric sweep` over that of `jaxmetric train`, on scikit-learn's
digits with their defaults: batch-all, Adam, 8 classes of 16, augmentation, from the
row ids of a batch to new parameters and metrics. The models differ in their margin.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import harness
from benchmarks.harness import Contestant
from benchmarks.results import Result
from benchmarks.settings import Settings

NUM_MODELS = (1, 4, 16, 64)
_ENCODERS = ("conv", "mlp")
# A step of one model is short, so a sample has some of them.
_STEPS = 4


def population(settings: Settings) -> Iterator[Result]:
    """Seconds of a step by the number of models, which `--sizes` gives."""
    for encoder in settings.functions or _ENCODERS:
        yield from _race(settings, encoder)


def _race(settings: Settings, encoder: str) -> list[Result]:
    """Return the results for one encoder."""
    from jaxmetric.cli.options import ModelOptions, TrainOptions
    from jaxmetric.cli.prepare import prepare

    dim = settings.dims[0] if settings.dims else None
    model: Any = ModelOptions(kind=encoder, dim=dim)  # pyright: ignore[reportArgumentType]
    prepared = prepare(TrainOptions(model=model))
    program = prepared.program
    (phase,) = program.phases
    start = time.perf_counter()
    one = _contestant("one", program.compile(phase), program.initial_state(), program)
    seconds = [time.perf_counter() - start]
    many = []
    for number in settings.sizes or NUM_MODELS:
        start = time.perf_counter()
        many.append(_population(prepared, number))
        seconds.append(time.perf_counter() - start)
    harness.interleave([one, *many], samples=settings.samples, seconds=settings.seconds)
    results = []
    for contestant, number, compiled in zip(
        [one, *many], (None, *(settings.sizes or NUM_MODELS)), seconds, strict=True
    ):
        extra = {}
        if number is not None:
            extra = {"over_one": harness.ratio(contestant, one)}
        results.append(
            Result(
                "population",
                encoder,
                program.sampler.batch_size,
                program.model["dim"],
                workload="digits",
                m_per_class=program.sampler.m_per_class,
                num_margins=number,
                gradient=contestant.timing(),
                gradient_ratio=extra.get("over_one"),
                compile_seconds=compiled,
                extra=extra,
            )
        )
    return results


def _population(prepared: Any, number: int) -> Contestant:
    """Return the step of so many models."""
    from jaxmetric.cli.sweep_grid import Grid, Point
    from jaxmetric.cli.sweep_program import SweepProgram

    rate = prepared.options.optimization.learning_rate
    margins = np.linspace(0.05, 1.0, number).tolist()
    points = tuple(Point(rate, {"margin": margin}) for margin in margins)
    grid = Grid((prepared.options.run.seed,), points, {"margin": tuple(margins)})
    sweep = SweepProgram(prepared, grid, None)
    compiled = sweep.compile(sweep.trace(sweep.phase_at(0)))
    return _contestant(f"{number}", compiled, sweep.initial_state(), sweep)


def _contestant(
    name: str, step: Callable[..., Any], state: Any, program: Any
) -> Contestant:
    """Return some steps on, from a state that each call moves."""
    batches = [program.batch(i) for i in range(_STEPS)]

    def call() -> None:
        nonlocal state
        for rows in batches:
            state, metrics = step(state, rows)
            # The loop of a run reads them as well, a step later.
            jax.block_until_ready(metrics)

    return Contestant(name, call, repeat=_STEPS)
