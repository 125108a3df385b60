"""Heads with parameters that the loss learns, beside those of the encoder."""

import jax
from flax import nnx

from jaxmetric import _checks, distances


class ProxyHead(nnx.Module):
    """Learnable proxies: one row (or several) that stands for each class.

    The losses of proxies and classes take them as an array; in a training step they
    are the parameters of the loss: `loss_params={"proxies": head.proxies[...]}`.

    Args:
      num_classes: C, number of classes.
      dim: width of the embeddings.
      num_centers: K proxies a class, for the losses that choose among several
        (SoftTriple, sub-center ArcFace); None for one and no axis for it.
      rngs: its stream `params` draws the initial rows.

    Attributes:
      proxies: nnx.Param [num_classes, dim], or [num_classes, num_centers, dim];
        initially unit rows of random direction.

    Raises:
      ValueError: a number is below 1.

    Memory: O(C K dim).

    Example:
      >>> from flax import nnx
      >>> print(ProxyHead(10, 4, rngs=nnx.Rngs(0)).proxies.shape)
      (10, 4)
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        num_centers: int | None = None,
        rngs: nnx.Rngs,
    ):
        sizes = {"num_classes": num_classes, "num_centers": num_centers, "dim": dim}
        shape = {name: size for name, size in sizes.items() if size is not None}
        for name, size in shape.items():
            if size < 1:
                remedy = "Use at least 1."
                raise ValueError(
                    _checks.text("ProxyHead", name, "be >= 1", f"{size}", remedy)
                )
        rows = jax.random.normal(rngs.params(), tuple(shape.values()))
        self.proxies = nnx.Param(distances.l2_normalize(rows))

    def __call__(self) -> jax.Array:
        """Return the proxies as an array."""
        return self.proxies[...]
