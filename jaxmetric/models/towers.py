"""Several inputs, one embedding space: shared weights, or a tower for each side."""

from typing import overload

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmetric import _checks


class SharedTowers(nnx.Module):
    """Embed two inputs with one encoder (Siamese network).

    The two are embedded as one batch, so batch normalisation sees both.

    Args:
      encoder: module from [batch, ...] inputs to [batch, dim] embeddings.

    Memory: the encoder's, for a batch of both.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> towers = SharedTowers(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
      >>> left, right = towers(jnp.ones((4, 3)), jnp.zeros((4, 3)))
      >>> print(left.shape, right.shape)
      (4, 2) (4, 2)
    """

    def __init__(self, encoder: nnx.Module):
        self.encoder = encoder

    @overload
    def __call__(self, x1: jax.Array, x2: jax.Array) -> tuple[jax.Array, jax.Array]: ...

    @overload
    def __call__(
        self, x1: jax.Array | None, x2: jax.Array | None
    ) -> tuple[jax.Array | None, jax.Array | None]: ...

    def __call__(
        self, x1: jax.Array | None, x2: jax.Array | None
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Return the [batch, dim] embeddings of both inputs.

        The batches may differ in length, not in the shape of an example. None in place
        of an input gives None.

        Raises:
          ValueError: the shapes of the examples differ.
        """
        if x1 is None or x2 is None:
            return tuple(  # pyright: ignore[reportReturnType]
                None if x is None else _call("SharedTowers", "encoder", self.encoder, x)
                for x in (x1, x2)
            )
        first, second = _embed_together("SharedTowers", self.encoder, (x1, x2))
        return first, second


class TripletTowers(nnx.Module):
    """Embed anchors, positives and negatives with one encoder.

    The three are embedded as one batch, so batch normalisation sees all of them.

    Args:
      encoder: module from [batch, ...] inputs to [batch, dim] embeddings.

    Memory: the encoder's, for a batch of all three.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> towers = TripletTowers(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
      >>> a, p, n = towers(*jnp.ones((3, 4, 3)))
      >>> print(a.shape, n.shape)
      (4, 2) (4, 2)
    """

    def __init__(self, encoder: nnx.Module):
        self.encoder = encoder

    def __call__(
        self, anchor: jax.Array, positive: jax.Array, negative: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the [batch, dim] embeddings of the three inputs.

        Raises:
          ValueError: the shapes of the examples differ.
        """
        inputs = (anchor, positive, negative)
        a, p, n = _embed_together("TripletTowers", self.encoder, inputs)
        return a, p, n


class TwoTowers(nnx.Module):
    """Embed two kinds of input into one space, each with its own encoder.

    Nothing is shared: images on one side and text, or queries and documents, on the
    other.

    Args:
      left: module from [batch, ...] inputs to [batch, dim] embeddings.
      right: the same for the other side, to the same width.

    Memory: that of both encoders.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> image, text = (nnx.Linear(n, 2, rngs=nnx.Rngs(0)) for n in (5, 3))
      >>> x, y = TwoTowers(image, text)(jnp.ones((4, 5)), jnp.ones((4, 3)))
      >>> print(x.shape, y.shape)
      (4, 2) (4, 2)
    """

    def __init__(self, left: nnx.Module, right: nnx.Module):
        self.left = left
        self.right = right

    @overload
    def __call__(self, x1: jax.Array, x2: jax.Array) -> tuple[jax.Array, jax.Array]: ...

    @overload
    def __call__(
        self, x1: jax.Array | None, x2: jax.Array | None
    ) -> tuple[jax.Array | None, jax.Array | None]: ...

    def __call__(
        self, x1: jax.Array | None, x2: jax.Array | None
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Return the [batch, dim] embeddings of both inputs; None gives None.

        Raises:
          ValueError: the towers differ in width.
        """
        first = None if x1 is None else _call("TwoTowers", "left", self.left, x1)
        second = None if x2 is None else _call("TwoTowers", "right", self.right, x2)
        if first is None or second is None:
            return first, second
        if first.shape[-1] != second.shape[-1]:
            must = f"embed to {first.shape[-1]} columns like `left`"
            got, remedy = f"{second.shape[-1]}", "Build both with one `dim`."
            raise ValueError(_checks.text("TwoTowers", "right", must, got, remedy))
        return first, second


def _embed_together(
    function: str, encoder: nnx.Module, inputs: tuple[jax.Array, ...]
) -> list[jax.Array]:
    """Return the embeddings of several batches, from one call of the encoder."""
    arrays = [jnp.asarray(x) for x in inputs]
    shape, dtype = arrays[0].shape[1:], arrays[0].dtype
    for x in arrays[1:]:
        if x.shape[1:] != shape or x.dtype != dtype:
            must = f"have examples of shape {shape} and dtype {dtype} in every entry"
            got = f"shape {x.shape[1:]} and dtype {x.dtype}"
            remedy = "Use TwoTowers for inputs of two kinds."
            raise ValueError(_checks.text(function, "inputs", must, got, remedy))
    ends = [len(x) for x in arrays]
    splits = [sum(ends[: i + 1]) for i in range(len(ends) - 1)]
    rows = _call(function, "encoder", encoder, jnp.concatenate(arrays))
    return jnp.split(rows, splits)


def _call(function: str, argument: str, encoder: nnx.Module, x: jax.Array) -> jax.Array:
    """Return encoder(x); modules as such do not promise to be callable."""
    if not callable(encoder):
        got, remedy = type(encoder).__name__, "Give it a method __call__(self, x)."
        raise TypeError(_checks.text(function, argument, "be callable", got, remedy))
    return encoder(x)
