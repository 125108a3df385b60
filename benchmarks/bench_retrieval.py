"""Topic `retrieval`: all metrics in one pass, in time and in memory.

Two shapes: many classes of a few rows, whose ranks are counted, and ten classes, whose
ranks are found by sorting.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np

from benchmarks import harness, memory, specs
from benchmarks.harness import Contestant
from benchmarks.programs import Program
from benchmarks.results import Result
from benchmarks.settings import Settings
from jaxmetric.retrieval import evaluate

# (workload, queries and as many references, dim)
_SHAPES = (("pk8", 60_000, 128), ("ten_classes", 20_000, 64))
_NUM_CHECKED = 64
_TIMEOUT = 300.0


def retrieval(settings: Settings) -> Iterator[Result]:
    """Time, temporaries, resident memory, and the metrics of some queries checked."""
    for workload, rows, dim in _SHAPES:
        if settings.workloads and workload not in settings.workloads:
            continue
        for size in settings.sizes or (rows,):
            for width in settings.dims or (dim,):
                yield _measure(settings, workload, size, width)


def brute_force(
    query: np.ndarray,
    query_labels: np.ndarray,
    reference: np.ndarray,
    reference_labels: np.ndarray,
) -> dict[str, float]:
    """Return metrics of a few queries in float64, by sorting all distances."""
    sums = {"recall_at_1": 0.0, "r_precision": 0.0, "mean_average_precision_at_r": 0.0}
    count = 0
    for x, label in zip(query.astype(np.float64), query_labels, strict=True):
        d = np.sum((reference.astype(np.float64) - x) ** 2, 1)
        is_same = reference_labels == label
        number = int(is_same.sum())
        if not number:
            continue
        # Among equal distances the irrelevant ones come first.
        order = np.lexsort((is_same, d))
        found = is_same[order][:number]
        hits = np.cumsum(found)
        sums["recall_at_1"] += float(found[0])
        sums["r_precision"] += hits[-1] / number
        precision = hits / np.arange(1, number + 1)
        sums["mean_average_precision_at_r"] += (precision * found).sum() / number
        count += 1
    return {name: total / max(count, 1) for name, total in sums.items()}


def _measure(settings: Settings, workload: str, rows: int, dim: int) -> Result:
    """Return the result of one shape."""
    query, reference = specs.WORKLOADS[workload].make(2 * rows, dim).halves()
    program = Program("evaluate", rows, dim)
    arguments = jax.device_put(
        (*map(np.asarray, query), *map(np.asarray, reference)), settings.device
    )
    compiled = harness.compile_for(program.build(), arguments, settings.device)
    contestant = Contestant("evaluate", compiled, repeat=compiled.repeat)
    start = time.perf_counter()
    metrics = compiled()
    # Long runs are timed a few times only, and the first of them counts.
    if time.perf_counter() - start < settings.seconds:
        harness.interleave(
            (), yardsticks=(contestant,), samples=3, seconds=settings.seconds
        )
    else:
        contestant.sample(0)
        contestant.sample(1)
    checked = _check(query, reference)
    result = Result(
        "retrieval",
        "evaluate",
        rows,
        dim,
        workload=workload,
        m_per_class=reference.m_per_class,
        forward=contestant.timing(),
        compile_seconds=compiled.seconds,
        gflop=2e-9 * rows * rows * dim,
        error_value=checked,
        reference="numpy",
        extra={"recall_at_1": float(metrics["recall_at_1"])},
    )
    if not settings.has_memory:
        return result
    temp = memory.temp_bytes([program], settings.device)[0]
    result = replace(result, temp_bytes=temp)
    if settings.is_cpu:
        resident = memory.resident_bytes(program, workload, timeout=_TIMEOUT)
        extra = result.extra | {"resident_bytes": resident}
        result = replace(result, extra=extra)
    return result


def _check(query: specs.Batch, reference: specs.Batch) -> float:
    """Return the greatest error of three metrics over a few of the queries."""
    rng = np.random.default_rng(0)
    number = min(_NUM_CHECKED, len(query.labels))
    rows = rng.choice(len(query.labels), number, replace=False)
    some = (query.embeddings[rows], query.labels[rows])
    found = evaluate(*some, *reference)
    expected = brute_force(*some, *reference)
    return max(abs(float(found[name]) - value) for name, value in expected.items())
