"""What is not trained: rows taken as they are, and statistics of the inputs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmetric import _checks, distances


class IdentityEncoder(nnx.Module):
    """Take rows as they are for embeddings: the side of a pair that is not trained.

    They are only brought to length 1, so that the other tower learns into a space that
    is given, such as that of another model's text embeddings.

    Args:
      in_features: numbers in one row, and in one embedding.
      rngs: unused, as there are no parameters.

    Raises:
      ValueError: the size is not a positive int.

    Memory: none.

    Example:
      >>> import jax.numpy as jnp
      >>> print(IdentityEncoder(2)(jnp.array([[3.0, 4.0]])))
      [[0.6 0.8]]
    """

    def __init__(self, in_features: int, *, rngs: nnx.Rngs | None = None):
        del rngs
        _checks.positive_int("IdentityEncoder", "in_features", in_features)
        self.in_features = in_features

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [batch, in_features] unit rows of [batch, in_features] floating rows.

        Raises:
          ValueError, TypeError: the rows are of another width, or not floating point.
        """
        if x.shape[1:] != (self.in_features,):
            must, remedy = f"have shape (batch, {self.in_features})", "Give such rows."
            text = _checks.text("IdentityEncoder", "x", must, str(x.shape), remedy)
            raise ValueError(text)
        return distances.l2_normalize(x)


class InputStatistic(nnx.Variable):
    """A number of the training rows that is kept with the model and never trained."""


class Standardized(nnx.Module):
    """Bring each column of the inputs to mean 0 and variance 1 before an encoder.

    The statistics are those of the training rows, which `fit` takes; they are part of
    the model's state, and stay as they are in training and afterwards.

    Args:
      encoder: module from [batch, in_features] rows to embeddings.
      in_features: numbers in one row.

    Attributes:
      mean, scale: [in_features]; 0 and 1 before `fit`.

    Memory: two rows besides the encoder's.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> encoder = Standardized(lambda x: x, 1)
      >>> encoder.fit(jnp.array([[10.0], [30.0]]))
      >>> print(encoder(jnp.array([[10.0], [20.0]])).ravel())
      [-1.  0.]
    """

    def __init__(
        self, encoder: nnx.Module | Callable[[jax.Array], jax.Array], in_features: int
    ):
        self.encoder = encoder
        self.mean = InputStatistic(jnp.zeros(in_features))
        self.scale = InputStatistic(jnp.ones(in_features))

    def fit(self, rows: jax.Array) -> None:
        """Take the statistics of [n, in_features] rows."""
        statistics = column_statistics(rows)
        self.mean[...], self.scale[...] = statistics["mean"], statistics["scale"]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the embeddings of [batch, in_features] floating rows."""
        if not jnp.issubdtype(x.dtype, jnp.floating):
            remedy = "Use jaxmetric.data.to_float(x)."
            must, got = "be floating point", str(x.dtype)
            raise TypeError(_checks.text("Standardized", "x", must, got, remedy))
        x = x.astype(self.mean.dtype)
        return self.encoder((x - self.mean[...][None]) * self.scale[...][None])


def column_statistics(rows: jax.Array) -> dict[str, jax.Array]:
    """Return the mean of each column of [n, d] rows, and what to multiply it with.

    A column that is always the same becomes 0.
    """
    rows = jnp.asarray(rows, jnp.float32)
    mean = rows.mean(0)
    deviation = jnp.sqrt(jnp.mean((rows - mean[None]) ** 2, 0))
    # Relative: a constant column has a deviation of rounding errors.
    is_constant = deviation <= 1e-6 * jnp.abs(mean)
    scale = jnp.where(is_constant, 0.0, 1 / jnp.where(is_constant, 1.0, deviation))
    return {"mean": mean, "scale": scale}
