"""Several processes, on one host or many, that train one model together.

Each runs the same command, and computes its share of every batch. What must not differ
(the folder, the log, the state that is gone on with, a failure) is decided by process 0
and handed on; it alone writes and prints. A process that dies ends all: the others find
out at the next communication, or by its missing sign of life at the latest.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmetric.cli.errors import DivergedError, LostError, UsageError
from jaxmetric.cli.signals import Interrupted, Interrupts

T = TypeVar("T")

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Seconds: how long processes wait for each other to begin, and how long one may be
# silent before it counts as dead. JAX aborts the process itself after the second.
_TO_MEET, _SILENT = 300, 30
# JAX and XLA tell of a failed communication in these words, under several types.
_LOST = re.compile(
    r"(?s)^(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED)\b|"
    r"^[A-Z_]+: .*(?i:gloo|nccl|rccl|coordination|heartbeat|socket|connection)"
)

_is_joined = False


class Processes:
    """The processes of a run, of which this is one.

    Attributes:
      index, count: which one this is, and of how many.
      has_failed_together: whether all processes know of the failure under way.
    """

    def __init__(self, index: int = 0, count: int = 1):
        self.index, self.count = index, count
        self.has_failed_together = False

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.index == 0

    def first(self, function: Callable[[], T]) -> T:
        """Return what process 0 gets of a function, a JSON value, in all processes.

        If it fails there, all processes fail.
        """
        if self.count == 1:
            return function()
        result, failure = None, None
        if self.is_first:
            try:
                result = function()
            except Exception as error:
                failure = error
        told = json.dumps([failure is not None, result])
        has_failed, result = json.loads(self._of_first(told.encode()))
        if has_failed:
            self.has_failed_together = True
            raise failure or UsageError("process 0 has failed, and says why.")
        return result

    def each(self, function: Callable[[], T]) -> T:
        """Return what this process gets of a function; if one fails, all fail."""
        if self.count == 1:
            return function()
        result: Any = None
        failure = None
        try:
            result = function()
        except Exception as error:
            failure = error
        failed = np.flatnonzero(self._of_all(np.uint8(failure is not None)))
        if len(failed):
            self.has_failed_together = True
            raise failure or UsageError(
                f"process {failed[0]} has failed, and says why."
            )
        return result

    def check_alike(self, facts: dict[str, Any]) -> None:
        """Require the same facts of all processes.

        Raises:
          UsageError: names the facts that differ, in all processes.
        """
        if self.count == 1:
            return
        names = sorted(facts)
        texts = [json.dumps(facts[name], sort_keys=True) for name in names]
        digests = [hashlib.sha256(text.encode()).digest() for text in texts]
        own = np.frombuffer(b"".join(digests), np.uint8).reshape(len(names), -1)
        every = self._of_all(own)
        is_other = (every != every[0]).any(axis=-1)
        if is_other.any():
            process = int(np.flatnonzero(is_other.any(axis=1))[0])
            which = [names[i] for i in np.flatnonzero(is_other[process])]
            self.has_failed_together = True
            raise UsageError(
                f"process {process} differs from process 0 in its "
                f"{' and '.join(which)}. Give all processes the same."
            )

    def arrays_of_first(self, tree: Any) -> Any:
        """Return the arrays of process 0, bit for bit; typed keys come as keys.

        Args:
          tree: of arrays in process 0, of their shapes and dtypes in all others.
        """
        if self.count == 1:
            return tree

        def share(leaf: Any) -> jax.Array:
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            if is_key:
                shape = jax.eval_shape(jax.random.key_data, leaf)
                data = jax.random.key_data(leaf) if self.is_first else None
            else:
                shape, data = leaf, leaf
            own = b"" if not self.is_first else np.asarray(data).tobytes()
            flat = np.frombuffer(self._of_first(own), shape.dtype)
            array = jnp.asarray(flat.reshape(shape.shape))
            return jax.random.wrap_key_data(array) if is_key else array

        return jax.tree.map(share, tree)

    def _of_first(self, content: bytes) -> bytes:
        """Return the bytes of process 0; the others give anything."""
        from jax.experimental import multihost_utils

        def share(numbers: np.ndarray) -> np.ndarray:
            return np.asarray(
                multihost_utils.broadcast_one_to_all(numbers, is_source=self.is_first)
            )

        length = int(share(np.array(len(content), np.int32)))
        own = content if self.is_first else bytes(length)
        return share(np.frombuffer(own, np.uint8)).tobytes() if length else b""

    def _of_all(self, numbers: Any) -> np.ndarray:
        """Return [count, ...] numbers, those of each process."""
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(np.asarray(numbers)))


@contextlib.contextmanager
def processes(is_distributed: bool, interrupts: Interrupts) -> Iterator[Processes]:
    """Give the processes of this run: this one, or those that meet here.

    While there are several, a signal is only noted: whoever left alone would stop all
    others. What ends them together leaves them in good order; what ends one alone
    leaves JAX as it is, see `leave`.

    Args:
      is_distributed: whether others are to be met.
      interrupts: where signals arrive.

    Raises:
      UsageError: nothing says where to meet, or not all came.
      LostError: another process does not answer any more.
    """
    if not is_distributed:
        yield Processes()
        return
    _join(interrupts)
    group = Processes(jax.process_index(), jax.process_count())
    try:
        held = interrupts.noted() if group.count > 1 else contextlib.nullcontext()
        with held, _quiet(not group.is_first):
            yield group
    except Exception as error:
        if group.has_failed_together or isinstance(error, DivergedError):
            _part()
        elif group.count > 1 and _is_loss(error):
            reason = (str(error).splitlines() or [""])[0][:200]
            raise LostError(
                f"process {group.index} of {group.count} has lost another one "
                f"({reason}). The last checkpoint stands: start all processes again, "
                "with --resume."
            ) from error
        raise
    except Interrupted:
        _part()
        raise
    _part()


def leave(code: int) -> None:
    """End this process at once if others count on it; else do nothing.

    JAX would wait minutes for the others, who wait for this one.
    """
    if _is_joined:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _join(interrupts: Interrupts) -> None:
    """Meet the other processes."""
    global _is_joined
    found = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    arguments: dict[str, Any] = {}
    if found:
        missing = [name for name in VARIABLES if name not in found]
        if missing:
            raise UsageError(
                f"--distributed: {' and '.join(missing)} must be set besides "
                f"{' and '.join(found)}. Set all three, or none under a scheduler."
            )
        address, count, index = (found[name] for name in VARIABLES)
        arguments = _checked(address, count, index)
    # It would take SIGTERM from us, to tell those who ask it.
    with contextlib.suppress(AttributeError):
        jax.config.update("jax_enable_preemption_service", False)

    def initialize() -> None:
        jax.distributed.initialize(
            **arguments,
            # JAX aborts the process at the end of its own patience.
            initialization_timeout=_TO_MEET + 60,
            heartbeat_timeout_seconds=_SILENT,
        )

    _is_joined = True
    try:
        interrupts.run_aside(initialize, timeout=_TO_MEET)
    except TimeoutError:
        place = arguments.get("coordinator_address", "the scheduler's place")
        raise UsageError(
            f"--distributed: not all processes came to {place} within {_TO_MEET} s. "
            "Start all of them with one address, and numbers from 0."
        ) from None
    except (ValueError, RuntimeError) as error:
        _is_joined = False
        if not arguments and "should be defined" in str(error):
            raise UsageError(
                "--distributed: no scheduler that JAX knows has started this process, "
                f"and {', '.join(VARIABLES)} are not set. Set these three."
            ) from error
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(f"--distributed: JAX cannot start: {reason}") from error


def _checked(address: str, count: str, index: str) -> dict[str, Any]:
    """Return the three variables as arguments of JAX."""
    if not re.fullmatch(r".+:\d+", address):
        raise UsageError(
            f"--distributed: {VARIABLES[0]} must be HOST:PORT of process 0, got "
            f"{address!r}. Use 10.0.0.1:1234."
        )
    numbers = []
    for name, text in zip(VARIABLES[1:], (count, index), strict=True):
        if not text.isdecimal():
            raise UsageError(
                f"--distributed: {name} must be a whole number, got {text!r}. Count "
                "processes from 0."
            )
        numbers.append(int(text))
    if numbers[1] >= numbers[0]:
        raise UsageError(
            f"--distributed: {VARIABLES[2]} must be below {VARIABLES[1]} = "
            f"{numbers[0]}, got {numbers[1]}. Count processes from 0."
        )
    return {
        "coordinator_address": address,
        "num_processes": numbers[0],
        "process_id": numbers[1],
    }


def _part() -> None:
    """Leave the others in good order, once all are here."""
    global _is_joined
    jax.distributed.shutdown()
    _is_joined = False


@contextlib.contextmanager
def _quiet(is_quiet: bool) -> Iterator[None]:
    """Drop what is printed: process 0 tells of all."""
    if not is_quiet:
        yield
        return
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _is_loss(error: Exception) -> bool:
    """Return whether an error is that of a failed communication."""
    is_told_by_jax = isinstance(error, ValueError | RuntimeError)
    return is_told_by_jax and _LOST.search(str(error)) is not None
