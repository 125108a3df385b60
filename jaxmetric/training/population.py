"""Many models side by side: one compiled program trains them on the same batches.

The state of a population is a `TrainState` whose leaves have a leading axis of models.
Hyper-parameters are arrays with the same axis, so the program does not depend on their
values.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxmetric import _checks
from jaxmetric.reductions import LossStats
from jaxmetric.training.functional import EmbedFn
from jaxmetric.training.state import TrainState
from jaxmetric.training.step import make_train_step


class PopulationLossFn(Protocol):
    """What each model minimises: a scalar of its embeddings and hyper-parameters."""

    def __call__(
        self, loss_params: Any, embeddings: Any, labels: Any, hyper: Any, /
    ) -> jax.Array | tuple[jax.Array, LossStats]:
        """Return a scalar, or (scalar, LossStats), of one model.

        `hyper` holds the model's own numbers, scalar arrays. It is called with `ids=`
        besides when the batch has ids.
        """
        ...


PopulationStep = Callable[
    [TrainState, Any, Any], tuple[TrainState, dict[str, jax.Array]]
]


def population(
    embed_fn: EmbedFn,
    loss_fn: PopulationLossFn,
    make_optimizer: Callable[[Any], optax.GradientTransformation],
    *,
    group_size: int | None = None,
) -> PopulationStep:
    """Return step(states, batch, hyper) -> (states, metrics) for many models at once.

    Each model takes the step of `make_train_step`: it embeds the batch, which all of
    them share, with its own parameters, and differentiates the loss at its own
    hyper-parameters. Model i ends where it would alone, to rounding; one that goes
    where loss or gradient are not finite is held and counted by itself, and the others
    do not notice. The step is pure and not compiled, as that of `make_train_step` is.

    Hyper-parameters are arrays [models]: the margin or temperature that `loss_fn` hands
    on, the learning rate that `make_optimizer` does, in the structure that the two
    agree on. They reach both as traced scalars, so other values do not compile again.
    What changes the structure of the optimiser's state (Adam or SGD) cannot differ.

    Where `states.key` is one key, all models see the same random changes, and whatever
    depends on the batch and the key alone (augmentation) is computed once for all. With
    a key for each model it is computed for each.

    Nothing connects the models, so `jax.shard_map` over the axis of models shares them
    out among devices. A CPU is one device unless `jax_num_cpu_devices` says otherwise:
    with one a core and `group_size=1` small models train fastest there, since each
    stays in the cache. XLA's convolutions with a kernel for each model, and those in a
    loop, are many times slower on a CPU than a single one: let the encoder multiply
    patches instead.

    Args:
      embed_fn: an encoder, see `EmbedFn`; of one model.
      loss_fn: loss_fn(loss_params, embeddings, labels, hyper) -> scalar or (scalar,
        LossStats) of one model; `ids=ids` is added when the batch has ids.
      make_optimizer: make_optimizer(hyper) -> an Optax optimiser for one model, whose
        numbers may be traced: `lambda hyper: optax.adam(hyper["learning_rate"])`.
      group_size: models that are computed together; the groups take turns within the
        program, which bounds the memory of their activations. None is all at once.

    Returns:
      The step. Its metrics are those of `make_train_step`, float32 [models].

    Raises:
      ValueError: `group_size` is below 1. At trace time, from the step: `hyper` and
      the states have not the same number of models, or an error of `make_train_step`.

    Memory: the states, and activations and gradients of a group.

    Example:
      >>> import jax, optax, jax.numpy as jnp
      >>> def embed_fn(params, model_state, inputs, *, key, train):
      ...     return inputs @ params["w"], model_state
      >>> def loss_fn(loss_params, embeddings, labels, hyper):
      ...     return hyper["weight"] * jnp.mean(embeddings**2)
      >>> def make_optimizer(hyper):
      ...     return optax.sgd(hyper["learning_rate"])
      >>> alone = TrainState.create(
      ...     {"w": jnp.eye(2)}, {}, optax.sgd(0.0), key=jax.random.key(0))
      >>> states = stack_states([alone, alone], shared_key=True)
      >>> hyper = {"weight": jnp.array([1.0, 1.0]),
      ...          "learning_rate": jnp.array([0.25, 0.5])}
      >>> step = jax.jit(population(embed_fn, loss_fn, make_optimizer))
      >>> states, metrics = step(states, (jnp.eye(2), jnp.arange(2)), hyper)
      >>> print(metrics["loss"], states.params["w"][:, 0, 0])
      [0.5 0.5] [0.875 0.75 ]
    """
    if group_size is not None:
        _checks.positive_int("population", "group_size", group_size)

    def step(
        states: TrainState, batch: Any, hyper: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        num_models = _num_models(states, hyper)
        key = None if states.key.ndim else states.key

        def one(state: TrainState, hyper: Any) -> tuple[TrainState, Any]:
            def of_model(
                loss_params: Any, embeddings: Any, labels: Any, **ids: Any
            ) -> Any:
                return loss_fn(loss_params, embeddings, labels, hyper, **ids)

            take_step = make_train_step(embed_fn, of_model, make_optimizer(hyper))
            # A key from outside is the same array for all models, and so is what is
            # made of it and of the batch: vmap computes that once.
            own = state if key is None else state._replace(key=key)
            return take_step(own, batch)

        own = states if key is None else states._replace(key=None)
        if group_size is None or group_size >= num_models:
            states, metrics = jax.vmap(one)(own, hyper)
        else:
            size = None if group_size == 1 else group_size
            states, metrics = lax.map(
                lambda model: one(*model), (own, hyper), batch_size=size
            )
        if key is not None:
            states = states._replace(key=states.key[0])
        return states, metrics

    return step


def stack_states(
    states: Sequence[TrainState], *, shared_key: bool = False
) -> TrainState:
    """Return the state of a population: its models' states, stacked leaf by leaf.

    Args:
      states: one a model, of one structure and with leaves of equal shapes; see
        `TrainState.create`. The learning rate that an optimiser was made with does not
        matter here, only its kind.
      shared_key: whether all models have the first one's key from now on, and with it
        the same random changes; see `population`.

    Returns:
      A TrainState of [models, ...] leaves; its key is [models], or [] if shared.

    Raises:
      ValueError: there is no state, or they do not fit together.

    Memory: a copy of all states.

    Example:
      >>> import jax, optax, jax.numpy as jnp
      >>> alone = [TrainState.create(
      ...     {"w": jnp.full(3, 1.0 + s)}, {}, optax.adam(0.1), key=jax.random.key(s))
      ...     for s in range(2)]
      >>> print(stack_states(alone).params["w"].shape)
      (2, 3)
    """
    if not states:
        must, got = "hold at least one state", "none"
        remedy = "Use TrainState.create(...) for each model."
        raise ValueError(_checks.text("stack_states", "states", must, got, remedy))
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), state) for state in states]
    for i, other in enumerate(shapes):
        if other != shapes[0]:
            must = "have one structure and leaves of equal shapes and dtypes"
            got = f"another in states[{i}] than in states[0]"
            remedy = "Make all of them with one kind of encoder, loss and optimiser."
            raise ValueError(_checks.text("stack_states", "states", must, got, remedy))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    # A copy: the state that it came from may be donated, and so may this one.
    return stacked._replace(key=stacked.key[0]) if shared_key else stacked


def take_state(states: TrainState, model: int) -> TrainState:
    """Return the state of one model of a population, as it would be alone.

    Args:
      states: of `stack_states` or of a population's step.
      model: its index; negative ones count from the end.

    Returns:
      A TrainState for `make_train_step`.

    Raises:
      IndexError: there is no such model.

    Memory: a copy of the model's state.

    Example:
      >>> import jax, optax, jax.numpy as jnp
      >>> alone = TrainState.create(
      ...     {"w": jnp.ones(3)}, {}, optax.adam(0.1), key=jax.random.key(0))
      >>> states = stack_states([alone, alone], shared_key=True)
      >>> print(take_state(states, 1).params["w"])
      [1. 1. 1.]
    """
    num_models = states.step.shape[0]
    if not -num_models <= model < num_models:
        # An index beyond the end would quietly give the last model.
        must, got = f"be an index into {num_models} models", f"{model}"
        remedy = f"Use 0 to {num_models - 1}."
        raise IndexError(_checks.text("take_state", "model", must, got, remedy))
    # A copy of a shared key too: either state may be donated.
    key = jnp.array(states.key) if states.key.ndim == 0 else states.key[model]
    taken = jax.tree.map(lambda x: x[model], states._replace(key=None))
    return taken._replace(key=key)


def _num_models(states: TrainState, hyper: Any) -> int:
    """Return how many models the states and the hyper-parameters are of."""
    if states.step.ndim != 1:
        must, got = "be of a population", f"a step of shape {states.step.shape}"
        remedy = "Use stack_states([...])."
        raise ValueError(_checks.text("population", "states", must, got, remedy))
    num_models = states.step.shape[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(hyper):
        if jnp.shape(leaf)[:1] != (num_models,):
            must = f"have one entry for each of the {num_models} models"
            got = f"shape {jnp.shape(leaf)} at {jax.tree_util.keystr(path)}"
            remedy = "Use an array [models] for each hyper-parameter."
            raise ValueError(_checks.text("population", "hyper", must, got, remedy))
    return num_models
