"""Optimisers by name, with the schedule of their learning rate."""

import optax

from jaxmetric.cli.options import OptimizationOptions


def make_optimizer(
    options: OptimizationOptions, num_steps: int
) -> optax.GradientTransformation:
    """Return the optimiser for a phase of so many steps."""
    peak = options.learning_rate
    assert peak is not None
    schedules = {
        "cosine": optax.cosine_decay_schedule(peak, max(num_steps, 1)),
        "linear": optax.linear_schedule(peak, 0.0, max(num_steps, 1)),
        "constant": optax.constant_schedule(peak),
    }
    schedule = schedules[options.schedule]
    if options.optimizer == "sgd":
        return optax.sgd(schedule, momentum=0.9)
    if options.optimizer == "adamw":
        return optax.adamw(schedule, weight_decay=1e-4)
    return optax.adam(schedule)
