"""Encoders for rows of features and for small images, ending in unit-norm rows."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers

from jaxmetric import _checks, distances

# Variance below which an image counts as blank, as a share of the range 0..1: two grey
# levels of 255, where compression noise would otherwise be blown up to a drawing.
_BLANK_VARIANCE = 1e-4
# Convolutions halve an image until no side is longer than this; then it is flattened.
_SMALL_SIDE = 4


class MLPEncoder(nnx.Module):
    """Embed rows of features with a multilayer perceptron.

    Dense layers with ReLU, a linear layer, unit rows. The inputs are taken as they
    come: bring features of very different scale to a common one first.

    Args:
      in_features: numbers in one example; examples of more axes are flattened.
      hidden: widths of the hidden layers; may be empty, for a linear embedding.
      dim: width of the embeddings.
      rngs: its stream `params` draws the initial parameters.

    Raises:
      ValueError: a size is not a positive int.

    Memory: O(batch x widest layer) for the gradient.

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
        rngs: nnx.Rngs,
    ):
        _checks.positive_int("MLPEncoder", "in_features", in_features)
        _check_sizes("MLPEncoder", "hidden", hidden, must="hold widths")
        _checks.positive_int("MLPEncoder", "dim", dim)
        sizes = (in_features, *hidden)
        self.hidden = nnx.List(
            nnx.Linear(n, m, kernel_init=initializers.he_normal(), rngs=rngs)
            for n, m in zip(sizes, sizes[1:], strict=False)
        )
        self.head = nnx.Linear(sizes[-1], dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [batch, dim] unit rows of [batch, ...] floating inputs."""
        x = x.reshape(x.shape[0], -1)
        for layer in self.hidden:
            x = jax.nn.relu(layer(x))
        return distances.l2_normalize(self.head(x))


class ConvEncoder(nnx.Module):
    """Embed small images with strided convolutions.

    Each image is brought to mean 0 and variance 1, so that ink and paper may be
    exchanged and the contrast may vary; 3 x 3 convolutions of stride 2 with ReLU halve
    it until it is at most 4 pixels wide; one linear layer sees what is left with its
    places. Nothing is pooled, since on a CPU the gradient of a pooling costs more than
    that of the convolution before it, and nothing is normalised over the batch, so
    training and evaluation compute the same.

    Args:
      input_shape: (height, width, channels) of one image; any size, any number of
        channels.
      widths: channels of the convolutions, first to last. As many are made as the
        image can be halved; the last width serves for any beyond the list.
      dim: width of the embeddings.
      rngs: its stream `params` draws the initial parameters.

    Raises:
      ValueError: a size is not a positive int, or `widths` is empty.

    Memory: O(batch x height x width x widths[0] / 4) for the gradient.

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
        is_image = len(input_shape) == 3
        must = "be (height, width, channels)"
        _check_sizes(
            "ConvEncoder", "input_shape", input_shape, must=must, fits=is_image
        )
        must, has_some = "hold one width or more", len(widths) > 0
        _check_sizes("ConvEncoder", "widths", widths, must=must, fits=has_some)
        _checks.positive_int("ConvEncoder", "dim", dim)
        height, width, channels = input_shape
        self.convs = nnx.List()
        while max(height, width) > _SMALL_SIDE:
            out = widths[min(len(self.convs), len(widths) - 1)]
            he_normal = initializers.he_normal()
            self.convs.append(
                nnx.Conv(channels, out, (3, 3), 2, kernel_init=he_normal, rngs=rngs)
            )
            height, width, channels = -(-height // 2), -(-width // 2), out
        self.head = nnx.Linear(height * width * channels, dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [batch, dim] unit rows of [batch, *input_shape] floating images."""
        x = _standardize(x)
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return distances.l2_normalize(self.head(x.reshape(x.shape[0], -1)))


def _standardize(images: jax.Array) -> jax.Array:
    """Return images of mean 0 and variance 1; a blank one becomes zeros."""
    axes = (1, 2, 3)
    images = images - images.mean(axes, keepdims=True)
    variance = jnp.mean(images * images, axes, keepdims=True)
    return images * jax.lax.rsqrt(variance + _BLANK_VARIANCE)


def _check_sizes(
    function: str, argument: str, sizes: Sequence[int], *, must: str, fits: bool = True
) -> None:
    """Require positive ints, which become shapes of the parameters."""
    if not (fits and all(type(size) is int and size > 0 for size in sizes)):
        remedy = "Sizes are positive Python ints."
        raise ValueError(_checks.text(function, argument, must, repr(sizes), remedy))
