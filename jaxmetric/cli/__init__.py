"""The command line: `jaxmetric train`, `eval`, `embed` and `sweep`.

Exit codes: 0 done; 1 anything unforeseen or a diverged run, with the log saved; 2 a
mistake in the arguments or the data, told in one line; 130 interrupted, with a
checkpoint saved and the command printed that goes on.

It uses only what a user of the library could import.
"""

import errno
import os
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

_COMMANDS = {
    "train": "train an embedding, and show how well it retrieves unseen classes",
    "eval": "measure how well a run retrieves",
    "embed": "write the embeddings of a data set",
    "sweep": "train many models at once, and keep the best",
}
_HELP = (
    "usage: jaxmetric COMMAND [OPTIONS]\n\nDeep metric learning in JAX.\n\ncommands:\n"
    + "".join(f"  {name:<8}{text}\n" for name, text in _COMMANDS.items())
    + "\nEach has its own --help. To begin: jaxmetric train\n"
)
# What the disk or the permissions forbid is no fault of the program.
_USER_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
      arguments: without the name of the program; None takes those of the process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _main(arguments)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain once more at exit.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 1


def _main(arguments: list[str]) -> int:
    """Run a command; every mistake becomes a line and an exit code."""
    if not arguments:
        return _refuse(
            "a command is missing. Use train, eval, embed or sweep; see --help."
        )
    command, *rest = arguments
    if command in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if command == "--version":
        from jaxmetric import __version__

        print(f"jaxmetric {__version__}")
        return 0
    if command not in _COMMANDS:
        from jaxmetric.cli.values import suggestion

        hint = suggestion(command, _COMMANDS) or "Use train, eval, embed or sweep."
        return _refuse(f"{command!r} is no command. {hint}")
    try:
        from jaxmetric.cli.errors import DivergedError, UsageError
        from jaxmetric.cli.signals import EXIT_CODE, Interrupts
    except ModuleNotFoundError as error:
        return _refuse(f"{error}. Use pip install 'jaxmetric[cli]'.")
    interrupts = Interrupts()
    try:
        with interrupts, warnings.catch_warnings():
            _show_warnings_as_lines()
            _dispatch(command, rest, interrupts)
    except UsageError as error:
        return _refuse(str(error))
    except DivergedError as error:
        return _say(f"{error}", 1)
    except KeyboardInterrupt as error:
        _say(str(error) or "interrupted; nothing was written.", EXIT_CODE)
        if interrupts.is_busy:
            # A thread is still at a compilation that nobody waits for.
            sys.stdout.flush()
            os._exit(EXIT_CODE)
        return EXIT_CODE
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in _USER_ERRNOS:
            name = f"{error.filename}: " if error.filename else ""
            return _refuse(f"{name}{error.strerror}. Free space or change the place.")
        return _unforeseen(error)
    except Exception as error:
        if _is_mistake(error):
            return _refuse(str(error))
        if _is_missing_extra(error):
            return _refuse(f"{error}. Use pip install 'jaxmetric[cli]'.")
        return _unforeseen(error)
    return 0


def _dispatch(command: str, arguments: list[str], interrupts: Any) -> None:
    """Parse the arguments of a command and run it."""
    from jaxmetric.cli.options import (
        EmbedOptions,
        EvalOptions,
        SweepOptions,
        TrainOptions,
    )
    from jaxmetric.cli.parsing import parse

    prog = f"jaxmetric {command}"
    if command == "train":
        options = parse(TrainOptions, arguments, prog=prog, default=None)
        options = _over_file(options, arguments, prog)
        from jaxmetric.cli.train import train

        train(options, shlex.join(["jaxmetric", command, *arguments]), interrupts)
    elif command == "sweep":
        options = parse(SweepOptions, arguments, prog=prog, default=None)
        from jaxmetric.cli.sweep import sweep

        sweep(options, shlex.join(["jaxmetric", command, *arguments]), interrupts)
    elif command == "eval":
        options = parse(EvalOptions, arguments, prog=prog, default=None)
        from jaxmetric.cli.evaluate import evaluate

        evaluate(options)
    else:
        options = parse(EmbedOptions, arguments, prog=prog, default=None)
        from jaxmetric.cli.embed import embed

        embed(options)


def _over_file(options: Any, arguments: list[str], prog: str) -> Any:
    """Return the options over those of a file or of the run to go on with."""
    from jaxmetric.cli import configs, folders
    from jaxmetric.cli.errors import UsageError
    from jaxmetric.cli.options import TrainOptions
    from jaxmetric.cli.parsing import parse

    if options.resume is not None:
        for name in ("out", "config"):
            if getattr(options, name) is not None:
                raise UsageError(
                    f"--resume and --{name} exclude each other: a run goes on in its "
                    "own folder under its own options. Leave out one."
                )
        file = folders.check_run(options.resume) / folders.CONFIG
    elif options.config is not None:
        file = Path(options.config)
    else:
        return options
    default = configs.read_config(file, TrainOptions)
    return parse(TrainOptions, arguments, prog=prog, default=default)


def _is_mistake(error: Exception) -> bool:
    """Return whether an error of the library is about what the user gave."""
    from jaxmetric.data import DataError
    from jaxmetric.training import CheckpointError

    return isinstance(error, DataError | CheckpointError)


def _is_missing_extra(error: Exception) -> bool:
    """Return whether an error is the absence of a package that the commands need."""
    name = getattr(error, "name", None) or ""
    return isinstance(error, ModuleNotFoundError) and not name.startswith("jaxmetric")


def _show_warnings_as_lines() -> None:
    """Print warnings of the library as one line each, without the place in its code."""

    def show(message: Any, category: type[Warning], *_: Any) -> None:
        from jaxmetric.training import CheckpointWarning

        if issubclass(category, CheckpointWarning):
            _say(f"warning: {message}", 0)

    warnings.showwarning = show


def _refuse(text: str) -> int:
    """Tell of a mistake in one line."""
    return _say(text, 2)


def _say(text: str, code: int) -> int:
    """Print one line on standard error, and return an exit code."""
    line = " ".join(text.split())
    if not line.startswith("jaxmetric"):
        line = f"jaxmetric: {line}"
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        pass
    return code


def _unforeseen(error: Exception) -> int:
    """Save the traceback, and name the file in one line."""
    text = "".join(traceback.format_exception(error))
    handle, name = tempfile.mkstemp(prefix="jaxmetric-error-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    kind = type(error).__name__
    first = (str(error).splitlines() or [""])[0][:200]
    return _say(f"unforeseen: {kind}: {first}. The traceback is in {name}", 1)
