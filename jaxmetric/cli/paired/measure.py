"""How well pairs find each other, in both directions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmetric import retrieval
from jaxmetric.cli import measure
from jaxmetric.cli.devices import ONE, Devices
from jaxmetric.cli.measure import Metrics
from jaxmetric.data.paired import Side
from jaxmetric.training import EmbedFn

KS = (1, 5, 10)
DIRECTIONS = ("query_to_key", "key_to_query")
ARROWS = dict(zip(DIRECTIONS, ("query → key", "key → query"), strict=True))

# embed(side, inputs [n, ...]) -> [n, dim] float32.
EmbedSide = Callable[[Side, np.ndarray], np.ndarray]


def embedder(
    embed_fn: EmbedFn, devices: Devices = ONE
) -> Callable[[Any, Any], EmbedSide]:
    """Return a function (params, model_state) -> `EmbedSide`.

    It compiles once a side, and holds 512 examples on each device at a time.
    """
    by_side = {
        side: measure.embedder(_of_side(embed_fn, side), devices)
        for side in ("query", "key")
    }

    def with_params(params: Any, model_state: Any) -> EmbedSide:
        return lambda side, inputs: by_side[side](params, model_state, inputs)

    return with_params


def evaluate_pairs(
    queries: np.ndarray, keys: np.ndarray, labels: np.ndarray | None = None
) -> Metrics:
    """Return how well rows of one index find each other, and rows of one category.

    Args:
      queries, keys: [n, dim], row i of the ones belonging to row i of the others.
      labels: [n] categories, or None.

    Returns:
      For both directions, as in `query_to_key_recall_at_1`: `recall_at_{k}` and
      `mean_reciprocal_rank` of the row that belongs to each, and with labels
      `mean_average_precision` of the rows of its category.
    """
    rows = np.arange(len(queries), dtype=np.int32)
    found: Metrics = {}
    sides = ((queries, keys), (keys, queries))
    for direction, (x, y) in zip(DIRECTIONS, sides, strict=True):
        pairs = retrieval.evaluate(x, rows, y, rows, ks=KS)
        told = {f"recall_at_{k}": pairs[f"recall_at_{k}"] for k in KS}
        told["mean_reciprocal_rank"] = pairs["mean_reciprocal_rank"]
        if labels is not None:
            of_class = retrieval.evaluate(x, labels, y, labels, ks=(1,))
            told["mean_average_precision"] = of_class["mean_average_precision"]
        for name, value in told.items():
            found[f"{direction}_{name}"] = np.asarray(value).item()
    return {**found, "num_pairs": len(rows)}


def _of_side(embed_fn: EmbedFn, side: Side) -> Any:
    """Return the encoder of one side."""
    place = ("query", "key").index(side)

    def embed_side(
        params: Any, model_state: Any, inputs: Any, *, key: Any, train: bool
    ) -> tuple[Any, Any]:
        both = (inputs, None) if place == 0 else (None, inputs)
        found, model_state = embed_fn(params, model_state, both, key=key, train=train)
        return found[place], model_state

    return embed_side
