"""An encoder of ids, such as users and items: a learned row each, and what is known."""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers

from jaxmetric import _checks, distances
from jaxmetric.models.frozen import InputStatistic


class IdEncoder(nnx.Module):
    """Embed ids: a learned row for each, and a perceptron of features if it has any.

    The two are added and brought to length 1. The features are a table that is kept
    with the model and never trained, so the input is the id alone; rows of which
    little is known are carried by them.

    Args:
      num_ids: ids are 0 to num_ids - 1; any other gives a row of NaN.
      num_features: columns of the table of features; None for ids alone.
      hidden: widths of the hidden layers of the perceptron.
      dim: width of the embeddings.
      rngs: its stream `params` draws the initial parameters.

    Attributes:
      rows: nnx.Param [num_ids, dim].
      features: [num_ids, num_features], zeros before `set_features`, if there are any.

    Raises:
      ValueError: a size is not a positive int.

    Memory: O(num_ids (dim + num_features)).

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> encoder = IdEncoder(5, num_features=2, dim=3, rngs=nnx.Rngs(0))
      >>> encoder.set_features(jnp.eye(5, 2))
      >>> embeddings = encoder(jnp.array([0, 4, 5]))
      >>> print(embeddings.shape, jnp.isnan(embeddings).any(1))
      (3, 3) [False False  True]
    """

    def __init__(
        self,
        num_ids: int,
        *,
        num_features: int | None = None,
        hidden: Sequence[int] = (64,),
        dim: int = 64,
        rngs: nnx.Rngs,
    ):
        _checks.positive_int("IdEncoder", "num_ids", num_ids)
        _checks.positive_int("IdEncoder", "dim", dim)
        # Rows of about length 1: none is farther from where it will be than others.
        init = initializers.normal(dim**-0.5)
        self.rows = nnx.Param(init(rngs.params(), (num_ids, dim), jnp.float32))
        self.num_features = num_features
        if num_features is not None:
            _checks.positive_int("IdEncoder", "num_features", num_features)
            for width in hidden:
                _checks.positive_int("IdEncoder", "hidden", width)
            self.features = InputStatistic(jnp.zeros((num_ids, num_features)))
            widths = (num_features, *hidden)
            self.hidden = nnx.List(
                nnx.Linear(m, n, kernel_init=initializers.he_normal(), rngs=rngs)
                for m, n in pairwise(widths)
            )
            self.head = nnx.Linear(widths[-1], dim, rngs=rngs)

    def set_features(self, features: jax.Array) -> None:
        """Take the [num_ids, num_features] floating features of all ids.

        Raises:
          ValueError: the encoder has none, or they are of another shape.
        """
        shape = None
        if self.num_features is not None:
            shape = (self.rows[...].shape[0], self.num_features)
        if shape is None or features.shape != shape:
            must = "be left out" if shape is None else f"have shape {shape}"
            got, remedy = f"shape {features.shape}", "Pass num_features= to IdEncoder."
            text = _checks.text("set_features", "features", must, got, remedy)
            raise ValueError(text)
        self.features[...] = features.astype(jnp.float32)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Return [batch, dim] unit rows of [batch] integer ids.

        Raises:
          ValueError, TypeError: the ids are of another rank, or not integers.
        """
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            must, got, remedy = "be integer", str(ids.dtype), "Count the ids from 0."
            raise TypeError(_checks.text("IdEncoder", "ids", must, got, remedy))
        if ids.ndim != 1:
            must, got, remedy = "have shape (batch,)", str(ids.shape), "Give one a row."
            raise ValueError(_checks.text("IdEncoder", "ids", must, got, remedy))
        is_known = (ids >= 0) & (ids < self.rows[...].shape[0])
        places = jnp.where(is_known, ids, 0)
        found = self.rows[...][places]
        if self.num_features is not None:
            x = self.features[...][places]
            for layer in self.hidden:
                x = jax.nn.relu(layer(x))
            found = found + self.head(x)
        return jnp.where(is_known[:, None], distances.l2_normalize(found), jnp.nan)
