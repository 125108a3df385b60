"""Ctrl-C and SIGTERM: the first is answered at the next safe place, the second at once.

Outside a protected region the first signal raises `Interrupted` where the program is.
Inside (a training step, a save) it waits for the end of the region. A long compilation
or evaluation runs beside the main thread, which alone can be told of a signal.
"""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

EXIT_CODE = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(KeyboardInterrupt):
    """A signal asks the program to end."""


class Interrupts:
    """Turn SIGINT and SIGTERM into `Interrupted`; a context manager.

    Attributes:
      is_requested: whether a signal has come.
      is_busy: whether a thread of `run_aside` was left running, so that only
        `os._exit` ends the process without delay.
    """

    def __init__(self):
        self.is_requested = False
        self.is_busy = False
        self._depth = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        # Only the main thread may set handlers; elsewhere nothing is caught.
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle) for s in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Protect a region: a signal is only noted, and raised at the region's end."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        self.check()

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Only note a signal, also at the end: somebody else decides what it does."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come, unless in a protected region."""
        if self.is_requested and self._depth == 0:
            raise Interrupted

    def run_aside(
        self, function: Callable[[], T], *, timeout: float | None = None
    ) -> T:
        """Return function(), run in a thread that a signal does not wait for.

        Raises:
          Interrupted: a signal has come. TimeoutError: it took more than `timeout`
            seconds. In both cases the thread may go on.
        """
        outcome: list[Any] = []
        # Not Thread.join: interrupted by an exception it takes the thread for ended.
        is_done = threading.Event()

        def work() -> None:
            try:
                outcome.append((function(), None))
            except BaseException as error:
                outcome.append((None, error))
            finally:
                is_done.set()

        threading.Thread(target=work, daemon=True).start()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        try:
            while not is_done.wait(0.1):
                self.check()
                if time.monotonic() > deadline:
                    raise TimeoutError
        finally:
            self.is_busy = not is_done.is_set()
        result, error = outcome[0]
        if error is not None:
            raise error
        return result

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal, leave at the second."""
        if self.is_requested:
            # A checkpoint has its name only when it is whole, so nothing is damaged.
            with contextlib.suppress(OSError):
                if os.isatty(2):
                    os.write(2, _SHOW_CURSOR)
            os._exit(EXIT_CODE)
        self.is_requested = True
        self.check()
