"""The log of a run: one JSON object a line, written through at once."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

Record = dict[str, Any]


def encode(record: Mapping[str, Any]) -> str:
    """Return a record as one line of JSON.

    A number that is not finite becomes null, and its name stands in the list
    "not_finite": JSON has no NaN.
    """
    bad = [
        k for k, v in record.items() if isinstance(v, float) and not math.isfinite(v)
    ]
    plain = {k: None if k in bad else v for k, v in record.items()}
    return json.dumps(plain | ({"not_finite": bad} if bad else {}), allow_nan=False)


def read_records(path: Path) -> list[Record]:
    """Return the records of a log, without lines that were cut short."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.unfinished")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class Taker(Protocol):
    """Whoever is told of every record; it must not raise."""

    def write(self, record: Record) -> None: ...  # noqa: D102


class Log:
    """metrics.jsonl of a run, open for more records.

    Args:
      path: the file; None keeps the records in memory alone.
      step: records after this step are dropped: the steps will be taken again.

    Attributes:
      records: all that the file holds.
      hooks: who gets each further record too, once it is in the file.
    """

    def __init__(self, path: Path | None, *, step: int):
        self.records: list[Record] = []
        self.hooks: Sequence[Taker] = ()
        self._file = None
        if path is not None:
            self.records = [r for r in read_records(path) if r["step"] <= step]
            write_atomically(path, _lines(self.records))
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (see below)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, record: Record) -> None:
        """Add a record, and push it out of the process."""
        line = encode(record)
        if self._file is not None:
            self._file.write(line + "\n")
            self._file.flush()
        self.records.append(json.loads(line))
        for hook in self.hooks:
            hook.write(self.records[-1])

    def find(self, kind: str, step: int) -> Record | None:
        """Return the values of a record of a kind and step, None if there is none."""
        for record in reversed(self.records):
            if record["step"] == step and record.get("kind") == kind:
                return {k: v for k, v in record.items() if k not in ("step", "kind")}
        return None


def _lines(records: Iterable[Record]) -> str:
    """Return records as the text of a log."""
    return "".join(json.dumps(record) + "\n" for record in records)
