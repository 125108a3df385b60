"""From text to the value of an option, the same for arguments and configurations."""

import difflib
import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def convert(annotation: Any, texts: Sequence[str]) -> Any:
    """Return the value that texts spell.

    Args:
      annotation: int, float, str, bool, a Literal of strings, `tuple[T, ...]` of one of
        these, or any of them `| None`.
      texts: one text, or any number for a tuple. "auto" gives None where that is
        allowed.

    Raises:
      ValueError: they spell no such value; the text completes "--option ...".
    """
    kind, is_optional = unwrap(annotation)
    if is_optional and list(texts) == ["auto"]:
        return None
    if get_origin(kind) is tuple:
        entry = get_args(kind)[0]
        return tuple(convert(entry, [text]) for text in texts)
    if len(texts) != 1:
        raise ValueError(f"must be {_words(kind)}, got {len(texts)} values")
    (text,) = texts
    if kind is str:
        return text
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if text not in choices:
            hint = suggestion(text, choices) or f"Use one of {', '.join(choices)}."
            raise ValueError(f"must be {_words(kind)}, got {text!r}. {hint}")
        return text
    try:
        if kind is bool:
            return {t: t in _TRUE for t in _TRUE + _FALSE}[text.lower()]
        return kind(text)
    except (ValueError, KeyError) as error:
        raise ValueError(f"must be {_words(kind)}, got {text!r}") from error


def spell(value: Any) -> list[str]:
    """Return the texts that `convert` turns into a value."""
    if value is None:
        return ["auto"]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, tuple | list):
        return [text for entry in value for text in spell(entry)]
    return [str(value)]


def unwrap(annotation: Any) -> tuple[Any, bool]:
    """Return an annotation without `| None` and `Annotated`, and whether it had one."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        (kind,) = (a for a in get_args(annotation) if a is not types.NoneType)
        return kind, True
    return annotation, False


def metavar(annotation: Any) -> str:
    """Return how the help writes a value of a type: INT, NAME ..., {adam,sgd}."""
    kind, _ = unwrap(annotation)
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    if get_origin(kind) is tuple:
        return f"{metavar(get_args(kind)[0])} ..."
    return {bool: "BOOL", int: "INT", float: "FLOAT"}.get(kind, "NAME")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean ...?" with the nearest of the known names, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else ""


def _words(kind: Any) -> str:
    """Return what a value of a type is, in words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    words = {int: "an integer", float: "a number", bool: "true or false"}
    return words.get(kind, "one name")
