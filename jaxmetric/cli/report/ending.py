"""The report that a run leaves at its end, which may fail and never harm it."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmetric.cli import measure
from jaxmetric.cli.prepare import Prepared
from jaxmetric.cli.signals import Interrupted
from jaxmetric.training import TrainState


def write_report(
    prepared: Prepared,
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    state: TrainState,
    told: Mapping[str, Any],
) -> None:
    """Write the report of a run whose summary has been written.

    What goes wrong is told in one line: all that it shows is in the other files.

    Args:
      prepared: the run.
      folder: where it is.
      records: of its log.
      state: after the last step.
      told: what its summary holds.

    Raises:
      Interrupted: a signal has come; the run is finished all the same.
    """

    def write() -> None:
        from jaxmetric.cli.report.gather import gather, read_sweep
        from jaxmetric.cli.report.page import REPORT, write_page

        held_out = prepared.split.held_out
        embed = measure.embedder(prepared.program.embed_fn)
        facts = gather(
            folder.absolute(),
            config=prepared.config,
            summary=told,
            records=records,
            held_out=held_out,
            embeddings=embed(state.params, state.model_state, held_out.inputs),
            sweep=read_sweep(folder, told),
        )
        write_page(folder / REPORT, facts, held_out.inputs)

    guarded(folder, write)


def guarded(folder: Path, write: Callable[[], None]) -> None:
    """Write the report of a run that is finished; what goes wrong is told in one line.

    Raises:
      Interrupted: a signal has come.
    """
    again = shlex.join(["jaxmetric", "report", str(folder)])
    try:
        write()
    except Interrupted:
        raise Interrupted(
            f"{folder}: the run is finished, its report is not. To write it: {again}"
        ) from None
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        print(
            f"jaxmetric: warning: {folder}: no report ({type(error).__name__}: "
            f"{first}). To try again: {again}",
            file=sys.stderr,
        )
