"""Encoders as pure functions: what a training step takes, whoever wrote the network."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp

from jaxmetric import _checks

if TYPE_CHECKING:
    from flax import nnx

# What modules call the switch between training and evaluation, and its sense.
_TRAIN_NAMES = ("train", "training", "is_training")
_EVAL_NAMES = ("deterministic", "use_running_average")


class EmbedFn(Protocol):
    """What an encoder is: a pure function from inputs to embeddings."""

    def __call__(
        self,
        params: Any,
        model_state: Any,
        inputs: Any,
        *,
        key: jax.Array | None,
        train: bool,
    ) -> tuple[Any, Any]:
        """Return (embeddings, model_state).

        Args:
          params: pytree of floating arrays, what the optimiser changes.
          model_state: pytree of everything else that a step may change (the running
            averages of batch normalisation); of one structure, `{}` if there is none.
          inputs: [batch, ...] array, or a pytree of them.
          key: a typed PRNG key for dropout and the like; may be None in evaluation.
          train: whether this is a training step; static.
        """
        ...


def as_functional(module: "nnx.Module") -> tuple[EmbedFn, Any, Any]:
    """Turn any Flax NNX module into (embed_fn, params, model_state).

    `params` are the module's `nnx.Param` values, `model_state` all other variables
    but random streams and what the module has sown; both are plain nested dicts of
    arrays, keyed by attribute names (an `nnx.State` is taken as well). So the
    parameters of a part are a branch: those of `SharedTowers(encoder)` are
    `{"encoder": <the params of encoder>}`. A parameter that two parts share is there
    once. The module itself is never changed.

    * `train` sets the module with `.train()` or `.eval()` (dropout, batch
      normalisation) and is also passed to a `__call__` that names an argument `train`,
      `training`, `is_training`, `deterministic` or `use_running_average`.
    * `key` restarts every random stream of the module, each from its own fold of it;
      a `__call__` that names an argument `rngs` is given an `nnx.Rngs` of it as well.
      A network without random parts ignores it. None is allowed in evaluation only.
    * `inputs` that are a tuple are the positional arguments of `__call__`; anything
      else is the only one.
    * With `train=False` the `model_state` that was given is returned.

    A Linen model or a bare function needs no such help, only the signature `EmbedFn`.

    Args:
      module: a Flax NNX module; abstract ones (`nnx.eval_shape`) give abstract params.

    Returns:
      embed_fn, params, model_state. One embed_fn compiles once: keep it.

    Raises:
      TypeError: `module` is not an NNX module.

    Memory: the arrays are the module's own, not copies.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> module = nnx.Sequential(
      ...     nnx.Linear(3, 8, rngs=nnx.Rngs(0)), nnx.BatchNorm(8, rngs=nnx.Rngs(1)))
      >>> embed_fn, params, model_state = as_functional(module)
      >>> embeddings, model_state = embed_fn(
      ...     params, model_state, jnp.ones((2, 3)), key=jax.random.key(0), train=True)
      >>> print(embeddings.shape, sorted(params["layers"][1]))
      (2, 8) ['bias', 'scale']
    """
    from flax import nnx

    if not isinstance(module, nnx.Module):
        remedy = "Write the function embed_fn itself: no other network needs this."
        raise TypeError(
            _checks.text(
                "as_functional",
                "module",
                "be a Flax NNX module",
                type(module).__name__,
                remedy,
            )
        )
    named = _named_arguments(type(module).__call__)
    module = nnx.clone(module)
    nnx.pop(module, nnx.Intermediate)
    graphdef, *states = nnx.split(module, nnx.Param, nnx.RngState, ...)
    params, streams, model_state = (nnx.to_pure_dict(state) for state in states)
    # Only the shapes are kept: the keys come from the caller.
    streams = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), streams)

    def embed_fn(
        params: Any,
        model_state: Any,
        inputs: Any,
        *,
        key: jax.Array | None,
        train: bool,
    ) -> tuple[Any, Any]:
        if key is None and train and (streams or "rngs" in named):
            must, remedy = "be a PRNG key in training", "Pass key=jax.random.key(0)."
            raise ValueError(_checks.text("embed_fn", "key", must, "None", remedy))
        key = jax.random.key(0) if key is None else key
        # Where a caller gives an `nnx.State`, its variables belong to another trace:
        # without the copy, batch normalisation could not write its averages.
        model = nnx.merge(
            graphdef, params, _restart(streams, key), model_state, copy=True
        )
        model.train() if train else model.eval()
        options: dict[str, Any] = {n: train for n in _TRAIN_NAMES if n in named}
        options |= {n: not train for n in _EVAL_NAMES if n in named}
        if "rngs" in named:
            options["rngs"] = nnx.Rngs(jax.random.fold_in(key, len(named)))
        arguments = inputs if isinstance(inputs, tuple) else (inputs,)
        embeddings = model(*arguments, **options)
        if not train:
            return embeddings, model_state
        # What was sown would change the structure of the state at the first step.
        rest = nnx.split(model, nnx.Param, nnx.RngState, nnx.Intermediate, ...)[-1]
        return embeddings, nnx.to_pure_dict(rest)

    return embed_fn, params, model_state


def _named_arguments(call: Callable[..., Any]) -> frozenset[str]:
    """Return the names that can be passed to `call` by keyword."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(call).parameters.values()
    return frozenset(p.name for p in parameters if p.kind in kinds)


def _restart(streams: Any, key: jax.Array) -> Any:
    """Return the random streams (keys and counters) started anew from `key`."""
    leaves, structure = jax.tree.flatten(streams)
    return structure.unflatten(
        jax.random.split(jax.random.fold_in(key, i), leaf.shape)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else jnp.zeros(leaf.shape, leaf.dtype)
        for i, leaf in enumerate(leaves)
    )
