"""The command line: `jaxmetric train`, `eval`, `search` and the others.

Exit codes: 0 done; 1 anything unforeseen, another process of the run that is lost, or a
diverged run, with the log saved; 2 a mistake in the arguments or the data, told in one
line; 130 interrupted, with a checkpoint saved and the command printed that goes on.

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
    "report": "put all that is known of a run on one page",
    "calibrate": "find the distance up to which rows are taken for one class",
    "search": "find the nearest rows of a gallery, known or unknown",
}
_HELP = (
    "usage: jaxmetric COMMAND [OPTIONS]\n\nDeep metric learning in JAX.\n\ncommands:\n"
    + "".join(f"  {name:<11}{text}\n" for name, text in _COMMANDS.items())
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
        code = _main(arguments)
        if code:
            _leave_others(code)
        return code
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
            f"a command is missing. Use one of {', '.join(_COMMANDS)}; see --help."
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

        hint = suggestion(command, _COMMANDS) or f"Use one of {', '.join(_COMMANDS)}."
        return _refuse(f"{command!r} is no command. {hint}")
    try:
        from jaxmetric.cli.errors import DivergedError, LostError, UsageError
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
    except (DivergedError, LostError) as error:
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
    from jaxmetric.cli.options import SweepOptions, TrainOptions
    from jaxmetric.cli.parsing import parse
    from jaxmetric.cli.run_options import (
        CalibrateOptions,
        EmbedOptions,
        EvalOptions,
        SearchOptions,
    )

    prog = f"jaxmetric {command}"
    if command == "train":
        options = parse(TrainOptions, arguments, prog=prog, default=None)
        from jaxmetric.cli import devices, distributed
        from jaxmetric.cli.train import train

        line = shlex.join(["jaxmetric", command, *arguments])
        devices.ask_for(options.devices)
        with distributed.processes(options.distributed, interrupts) as group:
            options = _over_file(options, arguments, prog, group)
            train(options, line, interrupts, group)
    elif command == "sweep":
        options = parse(SweepOptions, arguments, prog=prog, default=None)
        from jaxmetric.cli.sweep import sweep

        sweep(options, shlex.join(["jaxmetric", command, *arguments]), interrupts)
    elif command == "report":
        from jaxmetric.cli.run_options import ReportOptions

        options = parse(ReportOptions, arguments, prog=prog, default=None)
        from jaxmetric.cli.report.command import report

        report(options)
    elif command == "eval":
        options = parse(EvalOptions, arguments, prog=prog, default=None)
        from jaxmetric.cli.evaluate import evaluate

        evaluate(options)
    elif command == "calibrate":
        options = parse(CalibrateOptions, arguments, prog=prog, default=None)
        from jaxmetric.cli.calibrate import calibrate

        calibrate(options)
    elif command == "search":
        options = parse(SearchOptions, arguments, prog=prog, default=None)
        from jaxmetric.cli.search import search

        search(options)
    else:
        options = parse(EmbedOptions, arguments, prog=prog, default=None)
        from jaxmetric.cli.embed import embed

        embed(options)


def _over_file(options: Any, arguments: list[str], prog: str, processes: Any) -> Any:
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
        folder = processes.first(lambda: str(folders.check_run(options.resume)))
        file = Path(folder) / folders.CONFIG
    elif options.config is not None:
        file = Path(options.config)
    else:
        return options
    mapping = processes.first(
        lambda: configs.to_mapping(configs.read_config(file, TrainOptions))
    )
    default = configs.from_mapping(mapping, TrainOptions, str(file))
    return parse(TrainOptions, arguments, prog=prog, default=default)


def _leave_others(code: int) -> None:
    """End the process at once where it was one of several that go on together."""
    module = sys.modules.get("jaxmetric.cli.distributed")
    if module is not None:
        module.leave(code)


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
