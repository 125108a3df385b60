"""The training step: one pure function from a state and a batch to the next state."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxmetric import _checks
from jaxmetric.reductions import LossStats
from jaxmetric.training import monitoring
from jaxmetric.training.functional import EmbedFn
from jaxmetric.training.state import TrainState

_BATCH_KEYS = ("inputs", "labels", "ids")


class LossFn(Protocol):
    """What is minimised: a scalar of the embeddings of a batch."""

    def __call__(
        self, loss_params: Any, embeddings: Any, labels: Any, /
    ) -> jax.Array | tuple[jax.Array, LossStats]:
        """Return a scalar, or (scalar, LossStats) to have the active fraction logged.

        It is called with `ids=` besides when the batch has ids.
        """
        ...


TrainStep = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    embed_fn: EmbedFn,
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
) -> TrainStep:
    """Return step(state, batch) -> (state, metrics).

    The step is pure and not compiled: the caller jits, donates, scans, maps or shards
    it. It embeds the batch with `train=True`, differentiates the loss with respect to
    `params` and `loss_params` together, and updates both. `state.step` and
    `state.key` advance at every step. A step whose loss or gradient is not finite
    leaves `params`, `model_state`, `loss_params` and `opt_state` as they were, bit for
    bit, and adds one to `state.skipped`.

    A batch is `(inputs, labels)`, `(inputs, labels, ids)`, or a mapping with the keys
    "inputs", "labels" and, optionally, "ids". Labels may be None where the loss needs
    none.

    Metrics, float32 scalars:
      loss: the value of the loss.
      active_fraction: active terms over valid terms (0 if no term is valid); NaN when
        `loss_fn` gives no `LossStats`.
      positive_distance, negative_distance: mean euclidean distance of two rows with
        equal labels, and with different ones, among the first 256 rows; rows with
        equal ids are left out. NaN if there is no such pair, and for labels that are
        not [batch] integers. For embeddings that are two [batch, dim] arrays: of the
        rows of one index, and of all others, those of equal labels left out.
      embedding_norm: mean length of the rows.
      grad_norm: euclidean norm of the gradient over all parameters.
      skipped: 1 if the step was skipped, else 0.

    Args:
      embed_fn: an encoder, see `EmbedFn`; embeddings may be a pytree (two towers).
      loss_fn: loss_fn(loss_params, embeddings, labels) -> scalar or (scalar,
        LossStats); `ids=ids` is added when the batch has ids.
      optimizer: the one that `TrainState.create` was given. Transformations that ask
        for the loss are given it as `value`.

    Returns:
      The step.

    Raises (at trace time, from the step):
      ValueError: the batch, the result of `loss_fn` or the structure of the new
        `model_state` is not as described.

    Memory: the encoder's activations and one gradient besides the state.

    Example:
      >>> import jax, optax, jax.numpy as jnp
      >>> def embed_fn(params, model_state, inputs, *, key, train):
      ...     return inputs @ params["w"], model_state
      >>> def loss_fn(loss_params, embeddings, labels):
      ...     return jnp.mean(embeddings**2)
      >>> optimizer = optax.sgd(0.25)
      >>> state = TrainState.create(
      ...     {"w": jnp.eye(2)}, {}, optimizer, key=jax.random.key(0))
      >>> step = jax.jit(make_train_step(embed_fn, loss_fn, optimizer))
      >>> state, metrics = step(state, (jnp.eye(2), jnp.arange(2)))
      >>> print(f"{metrics['loss']:.2f} {state.params['w'][0, 0]:.3f}")
      0.50 0.875
    """
    update = optax.with_extra_args_support(optimizer).update

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        inputs, labels, ids = _unpack(batch)
        key, step_key = jax.random.split(state.key)
        trained = {"params": state.params, "loss_params": state.loss_params}

        def objective(trained: Any) -> tuple[jax.Array, Any]:
            embeddings, model_state = embed_fn(
                trained["params"], state.model_state, inputs, key=step_key, train=True
            )
            named = {} if ids is None else {"ids": ids}
            result = loss_fn(trained["loss_params"], embeddings, labels, **named)
            loss, stats = _split_result(result)
            return loss, (stats, embeddings, model_state)

        (loss, aux), gradient = jax.value_and_grad(objective, has_aux=True)(trained)
        stats, embeddings, model_state = aux
        _check_state(state.model_state, model_state)
        # Optax raises a float to an int32 count (Adam), which a caller's strict dtype
        # promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = update(gradient, state.opt_state, trained, value=loss)
            updated = optax.apply_updates(trained, updates)

        # The loss alone does not tell: a hinge swallows NaN, and the gradient of a
        # finite loss may overflow.
        is_finite = monitoring.all_finite((loss, gradient))
        before = (trained, state.model_state, state.opt_state)
        after = (updated, model_state, opt_state)
        trained, model_state, opt_state = jax.tree.map(
            lambda new, old: jnp.where(is_finite, new, old), after, before
        )
        is_skipped = jnp.logical_not(is_finite)
        metrics = {
            "loss": loss,
            "active_fraction": monitoring.active_fraction(stats),
            **monitoring.describe_embeddings(embeddings, labels, ids),
            "grad_norm": monitoring.global_norm(gradient),
            "skipped": is_skipped,
        }
        state = TrainState(
            step=state.step + 1,
            params=trained["params"],
            model_state=model_state,
            loss_params=trained["loss_params"],
            opt_state=opt_state,
            key=key,
            skipped=state.skipped + is_skipped.astype(jnp.int32),
        )
        return state, {name: x.astype(jnp.float32) for name, x in metrics.items()}

    return step


def _unpack(batch: Any) -> tuple[Any, Any, Any]:
    """Return (inputs, labels, ids) of a batch, ids None where it has none."""
    remedy = "Give (inputs, labels) or (inputs, labels, ids)."
    if isinstance(batch, Mapping):
        if {"inputs", "labels"} <= set(batch) <= set(_BATCH_KEYS):
            return batch["inputs"], batch["labels"], batch.get("ids")
        got = f"the keys {sorted(map(str, batch))}"
        must = "have the keys 'inputs', 'labels' and at most 'ids'"
        raise ValueError(_checks.text("train step", "batch", must, got, remedy))
    if isinstance(batch, tuple | list) and len(batch) in (2, 3):
        inputs, labels, *ids = batch
        return inputs, labels, ids[0] if ids else None
    got = type(batch).__name__
    if isinstance(batch, tuple | list):
        got = f"{len(batch)} entries"
    must = "be a tuple of 2 or 3 entries or a mapping"
    raise ValueError(_checks.text("train step", "batch", must, got, remedy))


def _split_result(result: Any) -> tuple[jax.Array, LossStats | None]:
    """Return (loss, stats or None) of what the loss function gave."""
    loss, stats = result, None
    # A LossStats is a tuple too.
    if isinstance(result, tuple) and not isinstance(result, LossStats):
        loss, *rest = result
        stats = rest[0] if len(rest) == 1 else rest
    shape = loss.shape if isinstance(loss, jax.Array) else None
    if shape != () or not (stats is None or isinstance(stats, LossStats)):
        got = f"shape {shape}" if shape else type(result).__name__
        must = "return a scalar or (scalar, LossStats)"
        remedy = (
            "Use reduction='mean' for the scalar, jm.reduce(stats, 'mean') of both."
        )
        raise ValueError(_checks.text("make_train_step", "loss_fn", must, got, remedy))
    return loss, stats


def _check_state(before: Any, after: Any) -> None:
    """Require of the new model state the structure, shapes and dtypes of the old."""

    def describe(tree: Any) -> tuple[Any, list[Any]]:
        leaves, structure = jax.tree.flatten(tree)
        return structure, [(jnp.shape(x), jnp.result_type(x)) for x in leaves]

    old, new = describe(before), describe(after)
    if old != new:
        must = "return a model_state of the structure, shapes and dtypes it is given"
        got = f"{len(new[1])} leaves {new[0]} for {len(old[1])} leaves {old[0]}"
        remedy = "Initialise the state with one call, and return all of it."
        raise ValueError(_checks.text("make_train_step", "embed_fn", must, got, remedy))
