"""Embeddings of earlier batches as further references: a ring buffer as a pytree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks


class MemoryBank(NamedTuple):
    """The embeddings last pushed, oldest overwritten first; a pytree.

    It is made by `MemoryBank.create`, and what changes it returns another one: so it
    goes through `jit`, through the carry of `lax.scan` and into a checkpoint like any
    other state. Every array keeps its shape, how many rows are stored does not matter.

    A row of the batch is never compared with its own stored copies, since these have
    its id; so the batch may be pushed before the loss too, which then has the copies of
    the other rows among its references. The rows that are stored are constants:
    gradients go to the batch alone.

    Attributes:
      embeddings: [size, dim] stored rows.
      labels: [size] int32.
      ids: [size] int32, the samples behind the rows.
      age: [size] int32, for how many pushes a row has been there; -1 where there is
        none.
      cursor: int32 scalar, where the next row goes.

    Memory: size x (dim + 3) numbers, and twice that during a push unless the buffers
    are donated.

    Example:
      >>> import jax.numpy as jnp, jaxmetric as jm
      >>> bank = MemoryBank.create(4, 1)
      >>> x, labels, ids = jnp.array([[0.0], [2.0]]), jnp.array([0, 1]), jnp.arange(2)
      >>> bank = bank.push(x + 1, labels, ids + 2).push(x, labels, ids)
      >>> loss = jm.losses.batch_hard_triplet_loss(
      ...     x, labels, ids=ids, margin=0.5, **bank.references())
      >>> print(bank.age, f"{loss:.2f}")
      [1 1 0 0] 0.25

    Source: Wang, Zhang, Huang, Scott. Cross-Batch Memory for Embedding Learning. CVPR
    2020. arXiv:1912.06798; with `momentum_update`: He et al. Momentum Contrast. CVPR
    2020. arXiv:1911.05722.
    """

    embeddings: jax.Array
    labels: jax.Array
    ids: jax.Array
    age: jax.Array
    cursor: jax.Array

    @classmethod
    def create(cls, size: int, dim: int, *, dtype: Any = jnp.float32) -> "MemoryBank":
        """Return an empty bank.

        Args:
          size: rows that it holds; where it is to be spread over devices, a multiple
            of their number.
          dim: width of the embeddings.
          dtype: of the stored rows, floating.

        Raises:
          ValueError: `size` or `dim` is not a positive int.
          TypeError: `dtype` is not floating.
        """
        function = "MemoryBank.create"
        _checks.positive_int(function, "size", size)
        _checks.positive_int(function, "dim", dim)
        if not jnp.issubdtype(dtype, jnp.floating):
            must, got, remedy = "be floating", str(jnp.dtype(dtype)), "Use jnp.float32."
            raise TypeError(_checks.text(function, "dtype", must, got, remedy))
        # Buffers of their own: one that is donated twice is an error.
        return cls(
            embeddings=jnp.zeros((size, dim), dtype),
            labels=jnp.zeros(size, jnp.int32),
            ids=jnp.zeros(size, jnp.int32),
            age=jnp.full(size, -1, jnp.int32),
            cursor=jnp.int32(0),
        )

    @property
    def size(self) -> int:
        """How many rows it can hold."""
        return self.embeddings.shape[0]

    @property
    def num_stored(self) -> jax.Array:
        """How many rows it holds, an int32 scalar."""
        return jnp.sum(self.age >= 0, dtype=jnp.int32)

    def push(
        self,
        embeddings: ArrayLike,
        labels: ArrayLike,
        ids: ArrayLike,
        *,
        where: ArrayLike | None = None,
    ) -> "MemoryBank":
        """Return the bank with a batch stored in place of its oldest rows.

        Rows that do not exist are not stored, and neither are rows that are not finite:
        they would make every later loss NaN.

        Args:
          embeddings: [batch, dim] floating; no gradient flows into them from here.
          labels: [batch] integer, of at most 32 bits.
          ids: [batch] integers that name the samples, of at most 32 bits.
          where: [batch] bool, which rows exist.

        Raises:
          ValueError: shapes do not fit, or the batch has more rows than the bank.
          TypeError: dtypes do not fit.
        """
        function = "MemoryBank.push"
        x = _checks.embeddings(function, "embeddings", embeddings)
        rows, dim = x.shape
        if dim != self.embeddings.shape[1]:
            must = f"have {self.embeddings.shape[1]} columns like the bank"
            remedy = "Use MemoryBank.create(size, dim) with the encoder's width."
            got = f"shape {x.shape}"
            raise ValueError(_checks.text(function, "embeddings", must, got, remedy))
        if rows > self.size:
            must = f"have at most {self.size} rows, which is all that the bank holds"
            remedy = "Make the bank larger, or push the last rows alone."
            got = f"{rows}"
            raise ValueError(_checks.text(function, "embeddings", must, got, remedy))
        labels = _narrow(function, "labels", labels, x)
        ids = _narrow(function, "ids", ids, x)
        x = lax.stop_gradient(x).astype(self.embeddings.dtype)
        is_stored = _checks.mask(function, "where", where, x, "embeddings")
        is_stored &= jnp.all(jnp.isfinite(x), -1)
        # Rows that are stored follow each other without gaps; the place of any other
        # is past the end, where nothing is written.
        before = jnp.cumsum(is_stored, dtype=jnp.int32) - is_stored.astype(jnp.int32)
        place = jnp.where(is_stored, (self.cursor + before) % self.size, self.size)

        def put(stored: jax.Array, new: ArrayLike) -> jax.Array:
            return stored.at[place].set(new, mode="drop")

        age = jnp.where(self.age >= 0, self.age + 1, -1)
        count = jnp.sum(is_stored, dtype=jnp.int32)
        return MemoryBank(
            embeddings=put(self.embeddings, x),
            labels=put(self.labels, labels),
            ids=put(self.ids, ids),
            age=put(age, 0),
            cursor=(self.cursor + count) % self.size,
        )

    def references(self, *, warm_up: float = 0.0) -> dict[str, jax.Array]:
        """Return the keywords `ref_embeddings`, `ref_labels`, `ref_where`, `ref_ids`.

        `loss(embeddings, labels, ids=ids, **bank.references())` compares the batch with
        the bank alone; add the loss without references to compare it with itself too.

        Args:
          warm_up: from which share of `size` on the stored rows are used, 0 to 1.
            Before, none of them exists for the loss, which is 0 then: early in training
            embeddings drift too fast for old ones to mean anything.

        Raises:
          ValueError: `warm_up` is not between 0 and 1.
        """
        if not 0 <= warm_up <= 1:
            must, remedy = "be between 0 and 1", "Use 0.5 to wait for half a bank."
            function, got = "MemoryBank.references", repr(warm_up)
            raise ValueError(_checks.text(function, "warm_up", must, got, remedy))
        is_warm = self.num_stored >= round(warm_up * self.size)
        return {
            "ref_embeddings": lax.stop_gradient(self.embeddings),
            "ref_labels": self.labels,
            "ref_where": (self.age >= 0) & is_warm,
            "ref_ids": self.ids,
        }


def momentum_update(average: Any, params: Any, *, decay: ArrayLike = 0.999) -> Any:
    """Return decay * average + (1 - decay) * params, leaf by leaf.

    The parameters of a momentum encoder: what it embeds drifts so slowly that a long
    memory bank stays of use. Start with `average = params` and update after each step.

    Args:
      average: pytree, the parameters of the momentum encoder.
      params: pytree of the same structure, those that are trained.
      decay: 0 to 1; a number or a scalar array.

    Returns:
      A pytree of the structure and the dtypes of `average`.

    Raises:
      ValueError: the structures differ, or `decay` is out of range.

    Memory: a copy of the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> average = momentum_update({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, decay=0.9)
      >>> print(average["w"])
      [0.1 0.1]

    Source: He et al. Momentum Contrast. CVPR 2020. arXiv:1911.05722, equation 2.
    """
    if isinstance(decay, int | float) and not 0 <= decay <= 1:
        must, got, remedy = "be between 0 and 1", repr(decay), "The paper has 0.999."
        raise ValueError(_checks.text("momentum_update", "decay", must, got, remedy))
    with jax.numpy_dtype_promotion("standard"):
        updated = optax.incremental_update(params, average, 1 - jnp.asarray(decay))
    return jax.tree.map(lambda new, old: new.astype(old.dtype), updated, average)


def _narrow(function: str, argument: str, values: ArrayLike, x: jax.Array) -> jax.Array:
    """Return [batch] labels or ids as int32."""
    array = _checks.integers(function, argument, values, x, "embeddings")
    if array.dtype.itemsize > 4:
        must, got = "have at most 32 bits", str(array.dtype)
        remedy = f"Use {argument}.astype(jnp.int32)."
        raise TypeError(_checks.text(function, argument, must, got, remedy))
    return array.astype(jnp.int32)
