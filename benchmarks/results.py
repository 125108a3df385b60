"""Result files: JSON lines, an environment first and then what was measured in it.

A file is added to by every run. Of two results for the same thing the later counts.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

# What tells two results apart.
KEY = (
    "topic",
    "function",
    "workload",
    "block_size",
    "batch",
    "dim",
    "num_margins",
    "dtype",
    "precision",
)


@dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
      topic: the part of the benchmarks.
      function: a loss of the library, a peer, or a floor.
      batch, dim: of the embeddings. workload: see `benchmarks.specs`.
      m_per_class: rows in the largest class.
      block_size: None for the library's choice.
      num_margins: None for one margin that is not mapped.
      dtype, precision: of the embeddings and of the matrix products.
      forward, gradient: of the value, and of value and gradient: a dict with median,
        min, max and cpu (of all threads) in seconds, and the number of samples.
      forward_ratio, gradient_ratio: the same over the yardstick, round by round.
      compile_seconds: of value and gradient, or of the value where there is no other.
      temp_bytes: of the same, by XLA's analysis.
      gflop: what the mathematics of the same asks for.
      error_value, error_gradient: against float64, relative to value and largest entry.
      rows_other: anchors that took another way at a near tie.
      reference: where the float64 numbers come from.
      status: "ok", or why there is no number.
      extra: what is particular to a topic.
    """

    topic: str
    function: str
    batch: int
    dim: int
    workload: str = ""
    m_per_class: int | None = None
    block_size: int | None = None
    num_margins: int | None = None
    dtype: str = "float32"
    precision: str = "highest"
    forward: dict[str, float] | None = None
    gradient: dict[str, float] | None = None
    forward_ratio: dict[str, float] | None = None
    gradient_ratio: dict[str, float] | None = None
    compile_seconds: float | None = None
    temp_bytes: int | None = None
    gflop: float | None = None
    error_value: float | None = None
    error_gradient: float | None = None
    rows_other: int | None = None
    reference: str | None = None
    status: str = "ok"
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple:
        """What tells it from other results."""
        return tuple(getattr(self, name) for name in KEY)

    def to_json(self) -> str:
        """Return a line without the fields that are empty."""
        record = {"kind": "result"} | asdict(self)
        record = {k: v for k, v in record.items() if v is not None and v != {}}
        return json.dumps(record)


@dataclass
class ResultFile:
    """What a file holds.

    Attributes:
      results: by key, the latest of each.
      environments: of the same keys.
    """

    results: dict[tuple, Result] = field(default_factory=dict)
    environments: dict[tuple, dict[str, Any]] = field(default_factory=dict)

    def of(self, topic: str, **values: Any) -> list[Result]:
        """Return the results of a topic with these values of their fields."""
        wanted = {"topic": topic} | values
        return [
            result
            for result in self.results.values()
            if all(getattr(result, k) == v for k, v in wanted.items())
        ]


def environment_line(environment: dict[str, Any]) -> str:
    """Return the line that says where the results after it were measured."""
    return json.dumps(environment)


def append(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a file, and its folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def read(*paths: Path) -> ResultFile:
    """Return what files hold, the later ones over the earlier."""
    found, known = ResultFile(), {f.name for f in fields(Result)}
    for path in paths:
        environment: dict[str, Any] = {}
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if record.pop("kind") == "environment":
                environment = record
                continue
            result = Result(**{k: v for k, v in record.items() if k in known})
            # Put last, so that the order is that of the measurements.
            found.results.pop(result.key, None)
            found.results[result.key] = result
            found.environments[result.key] = environment
    return found
