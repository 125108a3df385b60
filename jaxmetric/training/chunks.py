"""Batches larger than memory: the encoder runs by chunks, the loss sees all rows.

Metric-learning losses do not add up over batches, so the gradients of small batches are
no substitute for that of a large one. Here the activations of one chunk are in memory
at a time: the chunks are embedded in a loop that keeps nothing but the embeddings, the
loss is computed on all of them, and on the way back each chunk is embedded once more
for its share of the gradient. That costs a second forward pass, and nothing in digits.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _checks
from jaxmetric.reductions import LossStats
from jaxmetric.training.functional import EmbedFn


class ValueAndGrad(Protocol):
    """What `grad_cache` returns: value and gradient of a loss on a whole batch."""

    def __call__(
        self,
        params: Any,
        model_state: Any,
        inputs: Any,
        labels: Any,
        *,
        key: jax.Array | None = None,
        loss_params: Any = None,
        ids: Any = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Return (value, gradient).

        Args:
          params: of the encoder.
          model_state: of the encoder, which leaves it as it is.
          inputs: [batch, ...] array, or a pytree of them.
          labels: what the loss takes, of the whole batch.
          key: a typed PRNG key, of which each chunk gets a fold of its own; None where
            the encoder needs none.
          loss_params: what the loss learns; None stands for {}.
          ids: [batch] integers, given to the loss as `ids=`; None leaves that out.

        The value is what the loss returned, a scalar or (scalar, LossStats); the
        gradient a dict {"params": ..., "loss_params": ...}, as optimisers get it from
        `make_train_step`.
        """
        ...


def grad_cache(
    embed_fn: EmbedFn, loss_fn: Callable[..., Any], *, chunk_size: int
) -> ValueAndGrad:
    """Return value_and_grad(params, model_state, inputs, labels, *, key, ...).

    It embeds the batch with `train=True`, at most `chunk_size` rows at a time, and
    gives value and gradient of the loss on the whole batch, as if there were memory for
    all activations. It is pure and not compiled. For a whole step, hand
    `embed_by_chunks(embed_fn, chunk_size=...)`, which this is made of, to
    `make_train_step`; its docstring says what an encoder must be like.

    Args:
      embed_fn: an encoder, see `EmbedFn`; embeddings may be a pytree (two towers).
      loss_fn: loss_fn(loss_params, embeddings, labels) -> scalar or (scalar,
        LossStats), as in `make_train_step`.
      chunk_size: rows whose activations fit in memory.

    Returns:
      The function, see `ValueAndGrad`.

    Raises:
      ValueError: `chunk_size` is not a positive int. At trace time, from the function:
      see `embed_by_chunks`.

    Memory: activations of one chunk, [batch, dim] embeddings, the gradient and what the
    loss needs.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmetric as jm
      >>> def embed_fn(params, model_state, inputs, *, key, train):
      ...     return inputs @ params["w"], model_state
      >>> def loss_fn(loss_params, embeddings, labels):
      ...     return jm.losses.contrastive_loss(embeddings, labels)
      >>> value_and_grad = grad_cache(embed_fn, loss_fn, chunk_size=2)
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [3.5]]), jnp.array([0, 0, 1, 1])
      >>> value, gradient = value_and_grad({"w": jnp.eye(1)}, {}, x, y)
      >>> print(f"{value:.4f} {gradient['params']['w'][0, 0]:.4f}")
      0.1042 0.2083

    Source: Gao, Zhang, Han, Callan. Scaling Deep Contrastive Learning Batch Size under
    Memory Limited Setup. RepL4NLP 2021. arXiv:2101.06983. There the gradient by the
    embeddings is a stored cache; here rematerialisation has the same effect.
    """
    embed = embed_by_chunks(embed_fn, chunk_size=chunk_size)

    def value_and_grad(
        params: Any,
        model_state: Any,
        inputs: Any,
        labels: Any,
        *,
        key: jax.Array | None = None,
        loss_params: Any = None,
        ids: Any = None,
    ) -> tuple[Any, dict[str, Any]]:
        named = {} if ids is None else {"ids": ids}

        def objective(trained: dict[str, Any]) -> tuple[Any, Any]:
            embeddings, _ = embed(
                trained["params"], model_state, inputs, key=key, train=True
            )
            result = loss_fn(trained["loss_params"], embeddings, labels, **named)
            # A LossStats is a tuple too; the gradient of it JAX refuses.
            has_stats = isinstance(result, tuple) and not isinstance(result, LossStats)
            return (result[0] if has_stats else result), result

        trained = {
            "params": params,
            "loss_params": {} if loss_params is None else loss_params,
        }
        (_, value), gradient = jax.value_and_grad(objective, has_aux=True)(trained)
        return value, gradient

    return value_and_grad


def embed_by_chunks(embed_fn: EmbedFn, *, chunk_size: int) -> EmbedFn:
    """Return the encoder with the activations of one chunk in memory at a time.

    A batch that is larger than `chunk_size` is embedded in equal chunks of at most so
    many rows, in a loop whose body is computed again for the gradient. The result, and
    its gradient in any loss, is that of `embed_fn` on each chunk alone, to rounding: in
    `make_train_step(embed_by_chunks(embed_fn, chunk_size=64), loss_fn, optimizer)` the
    batch is limited by its embeddings, no longer by its activations.

    Chunk i of n has the rows i, i + n, i + 2 n, ..., so that each is spread over all
    devices where the batch is. If n does not divide the batch, the last row is embedded
    several times, and the copies are dropped. Random parts of the encoder get
    `jax.random.fold_in(key, i)`, the same in both directions; a batch that is no larger
    than a chunk is simply handed on, with the key as it is.

    The rows of a batch must not know of each other. An encoder that returns another
    `model_state` than it was given (batch normalisation with running averages) is
    refused: its statistics would be those of chunks, not of the batch, and which of
    them to keep has no good answer. Group or layer normalisation takes its place. A
    state that stays must come back as the very arrays, so an encoder with one should
    not be compiled by itself: the step around it is.

    Args:
      embed_fn: an encoder, see `EmbedFn`; inputs and embeddings may be pytrees of
        [batch, ...] arrays.
      chunk_size: rows that are embedded together.

    Returns:
      An embed_fn, for `make_train_step`, `population` or a function of one's own.

    Raises:
      ValueError: `chunk_size` is not a positive int. At trace time, from the encoder:
      `inputs` have not one number of rows, or `embed_fn` changes its `model_state`.

    Memory: activations of one chunk, and [batch, ...] inputs and embeddings. What XLA
    plans on a CPU for the gradient of a `ConvEncoder` on 1024 images of 35 x 35 pixels,
    with `batch_hard_triplet_loss`:

      chunk_size        1024   256    64    16
      temporary, MB    188.0  50.4  17.4  12.2

    Time: a second forward pass. On a CPU, XLA's convolutions in a loop are many times
    slower than outside of one, so there chunks suit encoders of matrix products.

    Example:
      >>> import jax.numpy as jnp
      >>> def embed_fn(params, model_state, inputs, *, key, train):
      ...     return inputs * params, model_state
      >>> embed = embed_by_chunks(embed_fn, chunk_size=2)
      >>> embeddings, _ = embed(2.0, {}, jnp.arange(3.0), key=None, train=True)
      >>> print(embeddings)
      [0. 2. 4.]
    """
    function = "embed_by_chunks"
    remedy = "Use as many rows as fit in memory."
    _checks.positive_int(function, "chunk_size", chunk_size, remedy)

    def embed(
        params: Any,
        model_state: Any,
        inputs: Any,
        *,
        key: jax.Array | None,
        train: bool,
    ) -> tuple[Any, Any]:
        rows = _num_rows(function, inputs)
        num_chunks = -(-rows // chunk_size)

        def embed_chunk(params: Any, inputs: Any, key: jax.Array | None) -> Any:
            embeddings, after = embed_fn(
                params, model_state, inputs, key=key, train=train
            )
            _check_unchanged(function, model_state, after)
            return embeddings

        if num_chunks <= 1:
            return embed_chunk(params, inputs, key), model_state
        # Nothing is kept of a chunk: outside of the loop, XLA could join the second
        # forward pass with the first, but not inside of it.
        embed_chunk = jax.checkpoint(embed_chunk, prevent_cse=False)

        def step(_: None, chunk: tuple[jax.Array, Any]) -> tuple[None, Any]:
            i, inputs = chunk
            own = None if key is None else jax.random.fold_in(key, i)
            return None, embed_chunk(params, inputs, own)

        split = jax.tree.map(lambda x: _split(x, num_chunks), inputs)
        _, chunks = lax.scan(step, None, (jnp.arange(num_chunks), split))
        return jax.tree.map(lambda x: _join(x, rows), chunks), model_state

    return embed


def _num_rows(function: str, inputs: Any) -> int:
    """Return the length of the leading axis that all inputs have."""
    sizes = {jnp.shape(x)[:1] for x in jax.tree.leaves(inputs)}
    if len(sizes) != 1 or () in sizes:
        must = "be arrays with one number of rows"
        got = ", ".join(str(jnp.shape(x)) for x in jax.tree.leaves(inputs)) or "none"
        remedy = "Give every side a row for each example."
        raise ValueError(_checks.text(function, "inputs", must, got, remedy))
    return sizes.pop()[0]


def _split(x: Any, num_chunks: int) -> jax.Array:
    """Return [batch, ...] rows as [num_chunks, chunk, ...], dealt out like cards."""
    x = jnp.asarray(x)
    missing = -x.shape[0] % num_chunks
    if missing:
        # Copies of a row that exists: on zeros an encoder may have no finite gradient.
        x = jnp.concatenate([x, *[x[-1:]] * missing])
    return jnp.swapaxes(x.reshape(-1, num_chunks, *x.shape[1:]), 0, 1)


def _join(chunks: jax.Array, rows: int) -> jax.Array:
    """Return [num_chunks, chunk, ...] as [batch, ...], the inverse of `_split`."""
    x = jnp.swapaxes(chunks, 0, 1)
    return x.reshape(-1, *x.shape[2:])[:rows]


def _check_unchanged(function: str, before: Any, after: Any) -> None:
    """Require the very arrays of the model state that the encoder was given."""
    old, new = jax.tree.flatten_with_path(before), jax.tree.leaves(after)
    leaves, structure = old
    is_kept = structure == jax.tree.structure(after)
    changed = [
        jax.tree_util.keystr(path)
        for (path, a), b in zip(leaves, new, strict=False)
        if a is not b
    ]
    if is_kept and not changed:
        return
    must = "return the model_state that it was given"
    got = f"a new value of model_state{changed[0]}" if is_kept else "another structure"
    remedy = (
        "Running averages over chunks are not those of the batch: normalise each "
        "example by itself (nnx.LayerNorm, nnx.GroupNorm)."
    )
    raise ValueError(_checks.text(function, "embed_fn", must, got, remedy))
