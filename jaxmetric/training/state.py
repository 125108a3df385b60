"""What a training step takes and gives back: one pytree with all that changes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmetric import _checks


class TrainState(NamedTuple):
    """All that changes in training; a pytree, made by `TrainState.create`.

    Attributes:
      step: int32 scalar, steps taken, skipped ones included.
      params: pytree, the parameters of the encoder.
      model_state: pytree, what the encoder carries besides (running averages).
      loss_params: pytree, what the loss learns (proxies, a temperature); {} if nothing.
      opt_state: the optimiser's state over {"params": ..., "loss_params": ...}.
      key: a typed PRNG key, split at every step.
      skipped: int32 scalar, how many steps were skipped in all because their loss or
        gradient was not finite.
    """

    step: jax.Array
    params: Any
    model_state: Any
    loss_params: Any
    opt_state: Any
    key: jax.Array
    skipped: jax.Array

    @classmethod
    def create(
        cls,
        params: Any,
        model_state: Any,
        optimizer: optax.GradientTransformation,
        *,
        key: jax.Array,
        loss_params: Any = None,
    ) -> "TrainState":
        """Return the state before the first step.

        Every leaf is a copy in a buffer of its own. So the state may be donated to a
        compiled step while what it was made from stays usable, also with an optimiser
        that keeps the parameters themselves in its state (lookahead, schedule-free).

        Args:
          params: pytree of floating arrays.
          model_state: pytree; {} if the encoder carries nothing.
          optimizer: an Optax optimiser; it sees {"params": params, "loss_params":
            loss_params}.
          key: a typed PRNG key, `jax.random.key(seed)`; or [models] of them under vmap.
          loss_params: pytree of floating arrays; None stands for {}.

        Returns:
          A TrainState at step 0.

        Raises:
          TypeError: `key` is not a typed PRNG key.

        Memory: a copy of all arguments and of the optimiser's state.

        Example:
          >>> import jax, optax, jax.numpy as jnp
          >>> state = TrainState.create(
          ...     {"w": jnp.ones(3)}, {}, optax.sgd(0.1), key=jax.random.key(0))
          >>> print(int(state.step), state.params["w"])
          0 [1. 1. 1.]
        """
        dtype = getattr(key, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
            must, got = "be a typed PRNG key", str(dtype or type(key).__name__)
            remedy = "Use jax.random.key(0)."
            raise TypeError(_checks.text("TrainState.create", "key", must, got, remedy))
        loss_params = {} if loss_params is None else loss_params
        trained = {"params": params, "loss_params": loss_params}
        state = cls(
            step=jnp.int32(0),
            params=params,
            model_state=model_state,
            loss_params=loss_params,
            opt_state=optimizer.init(trained),
            key=key,
            skipped=jnp.int32(0),
        )
        return jax.tree.map(_own, state)


def _own(leaf: Any) -> jax.Array:
    """Return a copy of one leaf, of a dtype that does not yield to others."""
    # A weak dtype would become a strong one in the first step: a second compilation.
    return jnp.array(leaf, dtype=jnp.asarray(leaf).dtype, copy=True)
