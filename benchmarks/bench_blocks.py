"""Topic `blocks`: is the default number of rows in a block a good one at every size?"""

from collections.abc import Iterator
from dataclasses import replace

from benchmarks import harness
from benchmarks.measuring import Entrant, Race
from benchmarks.results import Result
from benchmarks.settings import Settings

_SIZES = (8, 32, 128, 512, 1024, 2048, 4096, 16384)
_BLOCKS = (16, 32, 64, 128, 256, 512, 1024)
_FUNCTIONS = (
    "batch_hard_triplet_loss",
    "batch_all_triplet_loss",
    "supervised_contrastive_loss",
)
# One block beyond this many numbers would not fit a small machine.
_MOST_IN_A_BLOCK = 2**26


def blocks(settings: Settings) -> Iterator[Result]:
    """Value and gradient by block size, the library's choice among them."""
    for batch in settings.sizes or _SIZES:
        for dim in settings.dims or (128,):
            for function in settings.functions or _FUNCTIONS:
                yield from _race(settings, function, batch, dim)


def _race(settings: Settings, function: str, batch: int, dim: int) -> list[Result]:
    """Return the results of one loss with several block sizes."""
    workload = (settings.workloads or ("pk4",))[0]
    # That all are right is shown by the tests; here it would cost more than the sweep.
    race = Race(settings, "blocks", workload=workload, batch=batch, dim=dim)
    chosen = race.add(function, modes=("gradient",))
    sizes = {b for b in (*_BLOCKS, batch) if b <= batch}
    fixed = [
        race.add(function, block_size=size, modes=("gradient",))
        for size in sorted(sizes)
        if size * batch <= _MOST_IN_A_BLOCK
    ]
    race.run()
    if fixed:
        best = min(fixed, key=_median)
        ratio = harness.ratio(
            chosen.contestants["gradient"], best.contestants["gradient"]
        )
        extra = {"best_block": best.result.block_size, "over_best": ratio}
        chosen.result = replace(chosen.result, extra=extra)
    return [entrant.result for entrant in race.entrants]


def _median(entrant: Entrant) -> float:
    """Return the median time of value and gradient."""
    return entrant.contestants["gradient"].timing()["median"]
