"""Topic `population`: a step of many models at once, over a step of one of them.

The program of `jaxmetric sweep` over that of `jaxmetric train`, on scikit-learn's
digits with their defaults: batch-all, Adam, 8 classes of 16, augmentation, from the
row ids of a batch to new parameters and metrics. The models differ in their margin, so
their number stands in the column of the margins.

The models are shared out among the cores, which JAX must be told of before it starts:
everything is measured in a process of its own.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import harness
from benchmarks.harness import Contestant
from benchmarks.results import Result
from benchmarks.settings import Settings

NUM_MODELS = (1, 4, 16, 64)
_ENCODERS = ("conv", "mlp")
# Steps of models in a sample. All samples last about as long, so that whatever else the
# machine does disturbs them alike.
_MODEL_STEPS = 16


def population(settings: Settings) -> Iterator[Result]:
    """Seconds of a step by the number of models, which `--sizes` gives."""
    for encoder in settings.functions or _ENCODERS:
        request = {
            "encoder": encoder,
            "dim": settings.dims[0] if settings.dims else None,
            "numbers": settings.sizes or NUM_MODELS,
            "samples": settings.samples,
            "seconds": settings.seconds,
            "platform": settings.device.platform,
        }
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.bench_population"],
            input=json.dumps(request),
            cwd=Path(__file__).resolve().parents[1],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        for line in done.stdout.splitlines():
            yield Result(**json.loads(line))


def main() -> None:
    """Answer the request on standard input, one line of JSON a result."""
    from jaxmetric.cli.sweep_program import use_all_cores

    request = json.load(sys.stdin)
    use_all_cores()
    jax.config.update("jax_enable_compilation_cache", False)
    # Of all the platforms that were asked for, the first is the default.
    jax.config.update("jax_platforms", {"gpu": "cuda"}.get(p := request["platform"], p))
    for result in _race(request):
        print(json.dumps(result), flush=True)


def _race(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the results for one encoder, as fields of `Result`."""
    from jaxmetric.cli.options import ModelOptions, TrainOptions
    from jaxmetric.cli.prepare import prepare

    encoder, numbers = request["encoder"], request["numbers"]
    model = ModelOptions(kind=encoder, dim=request["dim"])
    prepared = prepare(TrainOptions(model=model))
    program = prepared.program
    (phase,) = program.phases
    start = time.perf_counter()
    state, compiled = program.initial_state(), program.compile(phase)
    seconds = [time.perf_counter() - start]

    def alone(state: Any, rows: np.ndarray) -> tuple[Any, jax.Array]:
        return compiled(state, rows, False)

    one = _contestant("one", alone, state, program, _MODEL_STEPS)
    many = []
    for number in numbers:
        start = time.perf_counter()
        many.append(_population(prepared, number))
        seconds.append(time.perf_counter() - start)
    harness.interleave(
        [one, *many], samples=request["samples"], seconds=request["seconds"]
    )
    counts = (None, *numbers)
    for contestant, number, took in zip([one, *many], counts, seconds, strict=True):
        over_one = {} if number is None else harness.ratio(contestant, one)
        yield {
            "topic": "population",
            "function": encoder,
            "batch": program.sampler.batch_size,
            "dim": program.model["dim"],
            "workload": "digits",
            "m_per_class": program.sampler.m_per_class,
            "num_margins": number,
            "gradient": contestant.timing(),
            "compile_seconds": took,
            "extra": {"over_one": over_one} if over_one else {},
        }


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
    steps = max(_MODEL_STEPS // number, 1)
    return _contestant(f"{number}", compiled, sweep.initial_state(), sweep, steps)


def _contestant(
    name: str, step: Callable[..., Any], state: Any, program: Any, steps: int
) -> Contestant:
    """Return some steps on, from a state that each call moves."""
    batches = [program.batch(i) for i in range(steps)]

    def call() -> None:
        nonlocal state
        for rows in batches:
            state, metrics = step(state, rows)
            # The loop of a run reads them as well, a step later.
            jax.block_until_ready(metrics)

    return Contestant(name, call, repeat=steps)


if __name__ == "__main__":
    main()
