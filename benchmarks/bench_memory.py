"""Topic `memory`: how the working memory of every loss grows with the batch.

The temporaries of value and gradient, by XLA's analysis, for the library's choice of
block and for a fixed one; the slope over the batch on a log-log scale; and for
batch-all at the largest size what the process really holds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from benchmarks import memory, specs
from benchmarks.programs import Program
from benchmarks.results import Result
from benchmarks.settings import Settings

_SIZES = (512, 1024, 4096, 16384)
_BLOCKS = (None, 64)
# Seconds after which the run that shows the resident set is given up.
_TIMEOUT = 240.0


def memory_over_batch(settings: Settings) -> Iterator[Result]:
    """Bytes of temporaries by loss, block and batch, with the slope at the largest."""
    dim = (settings.dims or (128,))[0]
    sizes = settings.sizes or _SIZES
    for function in settings.functions or specs.row_losses():
        for block_size in _BLOCKS:
            programs = [
                Program(
                    function,
                    batch,
                    dim,
                    block_size=block_size,
                    precision=settings.precision,
                    dtype=settings.dtype,
                )
                for batch in sizes
            ]
            found = memory.temp_bytes(programs, settings.device)
            results = [
                _result(settings, program, temp)
                for program, temp in zip(programs, found, strict=True)
            ]
            yield from results[:-1]
            yield _with_slope(results)
    if settings.is_cpu and "batch_all_triplet_loss" in (
        settings.functions or specs.row_losses()
    ):
        yield _resident(settings, max(sizes), dim)


def slope(sizes: Sequence[int], temps: Sequence[float]) -> float:
    """Return the exponent with which memory grows, fitted on a log-log scale."""
    return float(np.polyfit(np.log(sizes), np.log(temps), 1)[0])


def _result(settings: Settings, program: Program, temp: int | None) -> Result:
    """Return the temporaries of a program as a result."""
    return Result(
        "memory",
        program.function,
        program.batch,
        program.dim,
        block_size=program.block_size,
        dtype=settings.dtype,
        precision=settings.precision,
        temp_bytes=temp,
        status="ok" if temp is not None else "not measured: does not compile",
        extra={} if temp is None else {"matrix_bytes": 4 * program.batch**2},
    )


def _with_slope(results: list[Result]) -> Result:
    """Return the last of the results with the slope over all of them.

    The slope counts from the first size that is worked on by more than one block.
    """
    last = results[-1]
    measured = [r for r in results if r.temp_bytes and _is_by_blocks(r)]
    if len(measured) < 2:
        return last
    temps = [r.temp_bytes or 0 for r in measured]
    extra = {"slope": slope([r.batch for r in measured], temps)}
    return replace(last, extra=last.extra | extra)


def _is_by_blocks(result: Result) -> bool:
    """Tell whether a fixed block is smaller than the batch; the choice is ours."""
    return result.block_size is None or result.block_size < result.batch


def _resident(settings: Settings, batch: int, dim: int) -> Result:
    """Return what a run of batch-all adds to the resident set, default flags."""
    program = Program(
        "batch_all_triplet_loss",
        batch,
        dim,
        precision=settings.precision,
        dtype=settings.dtype,
    )
    found = memory.resident_bytes(program, "pk4", timeout=_TIMEOUT)
    return Result(
        "memory",
        program.function,
        batch,
        dim,
        workload="pk4",
        dtype=settings.dtype,
        precision=settings.precision,
        status="ok" if found is not None else "not measured",
        extra={} if found is None else {"resident_bytes": found},
    )
