"""The computations of a sweep: all its models in one compiled step.

Models of one seed have the same batches and the same random changes, as `train` would
give them with that seed, and so share what is made of these alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

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

# Larger images are computed one model at a time, see the option `--together`.
_TOGETHER, _TINY_SIDE = 16, 16


class SweepProgram:
    """States and compiled steps of all models of a sweep.

    A state has [seeds, points, ...] leaves and one key a seed.

    Args:
      prepared: the first model, as `train` would train it.
      grid: the models.
      together: how many are computed at once; None for the default of the data.

    Attributes:
      programs: what `train` would compute, one a seed.
      together: as above, filled in.

    Raises:
      UsageError: a batch cannot be made with a seed.

    Memory: the training data, and the state of every model.
    """

    def __init__(self, prepared: Prepared, grid: Grid, together: int | None):
        self._prepared, self._grid = prepared, grid
        split, first = prepared.split, prepared.program
        if together is None:
            is_large = max(split.input_shape[:-1], default=0) > _TINY_SIDE
            together = 1 if is_large and first.model["kind"] == "conv" else _TOGETHER
        self.together = together
        self.programs = [self._of_seed(seed) for seed in grid.seeds]
        rates = [point.learning_rate for point in grid.points]
        hyper = {
            name: jnp.asarray([p.hyper[name] for p in grid.points], jnp.float32)
            for name in grid.varied
        }
        self._hyper = {"learning_rate": jnp.asarray(rates, jnp.float32), "loss": hyper}

    @property
    def total_steps(self) -> int:
        """Steps of each model."""
        return self.programs[0].total_steps

    def phase_at(self, step: int) -> Phase:
        """Return the phase that takes the step with this number, from 0."""
        return self.programs[0].phase_at(step)

    def initial_state(self) -> TrainState:
        """Return the state before the first step."""
        return self._stacked([program.initial_state() for program in self.programs])

    def switch(self, states: TrainState, phase: Phase) -> TrainState:
        """Return the state with which a phase begins, see `Program.switch`."""
        switched = []
        for i, program in enumerate(self.programs):
            of_seed = jax.tree.map(lambda x, i=i: x[i], states)
            key = of_seed.key

            def begin(
                state: TrainState, program: Program = program, key: Any = key
            ) -> TrainState:
                state = program.switch(state._replace(key=key), phase)
                return state._replace(key=None)

            switched.append(jax.vmap(begin)(of_seed._replace(key=None)))
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *switched)
        return stacked._replace(key=states.key)

    def state_of(self, states: TrainState, model: int) -> TrainState:
        """Return the state of a model, as `train` would have it."""
        seed, point = divmod(model, len(self._grid.points))
        of_seed = jax.tree.map(lambda x: x[seed], states)
        return jm.training.take_state(of_seed, point)

    def batch(self, step: int) -> np.ndarray:
        """Return the [seeds, batch] row ids of the batches of a step."""
        return np.stack([program.batch(step) for program in self.programs])

    def trace(self, phase: Phase) -> Any:
        """Trace the step of a phase, so that mistakes show before anything runs.

        Raises:
          UsageError: the options do not fit together, or a number of the loss cannot
            be varied in one program.
        """
        step = jax.jit(self._step(phase), donate_argnums=0)
        states = jax.eval_shape(lambda: self.switch(self.initial_state(), phase))
        with told_as_usage():
            try:
                return step.trace(
                    states, self._hyper, *self.programs[0].data, self.batch(0)
                )
            except jax.errors.ConcretizationTypeError as error:
                raise UsageError(
                    f"the loss {phase.loss.name} must know one of "
                    f"{', '.join(self._grid.varied)} when it is compiled, so it cannot "
                    "be varied here. Train one model a value."
                ) from error

    def compile(self, traced: Any) -> SweepStep:
        """Compile what was traced: (states, rows) -> (states, metrics).

        The states that are passed are donated. The metrics are one float32 array
        [seeds, points, len(METRICS)].
        """
        compiled, data = traced.lower().compile(), self.programs[0].data
        return lambda states, rows: compiled(states, self._hyper, *data, rows)

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

    def _stacked(self, states: list[TrainState]) -> TrainState:
        """Return [seeds, points, ...] states of one state a seed."""
        number = len(self._grid.points)

        def spread(*leaves: jax.Array) -> jax.Array:
            stacked = jnp.stack(leaves)
            shape = (len(leaves), number, *stacked.shape[1:])
            return jnp.broadcast_to(stacked[:, None], shape)

        spread_states = jax.tree.map(spread, *(s._replace(key=None) for s in states))
        return spread_states._replace(key=jnp.stack([s.key for s in states]))

    def _step(self, phase: Phase) -> Callable[..., Any]:
        """Return the function that trains all models on the batches of their seeds."""
        first, num_points = self.programs[0], len(self._grid.points)
        num_seeds = len(self.programs)
        embed_fn = side_by_side(first.model, first.embed_fn)
        is_whole = num_seeds * num_points <= self.together
        step = jm.training.population(
            augmented(embed_fn, first.options.augment),
            _loss_fn(phase.loss, is_varied=phase.name == "metric"),
            lambda hyper: _optimizer(first, phase, hyper["learning_rate"]),
            group_size=None if is_whole else min(self.together, num_points),
        )

        def sweep_step(
            states: TrainState, hyper: Any, inputs: jax.Array, labels: Any, rows: Any
        ) -> tuple[TrainState, jax.Array]:
            def of_seed(seed: tuple) -> tuple[TrainState, jax.Array]:
                states, rows = seed
                # Row ids are ids, as in `train`.
                batch = (inputs[rows], labels[rows], rows)
                states, metrics = step(states, batch, hyper)
                return states, jnp.stack([metrics[name] for name in METRICS], -1)

            if num_seeds == 1:
                alone = of_seed(jax.tree.map(lambda x: x[0], (states, rows)))
                return jax.tree.map(lambda x: x[None], alone)
            if is_whole:
                return jax.vmap(lambda *seed: of_seed(seed))(states, rows)
            return lax.map(of_seed, (states, rows))

        return sweep_step


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
