"""What is compiled: a loss, a peer in JAX or a floor, described by plain values.

The description can be sent to another process (`benchmarks.memory`), which then
compiles the same program.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp

import jaxmetric as jm
from benchmarks import specs
from jaxmetric.retrieval import evaluate

JAX_PEERS = {
    "naive_batch_all": "batch_all_triplet_loss",
    "optax_ntxent": "nt_xent_loss",
}


@dataclass(frozen=True)
class Program:
    """A function of (embeddings, labels) or (embeddings, labels, margins).

    Attributes:
      function: a loss of the catalogue, a name of `JAX_PEERS`, "matmul" for the bare
        x @ x.T, or "evaluate" for retrieval of (query, labels, reference, labels).
      batch, dim: of the embeddings; of queries and of references for "evaluate".
      mode: "value" or "gradient" (value and gradient).
      block_size: rows computed together, None for the default.
      num_margins: None for the loss at one margin, else the losses at so many.
      precision: of matrix products.
      dtype: of the embeddings.
    """

    function: str
    batch: int
    dim: int
    mode: str = "gradient"
    block_size: int | None = None
    num_margins: int | None = None
    precision: str = "highest"
    dtype: str = "float32"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    def shapes(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Return the shapes of the arguments."""
        x = jax.ShapeDtypeStruct((self.batch, self.dim), jnp.dtype(self.dtype))
        labels = jax.ShapeDtypeStruct((self.batch,), jnp.int32)
        if self.function == "evaluate":
            return x, labels, x, labels
        if self.num_margins is not None:
            margins = jax.ShapeDtypeStruct((self.num_margins,), jnp.float32)
            return x, labels, margins
        return x, labels

    def build(self) -> Callable:
        """Return the function, not compiled."""
        if self.function == "evaluate":
            return self._evaluate
        if self.function == "matmul":
            return self._matmul
        if self.num_margins is None:
            return self._with_gradient(lambda x, labels: self._loss(x, labels))
        return self._over_margins

    def _evaluate(self, query, query_labels, reference, reference_labels):
        """All retrieval metrics of queries against references."""
        return evaluate(
            query, query_labels, reference, reference_labels, block_size=self.block_size
        )

    def _matmul(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        """The yardstick: all products, written out."""
        del labels
        return jnp.matmul(
            x, x.T, precision=self.precision, preferred_element_type=jnp.float32
        )

    def _over_margins(self, x: jax.Array, labels: jax.Array, margins: jax.Array) -> Any:
        """The loss at each of several margins, [m] values (and [m, ...] gradients)."""

        def at(margin: jax.Array) -> Any:
            def loss(x: jax.Array, labels: jax.Array) -> jax.Array:
                return self._loss(x, labels, margin=margin)

            return self._with_gradient(loss)(x, labels)

        return jax.vmap(at)(margins)

    def _with_gradient(self, loss: Callable) -> Callable:
        """The value, or the value and the gradient, which are both returned."""
        return jax.value_and_grad(loss) if self.mode == "gradient" else loss

    def _loss(self, x: jax.Array, labels: jax.Array, **options: Any) -> jax.Array:
        """The value of the loss or peer."""
        if self.function in JAX_PEERS:
            options = specs.OPTIONS[JAX_PEERS[self.function]] | options
            return _PEER_FUNCTIONS[self.function](x, labels, **options)
        options = specs.OPTIONS.get(self.function, {}) | options
        return getattr(jm.losses, self.function)(
            x, labels, precision=self.precision, block_size=self.block_size, **options
        )


def bytes_needed(program: Program) -> float:
    """Return about how much memory a peer or floor takes, in bytes; 0 for ours."""
    rows, dim = float(program.batch), program.dim
    # Forward and backward hold the array of all triplets, or of all products, twice.
    return {
        "naive_batch_all": 8 * rows**3,
        "optax_ntxent": 8 * rows**2 * dim,
        "matmul": 4 * rows**2,
    }.get(program.function, 0.0)


def _naive_batch_all(x: jax.Array, labels: jax.Array, *, margin: float) -> jax.Array:
    """Batch-all as everybody writes it first, with all triplets in one array."""
    is_same = labels[:, None] == labels[None, :]
    is_self = jnp.eye(labels.shape[0], dtype=bool)
    squares = jnp.sum(x * x, -1)
    products = jnp.matmul(x, x.T, precision="highest")
    squares = squares[:, None] + squares[None, :] - 2 * products
    squares = jnp.where(is_self, 1, jnp.maximum(squares, 1e-12))
    d = jnp.where(is_self, 0, jnp.sqrt(squares))
    terms = (d[:, :, None] + margin) - d[:, None, :]
    is_term = (is_same & ~is_self)[:, :, None] & ~is_same[:, None, :]
    terms = jnp.where(is_term, jnp.maximum(terms, 0), 0)
    num_active = jnp.sum(terms > 0)
    return jnp.sum(terms) / jnp.maximum(num_active, 1).astype(terms.dtype)


def _optax_ntxent(x: jax.Array, labels: jax.Array, *, temperature: float) -> jax.Array:
    """Optax's loss of the same name, which promotes freely."""
    import optax

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return optax.losses.ntxent(x, labels, temperature=temperature)


_PEER_FUNCTIONS = {"naive_batch_all": _naive_batch_all, "optax_ntxent": _optax_ntxent}
