"""Values and gradients of other libraries, as stored by `make_reference_values.py`.

One file holds, under slashed names, the batches (`batch/...`), for every comparison and
side one vector of float64, the value and the gradients after each other (`peer/...`),
and the versions of the libraries that made them (`versions`).
"""

import pathlib

import numpy as np
from peer_registry import DIFFERENTIABLE, Peer

FILE = pathlib.Path(__file__).with_name("reference_values.npz")

# Batches other than those that are drawn when PyTorch is there.
SEED = 1


def batch_name(entry: Peer, side: str) -> str:
    """Return the name of the batch of a comparison, which several share."""
    proxies = "x".join(map(str, entry.proxies or ()))
    return "/".join(["batch", entry.batches, side, proxies or "none"])


def answer_name(entry: Peer, side: str) -> str:
    """Return the name of what the other library makes of that batch."""
    return f"peer/{entry.name}/{side}"


def make_batch(entry: Peer, side: str) -> dict[str, np.ndarray]:
    """Draw the batch of a comparison, a stack of one."""
    return entry.make_batches(side, 1, SEED)


def read_batch(stored: dict[str, np.ndarray], entry: Peer, side: str) -> dict:
    """Return the stored batch of a comparison, a stack of one."""
    start = batch_name(entry, side) + "/"
    return {k[len(start) :]: v for k, v in stored.items() if k.startswith(start)}


def flat(answer: dict[str, np.ndarray]) -> np.ndarray:
    """Return value and gradients of a stack of one as one vector."""
    keys = ["value", *(key for key in DIFFERENTIABLE if key in answer)]
    return np.concatenate([np.ravel(answer[key]) for key in keys]).astype(np.float64)


def read() -> dict[str, np.ndarray]:
    """Return all that is stored."""
    with np.load(FILE, allow_pickle=False) as stored:
        return dict(stored)
