"""Print how far our losses are from those of pytorch-metric-learning.

    python tests/parity_table.py [NAME ...]

For every loss that both have: the largest difference of values and of gradients over
all batches (both sides where both can), in float64 and in float32, relative to the
largest entry of the batch where that is above 1. A NAME is the beginning of a loss's
name. It needs PyTorch and pytorch-metric-learning, the extra `parity`.
"""

import sys
from typing import Any

import numpy as np
import parity_batches
from peer_registry import Peer, difference, our_answers
from peers import PEERS

DTYPES = ("float64", "float32")


def differences(entry: Peer, side: str, dtype: str, **options: Any) -> dict[str, float]:
    """Return the largest difference of "value" and of each gradient.

    `options` are those of `jax.jit`.
    """
    from peers_torch import their_answers

    batches = entry.make_batches(side, parity_batches.NUM_BATCHES)
    ours = our_answers(entry, batches, dtype, **options)
    theirs = their_answers(entry, batches, dtype)
    assert ours.keys() == theirs.keys()
    return {key: difference(ours[key], theirs[key]) for key in ours}


def row(entry: Peer) -> list[str]:
    """Return the cells of one comparison."""
    cells = [f"`{entry.loss}`{entry.name[len(entry.loss) :]}", entry.peer]
    cells.append(" and ".join(entry.sides))
    for dtype in DTYPES:
        found = [differences(entry, side, dtype) for side in entry.sides]
        value = max(one["value"] for one in found)
        gradient = np.max([v for one in found for k, v in one.items() if k != "value"])
        cells += [f"{value:.0e}", f"{gradient:.0e}"]
    return [*cells, entry.difference]


def main(names: list[str]) -> None:
    """Print the table, a line as soon as it is known."""
    head = ["loss", "peer", "sides", "float64: value", "gradient"]
    head += ["float32: value", "gradient", "remark"]
    _write(head)
    _write(["---"] * len(head))
    for entry in PEERS.values():
        if not names or entry.name.startswith(tuple(names)):
            _write(row(entry))


def _write(cells: list[str]) -> None:
    sys.stdout.write("| " + " | ".join(cells) + " |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
