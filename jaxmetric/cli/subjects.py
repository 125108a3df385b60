"""What `train` asks of a run: of classes or of pairs, it is the same questions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxmetric.cli.classes import Classes
from jaxmetric.cli.devices import Devices
from jaxmetric.cli.measure import Metrics
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.outcome import Trained
from jaxmetric.cli.paired.prepare import prepare_pairs
from jaxmetric.cli.paired.subject import Pairs
from jaxmetric.cli.paired.tasks import task_of
from jaxmetric.cli.prepare import prepare
from jaxmetric.cli.records import Record
from jaxmetric.training import TrainState


class Subject(Protocol):
    """A run that is ready, and what is particular to its kind of data.

    Attributes:
      prepared: the run.
      baseline_kind: of the record with the metrics of what is to be beaten.
    """

    prepared: Any
    baseline_kind: str

    def evaluation(self) -> Callable[[Any, Any], Metrics]:
        """Return a function (params, model_state) -> metrics of what is held out."""
        ...

    def baseline(self) -> dict[str, Any]:
        """Return the metrics of what is to be beaten, empty where there is nothing."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what every checkpoint tells, to be compared on resumption."""
        ...

    def files(self) -> Mapping[str, str | bytes]:
        """Return what is kept with the run besides, contents by file name."""
        ...

    def describe(self, trained: Trained, command: str) -> dict[str, Any]:
        """Return what summary.json tells besides the metrics."""
        ...

    def write_figures(
        self, folder: Path, records: list[Record], state: TrainState
    ) -> None:
        """Write the pictures of a finished run."""
        ...

    def write_report(
        self,
        folder: Path,
        records: Sequence[Mapping[str, Any]],
        state: TrainState,
        told: Mapping[str, Any],
    ) -> None:
        """Write the report of a finished run; what goes wrong is told in one line."""
        ...

    def beginning(self) -> list[str]:
        """Return lines on what is about to happen."""
        ...

    def print_table(self, blocks: Mapping[str, Mapping[str, Any]]) -> None:
        """Print the metrics before and after."""
        ...


def prepare_subject(options: TrainOptions, devices: Devices) -> Subject:
    """Check everything that can be checked before the first step.

    Raises:
      UsageError, DataError: the options, the data, or both together are a mistake.
    """
    task = task_of(options)
    if task is None:
        return Classes(prepare(options, devices))
    return Pairs(prepare_pairs(options, task, devices))
