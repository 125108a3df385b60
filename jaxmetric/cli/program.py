"""The computations of a run: phases, their states, and the step that is compiled once.

A run has one phase or two: softmax training against one learned proxy a class
(`--warmup-epochs`), then the loss. At the switch the encoder goes on and everything
else starts afresh: the proxies are dropped, the optimiser and its schedule begin anew.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmetric as jm
from jaxmetric.cli.collapse import CollapseWatch
from jaxmetric.cli.devices import ONE, Devices
from jaxmetric.cli.losses import Loss, resolve
from jaxmetric.cli.optimizers import make_optimizer
from jaxmetric.cli.options import AugmentOptions, TrainOptions
from jaxmetric.training import EmbedFn, TrainState

# What `make_train_step` reports, in the order in which a compiled step returns it.
METRICS = (
    "loss",
    "active_fraction",
    "positive_distance",
    "negative_distance",
    "embedding_norm",
    "grad_norm",
    "skipped",
)

StepFn = Callable[..., tuple[TrainState, jax.Array]]
_HostStepFn = Callable[[TrainState, np.ndarray, bool], tuple[TrainState, jax.Array]]


class Phase(NamedTuple):
    """A stretch of steps with one loss and one optimiser.

    Attributes:
      name: "softmax" or "metric".
      loss: what is minimised.
      start, stop: steps of the run, from 0.
      optimizer: with a schedule over these steps.
    """

    name: str
    loss: Loss
    start: int
    stop: int
    optimizer: optax.GradientTransformation


class Program:
    """States and compiled functions of a run, made of its options and its data.

    Args:
      options: filled in.
      loss: the one of the options, resolved.
      train: what is trained on, a `Dataset` or what a subclass takes.
      sampler: which rows make a batch, a `ClassSampler` or the like.
      devices: what it is computed on.
      data: `train` on the device, from another program; None puts it there.
      start: a function (params, model_state) -> the same with which training begins.

    Attributes:
      devices: as given.
      data: [n, ...] inputs and [n] labels on each device.
      embed_fn: of raw inputs, without augmentation.
      phases: first to last.
      total_steps: of all phases.

    Raises:
      ValueError, TypeError: the model cannot be built of the options.

    Memory: the training data on each device, as it is (images as bytes).
    """

    def __init__(
        self,
        options: TrainOptions,
        loss: Loss,
        train: Any,
        sampler: Any,
        *,
        devices: Devices = ONE,
        data: tuple[Any, Any] | None = None,
        start: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    ):
        self.options, self.sampler, self.devices = options, sampler, devices
        self.num_classes = train.num_classes
        self.model = encoder_config(options)
        self.embed_fn, self._params, self._model_state = jm.training.build_encoder(
            self.model, seed=options.run.seed
        )
        if start is not None:
            self._params, self._model_state = start(self._params, self._model_state)
        self.phases = _phases(options, loss, sampler.steps_per_epoch)
        self.total_steps = self.phases[-1].stop
        if data is None:
            data = self._placed(train)
        self.data = data
        self._traced: dict[str, Any] = {}

    def phase_at(self, step: int) -> Phase:
        """Return the phase that takes the step with this number, from 0."""
        return next((p for p in self.phases if step < p.stop), self.phases[-1])

    def initial_state(self) -> TrainState:
        """Return the state before the first step."""
        key = jax.random.key(self.options.run.seed)
        state = self._start(self.phases[0], self._params, self._model_state, key)
        return self.devices.copied(state)

    def switch(self, state: TrainState, phase: Phase) -> TrainState:
        """Return the state with which a phase begins: the encoder and the counters."""
        state = self.devices.local(state)
        fresh = self._start(phase, state.params, state.model_state, state.key)
        fresh = fresh._replace(step=state.step, skipped=state.skipped)
        return self.devices.copied(fresh)

    def state_like(self, step: int) -> TrainState:
        """Return a state of the structure of that after a step, without numbers."""

        def start() -> TrainState:
            key = jax.random.key(0)
            return self._start(
                self.phase_at(step), self._params, self._model_state, key
            )

        return jax.eval_shape(start)

    def trace(self) -> None:
        """Trace the step of every phase, so that mistakes show before anything runs.

        Raises:
          ValueError, TypeError: the options do not fit together.
        """
        placed: dict[str, Any] = {}
        if self.devices.mesh is not None:
            alike, by_rows = self.devices.alike(), self.devices.by_rows()
            placed["in_shardings"] = (alike, alike, alike, by_rows, by_rows)
            placed["out_shardings"] = alike
        for phase in self.phases:
            step = jax.jit(self._step(phase), donate_argnums=0, **placed)
            state = self.state_like(phase.start)
            arguments = (state, *self.data, self.batch(0))
            if self.devices.mesh is not None:
                spread = self.devices.spread
                rows, wishes = spread(self.batch(0)), spread(self._wishes(False))
                arguments = (state, *self.data, rows, wishes)
            self._traced[phase.name] = step.trace(*arguments)

    def compile(self, phase: Phase) -> _HostStepFn:
        """Compile the traced step of a phase: (state, rows, wish) -> (state, metrics).

        The state that is passed is donated: it is gone after the call. The metrics are
        one float32 array, see `named_metrics` and `is_wished`. The compiled program
        takes these shapes and no others, so there is one compilation a phase by
        construction.
        """
        compiled = self._traced[phase.name].lower().compile()
        if self.devices.mesh is None:
            return lambda state, rows, wish: compiled(state, *self.data, rows)
        spread = self.devices.spread

        def step(
            state: TrainState, rows: np.ndarray, wish: bool
        ) -> tuple[TrainState, jax.Array]:
            wishes = spread(self._wishes(wish))
            return compiled(state, *self.data, spread(rows), wishes)

        return step

    def watch(self, phase: Phase) -> CollapseWatch:
        """Return what notices a collapse in a phase."""
        labels = self.sampler.labels[self.batch(0)]
        return CollapseWatch(phase.loss, labels, self.num_classes, self.model["dim"])

    def batch(self, step: int) -> np.ndarray:
        """Return the row ids of the batch of a step of the run."""
        return self.sampler.batch(*divmod(step, self.sampler.steps_per_epoch))

    def _step(self, phase: Phase) -> StepFn:
        """Return the function that gathers rows and trains on them."""
        embed_fn = augmented(self.embed_fn, self.options.augment)
        step = jm.training.make_train_step(
            embed_fn, phase.loss.loss_fn(self.devices.mesh), phase.optimizer
        )

        def train_step(
            state: TrainState,
            inputs: Any,
            labels: Any,
            rows: jax.Array,
            wishes: jax.Array | None = None,
        ) -> tuple[TrainState, jax.Array]:
            inputs, labels = jax.tree.map(lambda x: x[rows], (inputs, labels))
            # Row ids are ids: a row that a small class repeats is not its own positive.
            state, metrics = step(state, (inputs, labels, rows))
            told = [metrics[name] for name in METRICS]
            if wishes is not None:
                told.append(jnp.max(wishes))
            # One array comes to the host in one piece.
            return state, jnp.stack(told)

        return train_step

    def _placed(self, train: Any) -> tuple[Any, Any]:
        """Return the training data on each device."""
        if self.devices.mesh is None:
            return jnp.asarray(train.inputs), jnp.asarray(train.labels)
        return self.devices.copied((train.inputs, train.labels))

    def _wishes(self, wish: bool) -> np.ndarray:
        """Return [devices] whether to end; of these each process gives its own."""
        return np.full(self.devices.count, wish, np.float32)

    def _start(
        self, phase: Phase, params: Any, model_state: Any, key: jax.Array
    ) -> TrainState:
        """Return a state at step 0 for the loss and optimiser of a phase."""
        loss_params = phase.loss.learned()
        if phase.loss.has_proxies:
            loss_params["proxies"] = self._proxies(phase)
        return TrainState.create(
            params, model_state, phase.optimizer, key=key, loss_params=loss_params
        )

    def _proxies(self, phase: Phase) -> jax.Array:
        """Return the initial proxies of a phase, a function of the seed."""
        from flax import nnx

        # A stream of its own: the encoder has taken its parameters from the seed.
        rngs = nnx.Rngs(jax.random.fold_in(jax.random.key(self.options.run.seed), 1))
        head = jm.models.ProxyHead(
            self.num_classes,
            self.model["dim"],
            num_centers=phase.loss.num_centers,
            rngs=rngs,
        )
        return head.proxies[...]


def encoder_config(options: TrainOptions) -> dict[str, Any]:
    """Return the section `model` of a configuration, for `jaxmetric.models.build`."""
    section: dict[str, Any] = {}
    for field in dataclasses.fields(options.model):
        name = field.name
        value = getattr(options.model, name)
        if value is not None:
            section[name] = list(value) if isinstance(value, tuple) else value
    return section


def augmented(embed_fn: EmbedFn, options: AugmentOptions) -> EmbedFn:
    """Return an encoder that changes images at random in training."""
    ranges = {
        name: getattr(options, name) or 0.0 for name in ("shift", "rotation", "scale")
    }
    if not options.enabled or not any(ranges.values()):
        return embed_fn

    def embed_augmented(
        params: Any,
        model_state: Any,
        inputs: Any,
        *,
        key: jax.Array | None,
        train: bool,
    ) -> tuple[Any, Any]:
        if train:
            assert key is not None
            key, augment_key = jax.random.split(key)
            inputs = _changed(augment_key, inputs, ranges)
        return embed_fn(params, model_state, inputs, key=key, train=train)

    return embed_augmented


def _changed(key: jax.Array, inputs: Any, ranges: dict[str, float]) -> Any:
    """Return images changed at random, of two sides each that holds images."""
    if isinstance(inputs, tuple):
        keys = jax.random.split(key, len(inputs))
        sides = zip(keys, inputs, strict=True)
        return tuple(_changed(k, x, ranges) if x.ndim == 4 else x for k, x in sides)
    return jm.data.augment(key, jm.data.to_float(inputs), **ranges)


def named_metrics(values: np.ndarray) -> dict[str, float]:
    """Return what a compiled step reports, by name."""
    return dict(zip(METRICS, values[: len(METRICS)].tolist(), strict=True))


def is_wished(values: np.ndarray) -> bool:
    """Return whether a process wished to end at the step that reports this."""
    return any(values[len(METRICS) :])


def _phases(options: TrainOptions, loss: Loss, steps_per_epoch: int) -> list[Phase]:
    """Return the phases of a run."""
    optimization = options.optimization
    warmup = (optimization.warmup_epochs or 0) * steps_per_epoch
    steps = optimization.steps
    if steps is None:
        assert optimization.epochs is not None
        steps = optimization.epochs * steps_per_epoch
    plan: list[tuple[str, Loss, int]] = [("metric", loss, steps)]
    if warmup:
        # A softer softmax than the default: it leaves the triplets room to move.
        plan.insert(
            0, ("softmax", resolve("normalized_softmax", {"temperature": 0.1}), warmup)
        )
    phases, start = [], 0
    for name, phase_loss, length in plan:
        optimizer = make_optimizer(optimization, length)
        phases.append(Phase(name, phase_loss, start, start + length, optimizer))
        start += length
    return phases
