"""Where the metrics of a run may go besides its log: what such a place must offer."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["MetricsWriter", "scalars"]


class MetricsWriter(Protocol):
    """A place for the numbers and pictures of a run.

    `TensorBoardWriter` and `WandbWriter` are two; anything with these methods is one.
    """

    def write(self, record: Mapping[str, Any]) -> None:
        """Take a record: "step", "kind" ("train", "eval", ...), and its numbers."""
        ...

    def write_image(self, name: str, png: bytes, *, step: int) -> None:
        """Take a picture as the content of a PNG file."""
        ...

    def close(self) -> None:
        """Bring everything to its place, and end."""
        ...


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record as "kind/name"; those not finite are left out.

    Args:
      record: as `MetricsWriter.write` takes it; without a kind it is "train".

    Returns:
      Texts, lists and None are left out; a bool is 0 or 1.

    Memory: O(numbers).

    Example:
      >>> scalars({"step": 3, "kind": "eval", "recall_at_1": 0.5, "note": "good"})
      {'eval/recall_at_1': 0.5}
    """
    kind = record.get("kind", "train")
    named = {k: v for k, v in record.items() if k not in ("step", "kind")}
    numbers = {k: float(v) for k, v in named.items() if isinstance(v, int | float)}
    return {f"{kind}/{k}": v for k, v in numbers.items() if math.isfinite(v)}
