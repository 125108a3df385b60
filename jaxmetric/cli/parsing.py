"""Arguments to options with tyro; what is wrong with them becomes one line."""

import contextlib
import dataclasses
import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.values import convert, metavar, spell, suggestion, unwrap

T = TypeVar("T")

# Wide enough that tyro breaks no line of an error text.
_WIDE = "4000"
# No negative number.
_FLAG = re.compile(r"--?[A-Za-z]")
_BOX = re.compile(r"^[╭╰│]|[╮╯│]$")


def parse(options: type[T], arguments: Sequence[str], *, prog: str, default: Any) -> T:
    """Return the options that arguments spell.

    Args:
      options: a dataclass of options and of sections of options.
      arguments: without the name of the command.
      prog: the name of the command.
      default: an instance of `options` for what the arguments leave open, or None.

    Raises:
      UsageError: the arguments spell no options; one line.
      SystemExit: after the help was asked for and printed.
    """
    flags = _flags(options)
    arguments = _join_repeated(_spell_out_bools(arguments, flags), flags)
    if any(a in ("-h", "--help") for a in arguments):
        _parse(options, ["--help"], prog, default)
    for argument in arguments:
        name = argument.split("=")[0].replace("_", "-")
        if name.startswith("--") and name not in flags:
            hint = suggestion(name, flags) or f"See {prog} --help."
            raise UsageError(f"{prog}: {name} is no option. {hint}")
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDE
    try:
        with contextlib.redirect_stderr(io.StringIO()) as told:
            return _parse(options, arguments, prog, default)
    except SystemExit as error:
        raise UsageError(f"{prog}: {_one_line(told.getvalue(), prog)}") from error
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns


def _parse(options: type[T], arguments: Sequence[str], prog: str, default: Any) -> T:
    """Return what tyro makes of the arguments."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_rule)
    return tyro.cli(
        options,
        prog=prog,
        args=arguments,
        default=tyro.MISSING_NONPROP if default is None else default,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
        registry=registry,
    )


def _rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Return how values of a type are read, written and described."""
    if dataclasses.is_dataclass(info.type):
        return None
    kind, _ = unwrap(info.type)
    return PrimitiveConstructorSpec(
        nargs="*" if get_origin(kind) is tuple else 1,
        metavar=metavar(info.type),
        instance_from_str=lambda texts: convert(info.type, texts),
        is_instance=lambda _: True,
        str_from_instance=spell,
    )


def fields_of(options: Any) -> Iterator[tuple[dataclasses.Field, Any]]:
    """Give the fields of a dataclass with their annotations, resolved."""
    hints = get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        yield field, hints[field.name]


def _flags(options: Any) -> dict[str, Any]:
    """Return the type behind every flag of a dataclass and its sections."""
    flags: dict[str, Any] = {"--help": bool}
    for field, hint in fields_of(options):
        if dataclasses.is_dataclass(hint):
            flags |= _flags(hint)
            continue
        extras = getattr(hint, "__metadata__", ())
        name = next((e.name for e in extras if getattr(e, "name", None)), field.name)
        is_hidden = any(
            extra in (tyro.conf.Positional, tyro.conf.Suppress) for extra in extras
        )
        if not is_hidden:
            kind = get_args(hint)[0] if extras else hint
            flags["--" + name.replace("_", "-")] = unwrap(kind)[0]
    return flags


def _spell_out_bools(arguments: Sequence[str], flags: dict[str, Any]) -> list[str]:
    """Return arguments with --soft as --soft true, and --no-soft as --soft false."""
    spelt = []
    for i, argument in enumerate(arguments):
        flag = argument.replace("_", "-")
        positive = "--" + flag.removeprefix("--no-")
        following = arguments[i + 1] if i + 1 < len(arguments) else ""
        if flags.get(flag) is bool and flag != "--help":
            spelt.append(argument)
            if following.lower() not in ("true", "false"):
                spelt.append("true")
        elif flag.startswith("--no-") and flags.get(positive) is bool:
            spelt += [positive, "false"]
        else:
            spelt.append(argument)
    return spelt


def _join_repeated(arguments: Sequence[str], flags: dict[str, Any]) -> list[str]:
    """Return arguments with --log a ... --log b as --log a b ..."""
    joined: list[str] = []
    ends: dict[str, int] = {}  # of each flag of many values, where its next one goes
    current = None
    for argument in arguments:
        words = [argument]
        if _FLAG.match(argument):
            name, _, value = argument.partition("=")
            flag = name.replace("_", "-")
            current = flag if get_origin(flags.get(flag)) is tuple else None
            if current is not None:
                words = [name] if current not in ends else []
                words += [value] if value else []
        place = len(joined) if current is None else ends.get(current, len(joined))
        joined[place:place] = words
        ends = {k: end + len(words) * (end > place) for k, end in ends.items()}
        if current is not None:
            ends[current] = place + len(words)
    return joined


def _one_line(box: str, prog: str) -> str:
    """Return what a box of tyro says, without the frame and the help below it."""
    lines = [_BOX.sub("", line).strip() for line in box.splitlines()]
    said = []
    for line in lines[1:]:
        if line.startswith("───"):
            break
        said.append(line)
    text = " ".join(" ".join(said).split()).replace("Error parsing ", "")
    return f"{text or 'the arguments cannot be read'}. See {prog} --help.".replace(
        "..", "."
    )
