"""Encoders for rows of features and for small images, ending in unit-norm rows."""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers

from jaxmetric import _checks, distances

# Images are halved until no side is longer than this. One convolution more, from 4 x 4
# to 2 x 2 pixels, can treble the step: its gradient is a slow case of XLA on CPU.
_SMALL_SIDE = 4
# An image of less variance than this (values 0 to 1: about two of 255 grey levels) is
# nearly blank, and its noise is not blown up to a drawing.
_BLANK_VARIANCE = 1e-4


class MLPEncoder(nnx.Module):
    """Embed rows of features with a multilayer perceptron.

    Dense layers with ReLU, one linear layer, unit rows. Features are taken as they
    come: bring those of very different scale to a common one first.

    Args:
      in_features: numbers in one example; examples of more axes are flattened.
      hidden: widths of the hidden layers; empty for a linear embedding.
      dim: width of the embeddings.
      dropout: share of the numbers before each linear layer but the first that are
        left out at random in training, in [0, 1).
      rngs: its stream `params` draws the initial parameters; with dropout, its stream
        `dropout` what is left out.

    Raises:
      ValueError: a size is not a positive int, or the share is out of range.

    Memory: O(batch x (in_features + sum of widths)) for the gradient.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> encoder = MLPEncoder(5, hidden=(8,), dim=3, rngs=nnx.Rngs(0))
      >>> embeddings = encoder(jnp.ones((2, 5)))
      >>> print(embeddings.shape, f"{jnp.linalg.norm(embeddings[0]):.3f}")
      (2, 3) 1.000
    """

    def __init__(
        self,
        in_features: int,
        *,
        hidden: Sequence[int] = (256, 256),
        dim: int = 64,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        _checks.positive_int("MLPEncoder", "in_features", in_features)
        if not 0 <= dropout < 1:
            must, got, remedy = "be in [0, 1)", f"{dropout:g}", "Use 0.5."
            text = _checks.text("MLPEncoder", "dropout", must, got, remedy)
            raise ValueError(text)
        _checks.positive_int("MLPEncoder", "dim", dim)
        must = "hold positive ints"
        _check_sizes("MLPEncoder", "hidden", hidden, must, fits=True)
        widths = (in_features, *hidden)
        self.hidden = nnx.List(
            nnx.Linear(m, n, kernel_init=initializers.he_normal(), rngs=rngs)
            for m, n in pairwise(widths)
        )
        self.head = nnx.Linear(widths[-1], dim, rngs=rngs)
        # Without any there is no random stream, which would change what is stored.
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [batch, dim] unit rows of [batch, ...] floating inputs.

        Raises:
          TypeError: `x` is not floating point.
        """
        x = _floating("MLPEncoder", x, self.head.kernel.dtype)
        x = x.reshape(x.shape[0], -1)
        for layer in self.hidden:
            x = jax.nn.relu(layer(x))
            if self.dropout is not None:
                x = self.dropout(x)
        return distances.l2_normalize(self.head(x))


class ConvEncoder(nnx.Module):
    """Embed small images with strided convolutions.

    Each image is brought to mean 0 and variance 1, so that brightness and contrast do
    not matter. Convolutions of 3 x 3 pixels and stride 2 with ReLU halve it until it
    is at most 4 pixels a side, and one linear layer sees all that is left, place by
    place. Nothing is pooled, since the gradient of max-pooling is slow on a CPU, and
    nothing normalised over the batch: training and evaluation compute the same.

    Args:
      input_shape: (height, width, channels) of one image, of any size.
      widths: channels of the convolutions, first to last. There are as many as the
        size of the image asks for: the last width serves for all beyond the list.
      dim: width of the embeddings.
      rngs: its stream `params` draws the initial parameters.

    Raises:
      ValueError: a size is not a positive int, or `widths` is empty.

    Memory: O(batch x height x width x (channels + widths[0])) for the gradient.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> encoder = ConvEncoder((8, 8, 1), widths=(4, 8), dim=3, rngs=nnx.Rngs(0))
      >>> embeddings = encoder(jnp.eye(8).reshape(1, 8, 8, 1))
      >>> print(embeddings.shape, f"{jnp.linalg.norm(embeddings[0]):.3f}")
      (1, 3) 1.000
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        widths: Sequence[int] = (32, 64, 128),
        dim: int = 64,
        rngs: nnx.Rngs,
    ):
        must, is_image = "be (height, width, channels)", len(input_shape) == 3
        _check_sizes("ConvEncoder", "input_shape", input_shape, must, fits=is_image)
        must, has_some = "hold one positive int or more", len(widths) > 0
        _check_sizes("ConvEncoder", "widths", widths, must, fits=has_some)
        _checks.positive_int("ConvEncoder", "dim", dim)
        height, width, channels = self.input_shape = tuple(input_shape)
        self.convs = nnx.List()
        while max(height, width) > _SMALL_SIDE:
            out = widths[min(len(self.convs), len(widths) - 1)]
            init = initializers.he_normal()
            conv = nnx.Conv(channels, out, (3, 3), 2, kernel_init=init, rngs=rngs)
            self.convs.append(conv)
            height, width, channels = -(-height // 2), -(-width // 2), out
        self.head = nnx.Linear(height * width * channels, dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [batch, dim] unit rows of [batch, *input_shape] floating images.

        Raises:
          ValueError: the images are of another shape.
          TypeError: `x` is not floating point.
        """
        if x.shape[1:] != self.input_shape:
            must = f"have shape (batch, {', '.join(map(str, self.input_shape))})"
            remedy = "Resize the images, or make an encoder for theirs."
            raise ValueError(
                _checks.text("ConvEncoder", "x", must, str(x.shape), remedy)
            )
        x = _standardize(_floating("ConvEncoder", x, self.head.kernel.dtype))
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return distances.l2_normalize(self.head(x.reshape(x.shape[0], -1)))


def _standardize(images: jax.Array) -> jax.Array:
    """Return images of mean 0 and variance 1; a blank one becomes zeros."""
    axes = (1, 2, 3)
    images = images - images.mean(axes, keepdims=True)
    variance = jnp.mean(images * images, axes, keepdims=True)
    return images * jax.lax.rsqrt(variance + _BLANK_VARIANCE)


def _floating(function: str, x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Return floating inputs in the dtype of the parameters; refuse others."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        remedy = "Use jaxmetric.data.to_float(x)."
        must = "be floating point"
        raise TypeError(_checks.text(function, "x", must, str(x.dtype), remedy))
    return x.astype(dtype)


def _check_sizes(
    function: str, argument: str, sizes: Sequence[int], must: str, *, fits: bool
) -> None:
    """Require positive ints, in the right number, to be shapes of the parameters."""
    if not (fits and all(type(size) is int and size > 0 for size in sizes)):
        remedy = "Use positive Python ints."
        raise ValueError(_checks.text(function, argument, must, repr(sizes), remedy))
