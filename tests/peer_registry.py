"""A loss of ours and the loss of another library that is the same number.

A peer enters as two calls. Ours gets the arrays of a batch by keyword and needs nothing
but JAX, so that stored reference values are compared without the other library; theirs
is a function that builds the other loss when it is called, and imports it only then
(`peers_torch.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import parity_batches

import jaxmetric as jm

Arrays = Mapping[str, Any]

# What has a gradient.
DIFFERENTIABLE = ("embeddings", "ref_embeddings", "proxies")


class Peer(NamedTuple):
    """One comparison.

    Attributes:
      name: the loss of ours, and which variant of it in brackets.
      ours: (embeddings, labels, **the other arrays of a batch) -> value.
      theirs: builds the other loss out of `peers_torch.Library`: a module called as
        (embeddings, labels, ref_emb=, ref_labels=), or a pair of a module and a
        function that is called in its place.
      peer: the name of the other loss, for tables.
      sides: "self", "references" or both.
      batches: a kind of `parity_batches`.
      is_unit: both normalise the rows before anything else.
      parameter: the attribute of their module that holds the proxies.
      is_transposed: whether it has a column for what is a row of ours.
      proxies: the shape of ours.
      is_tangent: their gradient over the proxies is that over unit rows, of which
        ours is the part that leaves the length alone.
      difference: why the numbers are not the same to rounding, if they are not.
      bound: how far they may be apart then, in every dtype.
    """

    name: str
    ours: Callable[..., jax.Array]
    theirs: Callable[[Any], Any]
    peer: str
    sides: tuple[str, ...] = ("self", "references")
    batches: str = "any"
    is_unit: bool = False
    parameter: str | None = None
    is_transposed: bool = True
    proxies: tuple[int, ...] | None = None
    is_tangent: bool = False
    difference: str = ""
    bound: float = 0.0

    @property
    def loss(self) -> str:
        """The public name of our loss."""
        return self.name.partition(" ")[0]

    def make_batches(self, side: str, count: int, seed: int = 0) -> dict:
        """Return `count` stacked batches for one side."""
        return parity_batches.make(
            self.batches,
            has_references=side == "references",
            proxies=self.proxies,
            count=count,
            seed=seed,
        )


PEERS: dict[str, Peer] = {}


def peer(*args: Any, **facts: Any) -> None:
    """Register a comparison under its name."""
    entry = Peer(*args, **facts)
    assert entry.name not in PEERS, entry.name
    PEERS[entry.name] = entry


def our_answer(entry: Peer) -> Callable[[Arrays], dict[str, jax.Array]]:
    """Return the function batch -> value and gradients, by keyword name."""

    def value_of(moving: Arrays, still: Arrays) -> jax.Array:
        arrays = {**moving, **still}
        if entry.is_unit:
            for key in ("embeddings", "ref_embeddings"):
                if key in arrays:
                    arrays[key] = jm.l2_normalize(arrays[key])
        return entry.ours(arrays.pop("embeddings"), arrays.pop("labels"), **arrays)

    def answer(batch: Arrays) -> dict[str, jax.Array]:
        moving = {key: batch[key] for key in DIFFERENTIABLE if key in batch}
        still = {key: batch[key] for key in batch if key not in moving}
        value, gradient = jax.value_and_grad(value_of)(moving, still)
        return {"value": value, **gradient}

    return answer


def our_answers(
    entry: Peer, batches: Arrays, dtype: str, **options: Any
) -> dict[str, np.ndarray]:
    """Return value and gradients of all batches, from one program in `dtype`."""
    with jax.enable_x64(dtype == "float64"):
        cast = {
            key: jnp.asarray(array, dtype if key in DIFFERENTIABLE else None)
            for key, array in batches.items()
        }
        answers = jax.jit(jax.vmap(our_answer(entry)), **options)(cast)
        return {key: np.asarray(answer) for key, answer in answers.items()}


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference in any batch, relative to its largest entry.

    Of entries below 1 it is the absolute difference. What is not finite differs by inf.
    """
    axes = tuple(range(1, np.ndim(expected)))
    expected = np.asarray(expected, np.float64)
    size = np.max(np.abs(expected), axis=axes, initial=1.0, keepdims=True)
    apart = np.abs(np.asarray(found, np.float64) - expected) / size
    return float(np.max(np.where(np.isnan(apart), np.inf, apart), initial=0.0))
