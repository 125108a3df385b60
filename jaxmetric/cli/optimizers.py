"""Optimisers by name, with the schedule of their learning rate."""

import optax

from jaxmetric.cli.options import OptimizationOptions

# Steps in which the learning rate rises from 0, and their greatest share of a phase:
# mined triplets pull everything together if the first steps are large.
_RISE, _RISE_SHARE = 100, 0.1
# Proxies see their class once an epoch, and learn so many times faster for it.
_PROXY_RATE = 10.0


def make_optimizer(
    options: OptimizationOptions, num_steps: int
) -> optax.GradientTransformation:
    """Return the optimiser for a phase of so many steps."""
    peak = options.learning_rate
    assert peak is not None
    rise = min(_RISE, int(_RISE_SHARE * num_steps))
    rest = max(num_steps - rise, 1)
    after = {
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "constant": optax.constant_schedule(peak),
    }[options.schedule]
    schedule = optax.join_schedules(
        [optax.linear_schedule(0.0, peak, rise), after], [rise]
    )
    if options.optimizer == "sgd":
        optimizer = optax.sgd(schedule, momentum=0.9)
    elif options.optimizer == "adamw":
        optimizer = optax.adamw(schedule, weight_decay=1e-4)
    else:
        optimizer = optax.adam(schedule)
    is_proxies = {"params": False, "loss_params": True}
    return optax.chain(optimizer, optax.masked(optax.scale(_PROXY_RATE), is_proxies))
