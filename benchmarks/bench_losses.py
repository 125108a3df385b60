"""Topics `losses` and `workloads`: what a loss and its gradient cost.

The figures of the target table: the default workload at several sizes, four classes of
a quarter of the batch, and every kind of batch at one size.
"""

from collections.abc import Iterator

from benchmarks import specs
from benchmarks.measuring import Race
from benchmarks.results import Result
from benchmarks.settings import Settings

_SIZES = (256, 1024, 2048, 4096)
_DIMS = (128,)


def losses(settings: Settings) -> Iterator[Result]:
    """Every headline loss on P x 4 batches, by size (and dimension)."""
    functions = settings.functions or specs.headlines()
    for workload in settings.workloads or ("pk4",):
        for batch in settings.sizes or _SIZES:
            for dim in settings.dims or _DIMS:
                yield from _race(settings, "losses", functions, workload, batch, dim)


def classes(settings: Settings) -> Iterator[Result]:
    """Batch-all and semi-hard where classes are a quarter of the batch."""
    functions = settings.functions or (
        "batch_all_triplet_loss",
        "semi_hard_triplet_loss",
    )
    for batch in settings.sizes or (2048,):
        for dim in settings.dims or _DIMS:
            yield from _race(settings, "classes", functions, "few_large", batch, dim)


def workloads(settings: Settings) -> Iterator[Result]:
    """Every kind of batch and every dimension at one size."""
    functions = settings.functions or specs.headlines()
    for workload in settings.workloads or tuple(specs.WORKLOADS):
        for batch in settings.sizes or (1024,):
            dims = settings.dims or (specs.DIMS if workload == "pk4" else _DIMS)
            for dim in dims:
                yield from _race(settings, "workloads", functions, workload, batch, dim)


def _race(
    settings: Settings,
    topic: str,
    functions: tuple[str, ...],
    workload: str,
    batch: int,
    dim: int,
) -> list[Result]:
    """Return the results of some losses on one batch."""
    race = Race(settings, topic, workload=workload, batch=batch, dim=dim)
    for function in functions:
        race.add(function, judge=function)
    return race.run()
