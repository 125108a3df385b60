"""The computations of a sweep: all its models in one compiled step.

The models are shared out among the devices, of which a CPU has one a core here. Models
of one seed have the same batches and the same random changes, as `train` would give
them with that seed, and so share what is made of these alone.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxmetric as jm
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.losses import Loss
from jaxmetric.cli.optimizers import make_optimizer
from jaxmetric.cli.prepare import Prepared
from jaxmetric.cli.program import METRICS, Phase, Program, augmented
from jaxmetric.cli.split import make_sampler, told_as_usage
from jaxmetric.cli.sweep_encoder import side_by_side
from jaxmetric.cli.sweep_grid import Grid
from jaxmetric.training import TrainState

SweepStep = Callable[[TrainState, np.ndarray], tuple[TrainState, jax.Array]]

# An accelerator wants large operations. A core trains one model after the other faster:
# what a small model computes stays in the cache.
_TOGETHER = {"cpu": 1}
_TOGETHER_ELSEWHERE = 64
_MAX_CORES = 64
_MODELS = "models"


def use_all_cores() -> None:
    """Let JAX see each core as a device, unless it has started or the user chose."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    is_chosen = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not is_chosen and "JAX_NUM_CPU_DEVICES" not in os.environ:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", min(cores, _MAX_CORES))


class SweepProgram:
    """States and compiled steps of all models of a sweep.

    A state has [seeds, points, ...] leaves and one key a seed. The longer of the two
    axes is spread over the devices, after it was filled up with copies of its last
    entry that nobody looks at.

    Args:
      prepared: the first model, as `train` would train it.
      grid: the models.
      together: how many a device computes at once; None for the default of its kind.

    Attributes:
      programs: what `train` would compute, one a seed.
      num_devices: how many share the models.

    Raises:
      UsageError: a batch cannot be made with a seed.

    Memory: the state of every model, and the activations of those that are computed
    together.
    """

    def __init__(self, prepared: Prepared, grid: Grid, together: int | None):
        self._prepared, self._grid = prepared, grid
        self.programs = [self._of_seed(seed) for seed in grid.seeds]
        counts = [len(grid.seeds), len(grid.points)]
        self._axis = int(counts[1] >= counts[0])
        devices = jax.local_devices()
        share = -(-counts[self._axis] // len(devices))
        self.num_devices = -(-counts[self._axis] // share)
        self._mesh = Mesh(np.array(devices[: self.num_devices]), (_MODELS,))
        if together is None:
            together = _TOGETHER.get(devices[0].platform, _TOGETHER_ELSEWHERE)
        self._together = together
        # Entries of both axes, with those that fill up the longer one.
        self._seeds, self._points = (np.arange(count) for count in counts)
        filled = np.minimum(np.arange(share * self.num_devices), counts[self._axis] - 1)
        if self._axis == 1:
            self._points = filled
        else:
            self._seeds = filled
        points = [grid.points[i] for i in self._points]
        hyper = {
            "learning_rate": np.array([p.learning_rate for p in points], np.float32),
            "loss": {
                n: np.array([p.hyper[n] for p in points], np.float32)
                for n in grid.varied
            },
        }
        self._hyper = jax.tree.map(self._put(self._over_points), hyper)

    @property
    def total_steps(self) -> int:
        """Steps of each model."""
        return self.programs[0].total_steps

    def phase_at(self, step: int) -> Phase:
        """Return the phase that takes the step with this number, from 0."""
        return self.programs[0].phase_at(step)

    def initial_state(self) -> TrainState:
        """Return the state before the first step."""
        states = [program.initial_state() for program in self.programs]
        number = len(self._points)

        def spread(*leaves: jax.Array) -> jax.Array:
            stacked = jnp.stack([leaves[i] for i in self._seeds])
            shape = (len(stacked), number, *stacked.shape[1:])
            return jnp.broadcast_to(stacked[:, None], shape)

        spread_states = jax.tree.map(spread, *(s._replace(key=None) for s in states))
        key = jnp.stack([states[i].key for i in self._seeds])
        return self._placed(spread_states._replace(key=key))

    def switch(self, states: TrainState, phase: Phase) -> TrainState:
        """Return the state with which a phase begins, see `Program.switch`."""
        switched = []
        for i, place in enumerate(self._seeds):
            of_seed = jax.tree.map(lambda x, i=i: x[i], states)

            def begin(
                state: TrainState,
                program: Program = self.programs[place],
                key: Any = of_seed.key,
            ) -> TrainState:
                state = program.switch(state._replace(key=key), phase)
                return state._replace(key=None)

            switched.append(jax.vmap(begin)(of_seed._replace(key=None)))
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *switched)
        return self._placed(stacked._replace(key=states.key))

    def state_of(self, states: TrainState, model: int) -> TrainState:
        """Return the state of a model, as `train` would have it."""
        seed, point = divmod(model, len(self._grid.points))
        key = jax.random.key_data(states.key[seed])
        taken = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x)[seed, point]),
            states._replace(key=None),
        )
        # From the host, so that it stands on one device.
        return taken._replace(key=jax.random.wrap_key_data(jnp.asarray(np.array(key))))

    def batch(self, step: int) -> np.ndarray:
        """Return the [seeds, batch] row ids of the batches of a step."""
        rows = [program.batch(step) for program in self.programs]
        return np.stack([rows[i] for i in self._seeds])

    def trace(self, phase: Phase) -> Any:
        """Trace the step of a phase, so that mistakes show before anything runs.

        Raises:
          UsageError: the options do not fit together, or a number of the loss cannot
            be varied in one program.
        """
        states = jax.eval_shape(lambda: self.switch(self.initial_state(), phase))
        state_specs = self._specs(states)
        specs = (state_specs, jax.tree.map(lambda _: self._over_points, self._hyper))
        specs += (self._over_seeds,) * 3
        out_specs = (state_specs, self._over_models)
        shared = jax.shard_map(
            self._step(phase), mesh=self._mesh, in_specs=specs, out_specs=out_specs
        )

        def sweep_step(*arguments: Any) -> Any:
            return shared(*arguments)

        place = partial(NamedSharding, self._mesh)
        step = jax.jit(
            sweep_step,
            donate_argnums=0,
            in_shardings=jax.tree.map(place, specs),
            out_shardings=jax.tree.map(place, out_specs),
        )
        with told_as_usage():
            try:
                return step.trace(states, self._hyper, *self._examples(self.batch(0)))
            except jax.errors.ConcretizationTypeError as error:
                raise UsageError(
                    f"the loss {phase.loss.name} must know one of "
                    f"{', '.join(self._grid.varied)} when it is compiled, so it cannot "
                    "be varied here. Train one model a value."
                ) from error

    def compile(self, traced: Any) -> SweepStep:
        """Compile what was traced: (states, rows) -> (states, metrics).

        The states that are passed are donated. The metrics are one float32 array, see
        `numbers_of`.
        """
        compiled = traced.lower().compile()

        def step(states: TrainState, rows: np.ndarray) -> tuple[TrainState, jax.Array]:
            return compiled(states, self._hyper, *self._examples(rows))

        return step

    def numbers_of(self, leaf: Any) -> np.ndarray:
        """Return [seeds, points, ...] numbers of an array, without what fills up."""
        array = np.asarray(leaf)
        return array[: len(self._grid.seeds), : len(self._grid.points)]

    @property
    def _over_models(self) -> PartitionSpec:
        """How arrays [seeds, points, ...] are spread."""
        return PartitionSpec(*[None] * self._axis, _MODELS)

    @property
    def _over_points(self) -> PartitionSpec:
        """How arrays [points] are spread."""
        return PartitionSpec(_MODELS) if self._axis == 1 else PartitionSpec()

    @property
    def _over_seeds(self) -> PartitionSpec:
        """How arrays [seeds, ...] are spread."""
        return PartitionSpec(_MODELS) if self._axis == 0 else PartitionSpec()

    def _specs(self, states: TrainState) -> TrainState:
        """Return how a state is spread."""
        spread = jax.tree.map(lambda _: self._over_models, states._replace(key=None))
        return spread._replace(key=self._over_seeds)

    def _put(self, spec: PartitionSpec) -> Callable[[Any], jax.Array]:
        """Return the function that spreads an array over the devices."""
        return lambda x: jax.device_put(x, NamedSharding(self._mesh, spec))

    def _placed(self, states: TrainState) -> TrainState:
        """Return states spread over the devices."""
        specs = self._specs(states)
        return jax.tree.map(lambda x, spec: self._put(spec)(x), states, specs)

    def _examples(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return inputs, labels and ids of [seeds, batch] rows."""
        train = self._prepared.split.train
        assert train.labels is not None
        return train.inputs[rows], train.labels[rows], rows

    def _of_seed(self, seed: int) -> Program:
        """Return what `train` computes with a seed, on the data that is there."""
        options, loss = self._prepared.options, self._prepared.loss
        split, first = self._prepared.split, self._prepared.program
        if seed == options.run.seed:
            return first
        run = dataclasses.replace(options.run, seed=seed)
        sampler = make_sampler(
            split.train, options.optimization, seed, has_pairs=not loss.has_proxies
        )
        options = dataclasses.replace(options, run=run)
        return Program(options, loss, split.train, sampler, data=first.data)

    def _step(self, phase: Phase) -> Callable[..., Any]:
        """Return the function that trains the models of one device."""
        first, shape = self.programs[0], [len(self._seeds), len(self._points)]
        shape[self._axis] //= self.num_devices
        num_seeds, num_points = shape
        embed_fn = side_by_side(first.model, first.embed_fn)
        is_whole = num_seeds * num_points <= self._together
        step = jm.training.population(
            augmented(embed_fn, first.options.augment),
            _loss_fn(phase.loss, is_varied=phase.name == "metric"),
            lambda hyper: _optimizer(first, phase, hyper["learning_rate"]),
            group_size=None if is_whole else min(self._together, num_points),
        )

        def train(
            states: TrainState, hyper: Any, inputs: Any, labels: Any, ids: Any
        ) -> tuple[TrainState, jax.Array]:
            def of_seed(seed: tuple) -> tuple[TrainState, jax.Array]:
                # Row ids are ids, as in `train`.
                states, *batch = seed
                states, metrics = step(states, tuple(batch), hyper)
                return states, jnp.stack([metrics[name] for name in METRICS], -1)

            seeds = (states, inputs, labels, ids)
            if num_seeds == 1:
                alone = of_seed(jax.tree.map(lambda x: x[0], seeds))
                return jax.tree.map(lambda x: x[None], alone)
            return (
                jax.vmap(lambda *seed: of_seed(seed))(*seeds)
                if is_whole
                else (lax.map(of_seed, seeds))
            )

        return train


def _loss_fn(loss: Loss, *, is_varied: bool) -> Callable[..., Any]:
    """Return the loss of a model with its own numbers, see `population`."""

    def loss_fn(
        loss_params: Any, embeddings: Any, labels: Any, hyper: Any, ids: Any = None
    ) -> Any:
        # The softmax before the loss has no number that is varied.
        own = {**loss.hyper, **hyper["loss"]} if is_varied else loss.hyper
        return loss._replace(hyper=own).loss_fn()(loss_params, embeddings, labels, ids)

    return loss_fn


def _optimizer(
    program: Program, phase: Phase, learning_rate: Any
) -> optax.GradientTransformation:
    """Return the optimiser of a model with its own learning rate."""
    options = dataclasses.replace(
        program.options.optimization, learning_rate=learning_rate
    )
    return make_optimizer(options, phase.stop - phase.start)
