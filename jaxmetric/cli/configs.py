"""Options as YAML files: read strictly, written whole, compared leaf by leaf."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin

import yaml

from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import NOT_SETTINGS
from jaxmetric.cli.parsing import fields_of
from jaxmetric.cli.values import convert, spell, suggestion, unwrap

T = TypeVar("T")


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key that comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the key {key!r} comes twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_config(path: str | Path, options: type[T]) -> T:
    """Return the options that a YAML file gives; what it leaves out has its default.

    Raises:
      UsageError: the file cannot be read, or has an unknown or duplicate key or a value
        of the wrong kind; one line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        values = yaml.load(text, _StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise UsageError(f"{path}: cannot be read ({reason}).") from error
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        # Keys that cannot be hashed and dates that do not exist are no YAMLError.
        raise UsageError(f"{path}: is no YAML ({' '.join(str(error).split())}).") from (
            error
        )
    return from_mapping(values, options, str(path))


def from_mapping(values: Any, options: type[T], where: str) -> T:
    """Return a dataclass of options with the given values; see `read_config`."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: must hold `key: value` lines, got {values!r:.80}.")
    known = dict((field.name, hint) for field, hint in fields_of(options))
    known = {k: v for k, v in known.items() if k not in NOT_SETTINGS}
    for key in values:
        if key not in known:
            hint = suggestion(str(key), known) or f"Keys are {', '.join(known)}."
            raise UsageError(f"{where}: {key!r} is no key. {hint}")
    chosen = {}
    for key, value in values.items():
        kind, is_optional = unwrap(known[key])
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            chosen[key] = from_mapping(value, kind, f"{where}: {key}")
        elif value is None and is_optional:
            chosen[key] = None
        elif get_origin(kind) is dict and isinstance(value, Mapping):
            chosen[key] = dict(value)
        elif isinstance(value, Mapping) or value is None:
            raise UsageError(f"{where}: {key} must be a value, got {value!r:.80}.")
        else:
            try:
                chosen[key] = convert(known[key], spell(value))
            except ValueError as error:
                raise UsageError(f"{where}: {key} {error}") from error
    return options(**chosen)


def to_mapping(options: Any) -> dict[str, Any]:
    """Return sections of plain values, None and what is no setting left out."""
    return {
        key: {k: v for k, v in section.items() if v is not None}
        for key, section in json.loads(json.dumps(dataclasses.asdict(options))).items()
        if key not in NOT_SETTINGS
    }


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write plain sections as YAML."""
    text = yaml.safe_dump(
        dict(config), sort_keys=False, default_flow_style=None, allow_unicode=True
    )
    path.write_text(text, encoding="utf-8")


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return the sha256 of a configuration, whatever the order of its keys."""
    text = json.dumps(comparable(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return "section.key": value for all that makes a run what it is.

    Where the data lies is left out: a moved file is the same data, and what is in it is
    compared by itself. So is where the metrics go.
    """
    flat = {f"{s}.{k}": v for s, section in config.items() for k, v in section.items()}
    left_out = ("data.data", "data.eval_data", "text.word_vectors", "run.log")
    return {k: v for k, v in flat.items() if k not in left_out}


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return where two configurations differ: "loss.margin is 0.2, not 0.3"."""
    old, new = comparable(before), comparable(now)
    keys = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    texts = [
        f"{key} is {_word(old.get(key))}, not {_word(new.get(key))}" for key in keys
    ]
    more = [f"and {len(texts) - 5} more"] if len(texts) > 5 else []
    return "; ".join(texts[:5] + more)


def _word(value: Any) -> str:
    """Return a value as the command line spells it."""
    return " ".join(spell(value))
