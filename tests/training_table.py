"""Print how far each loss comes: `python -m tests.training_table [NAME..]`.

MAP@R on held-out digits before and after (lowest, median and highest of five seeds),
and precision@1 on the toy set. `tests/training_runs.py` says what is trained how.
"""

import sys
import time

import numpy as np

from tests.training_runs import digits, measure, toy, train, untrained
from tests.training_settings import names, setting

MAP_AT_R, PRECISION = "mean_average_precision_at_r", "precision_at_1"
HEADER = (
    "| loss | MAP@R untrained | trained: lowest | median | highest "
    "| toy P@1 untrained | trained: lowest | median |\n"
    "|---|---|---|---|---|---|---|---|"
)


def row(name: str) -> str:
    """Return one row of the table."""
    own = setting(name)
    cells = [name.removesuffix("_loss")]
    for data, metric in (
        (digits(with_views=own.with_views), MAP_AT_R),
        (toy(with_views=own.with_views), PRECISION),
    ):
        before = untrained(data, own.ending)[metric]
        after = measure(name, train(name, data)[0], data)[metric]
        numbers = [np.median(before), after.min(), np.median(after), after.max()]
        cells += [f"{x:.3f}" for x in numbers[: 4 if metric == MAP_AT_R else 3]]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table of the losses that are named, or of all."""
    sys.stdout.write(HEADER + "\n")
    for name in sys.argv[1:] or names():
        start = time.monotonic()
        sys.stdout.write(row(name) + "\n")
        sys.stdout.flush()
        sys.stderr.write(f"{name}: {time.monotonic() - start:.1f} s\n")


if __name__ == "__main__":
    main()
