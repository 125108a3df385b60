"""What a training run shows while it runs: a live display, or plain lines."""

import contextlib
import math
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

_PLAIN_SECONDS = 5.0
_REFRESHES_PER_SECOND = 4
# The speed of the last half minute, so that a pause (compilation, evaluation) is soon
# forgotten.
_SAMPLE_SECONDS = 0.5
_NUM_SAMPLES = 60
_NOTHING = "–"

_clock = time.monotonic


class Progress:
    """Show on standard error how far training is, as long as the block lasts.

    On a terminal one display is kept up to date: steps, loss, active fraction, mean
    positive and negative distance, examples a second and the time left. Elsewhere (a
    file, a pipe, `CI` set, `TERM=dumb`) a plain line appears at the first and the last
    step and at most every 5 seconds between them. Whatever goes wrong in showing (a
    closed pipe, a terminal that cannot write a character) never reaches the caller.

    Args:
      total_steps: steps of the whole run, those before a resumption included.
      total_examples: examples of the whole run, shared evenly by its steps; they are
        then shown beside the steps. None leaves them out.
      plain: True for lines, False for the display; None looks at standard error, `CI`
        and `TERM`.

    Memory: O(1).

    Example:
      >>> with Progress(total_steps=2, plain=True) as bar:  # lines on standard error
      ...     bar.update(1, {"loss": 0.5}, 1000.0)
      ...     bar.message("halfway")
    """

    def __init__(
        self,
        *,
        total_steps: int,
        total_examples: int | None = None,
        plain: bool | None = None,
    ):
        self.total_steps = max(int(total_steps), 1)
        self.total_examples = total_examples
        self._stream = _QuietStream(sys.stderr)
        self.plain = _is_plain(self._stream) if plain is None else plain
        self._latest: tuple[int, Mapping[str, Any], Any] | None = None
        self._samples: deque[tuple[float, int]] = deque(maxlen=_NUM_SAMPLES)
        self._printed_step: int | None = None
        self._printed_at = -math.inf
        self._live: Any = None

    def __enter__(self) -> "Progress":
        if not self.plain:
            try:
                self._live = self._make_live()
                self._live.start()
            except Exception:
                # A terminal that cannot be driven still takes lines.
                self._stop_live()
                self.plain = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop_live()
        if self.plain and self._latest and self._latest[0] != self._printed_step:
            with contextlib.suppress(Exception):
                self._print_line()

    def update(
        self,
        step: int,
        metrics: Mapping[str, Any],
        examples_per_second: float | None = None,
    ) -> None:
        """Take note of a finished step; cheap enough to be called after each one.

        Args:
          step: steps finished so far, in [0, total_steps].
          metrics: scalars of `make_train_step`, numbers or arrays; of these are shown
            loss, active_fraction, positive_distance and negative_distance. What is
            missing, None or not finite is shown as a dash. Arrays are read (and so
            waited for) only when they are shown.
          examples_per_second: speed of training; None is shown as a dash.
        """
        with contextlib.suppress(Exception):
            self._latest = (int(step), metrics, examples_per_second)
            now = _clock()
            if not self._samples or now - self._samples[-1][0] >= _SAMPLE_SECONDS:
                self._samples.append((now, int(step)))
            if self.plain and (
                step >= self.total_steps or now - self._printed_at >= _PLAIN_SECONDS
            ):
                self._print_line()

    def message(self, text: str) -> None:
        """Print a line that stays, above the display where there is one."""
        try:
            if self._live is None:
                self._stream.write(f"{text}\n")
                self._stream.flush()
            else:
                self._live.console.print(
                    text, markup=False, highlight=False, emoji=False, soft_wrap=True
                )
        except Exception:
            return

    def _stop_live(self) -> None:
        """Leave the last state of the display and give the cursor back."""
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(Exception):
                live.stop()

    def _make_live(self) -> Any:
        """Return the display of rich, not started."""
        from rich.console import Console
        from rich.live import Live

        # Rich would end the process at a closed pipe and raise at a character that the
        # terminal lacks; the quiet stream does neither.
        console = Console(file=self._stream, force_terminal=True)  # pyright: ignore[reportArgumentType]
        return Live(
            get_renderable=self._render,
            console=console,
            refresh_per_second=_REFRESHES_PER_SECOND,
            # Standard output may be a file, whose lines must not come here.
            redirect_stdout=_is_terminal(sys.stdout),
            vertical_overflow="crop",
        )

    def _render(self) -> "RenderableType":
        """Return the display; the thread that refreshes it must never see an error."""
        from rich.text import Text

        try:
            return self._display()
        except Exception:
            return Text("")

    def _display(self) -> "RenderableType":
        """Return the bar and, below it, one column for each number."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        step = self._latest[0] if self._latest else 0
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            Text(self._position(step), style="bold"),
            ProgressBar(total=self.total_steps, completed=step, width=28),
            f"{100 * step // self.total_steps}%",
        )
        if self._latest is None:
            return Group(bar, Text("compiling the first step ...", style="dim"))
        numbers = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in self._numbers():
            numbers.add_column(name, header_style="dim", justify="right", no_wrap=True)
        numbers.add_row(*self._numbers().values())
        return Group(bar, numbers)

    def _print_line(self) -> None:
        """Print the newest numbers as one line."""
        if self._latest is None:
            return
        step = self._latest[0]
        self._printed_step, self._printed_at = step, _clock()
        numbers = "  ".join(f"{name} {text}" for name, text in self._numbers().items())
        self._stream.write(f"step {self._position(step)}  {numbers}\n")
        self._stream.flush()

    def _position(self, step: int) -> str:
        """Return how far the run is, such as "40/2,000"."""
        text = f"{step:,}/{self.total_steps:,}"
        if self.total_examples:
            done = self.total_examples * step // self.total_steps
            text += f" ({done:,}/{self.total_examples:,} examples)"
        return text

    def _numbers(self) -> dict[str, str]:
        """Return what is shown of the newest step, name to text."""
        _, metrics, speed = self._latest or (0, {}, None)
        return {
            "loss": _format(metrics.get("loss"), ".4f"),
            "active": _format(metrics.get("active_fraction"), ".0%"),
            "positive": _format(metrics.get("positive_distance"), ".3f"),
            "negative": _format(metrics.get("negative_distance"), ".3f"),
            "examples/s": _format(speed, ",.0f"),
            "left": self._time_left(),
        }

    def _time_left(self) -> str:
        """Return the time to the last step at the speed of the last half minute."""
        if not self._latest or len(self._samples) < 2:
            return _NOTHING
        (first_time, first_step), (last_time, last_step) = (
            self._samples[0],
            self._samples[-1],
        )
        left = self.total_steps - self._latest[0]
        if left > 0 and last_step <= first_step:
            return _NOTHING
        seconds = (last_time - first_time) / max(last_step - first_step, 1)
        minutes, rest = divmod(round(max(left, 0) * seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _QuietStream:
    """A text stream that drops what it cannot write, and all after a closed pipe."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                with_marks = text.encode(self.encoding, "replace")
                self._stream.write(with_marks.decode(self.encoding))
            except (OSError, ValueError, LookupError):
                self._stream = None
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._stream = None

    def isatty(self) -> bool:
        return _is_terminal(self._stream)

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("the stream is closed")
        return self._stream.fileno()


def _is_terminal(stream: Any) -> bool:
    """Return whether a stream, possibly None or closed, is a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def _is_plain(stream: _QuietStream) -> bool:
    """Return whether a display would be lost on a stream."""
    if os.environ.get("TERM", "") in ("dumb", "unknown"):
        return True
    # The services that set it keep a log, even where they lend a terminal.
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return True
    return not stream.isatty()


def _format(value: Any, spec: str) -> str:
    """Return a number as text, a dash if it is missing or not finite."""
    if value is None:
        return _NOTHING
    number = float(value)
    return format(number, spec) if math.isfinite(number) else _NOTHING
