"""Each loss trains: five seeds on digits and on a toy set, 200 steps, one bar for all.

`training_runs.py` says what the two sets, the encoder and the protocol are,
`training_settings.py` what each loss is given; `python -m tests.training_table` prints
the numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmetric as jm
from tests import training_runs, training_settings
from tests.training_runs import digits, measure, toy, train, untrained
from tests.training_settings import setting
from tests.training_table import MAP_AT_R, PRECISION

NAMES = training_settings.names()
# By how much MAP@R has to rise in every seed, of whatever loss.
GAIN = 0.05
each_loss = pytest.mark.parametrize("name", NAMES)


def test_no_loss_is_left_out():
    assert set(NAMES) == {n for n in jm.losses.__all__ if n.endswith("_loss")}
    for name in NAMES:
        setting(name)  # raises for a loss that nobody said how to train
    assert set(training_settings._OWN) <= set(NAMES)


@pytest.mark.slow
def test_one_loss_trains():
    data = digits(2, num_steps=60)
    before = untrained(data, "unit")[MAP_AT_R]
    params, losses = train("contrastive_loss", data)
    assert (measure("contrastive_loss", params, data)[MAP_AT_R] > before + 0.2).all()
    assert (losses[:, -1] < losses[:, 0]).all()


@pytest.mark.slow
@each_loss
def test_each_seed_ends_above_the_untrained_network_on_held_out_digits(name):
    own = setting(name)
    data = digits(with_views=own.with_views)
    before = untrained(data, own.ending)[MAP_AT_R]
    after = measure(name, train(name, data)[0], data)[MAP_AT_R]
    assert (after > before + GAIN).all(), (before, after)


@pytest.mark.slow
@each_loss
def test_each_seed_comes_from_chance_to_precision_at_1_of_95_percent(name):
    own = setting(name)
    data = toy(with_views=own.with_views)
    assert (untrained(data, own.ending)[PRECISION] < 0.25).all()  # chance is 0.1
    after = measure(name, train(name, data)[0], data)[PRECISION]
    assert (after >= 0.95).all(), after


def _spread(params, data, ending):
    """Return [seeds] mean squared distances of held-out rows to their class's mean."""

    def one(params, rows, labels):
        x = training_runs.embed(params, rows, ending)
        is_class = jax.nn.one_hot(labels, training_settings.NUM_CLASSES)
        means = (is_class.T @ x) / jnp.sum(is_class, 0)[:, None]
        return jnp.mean(jnp.sum((x - means[labels]) ** 2, -1))

    return np.asarray(jax.vmap(one)(params, data.held_out, data.held_out_labels))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("center_loss", training_settings.with_softmax(0.0)),
        ("intra_pair_variance_loss", training_settings.with_tuplets(0.0)),
    ],
)
def test_a_loss_that_is_added_to_another_draws_classes_together(name, without):
    data = digits()
    ending = setting(name).ending
    alone, _ = train(name, data, loss_fn=without)
    added, _ = train(name, data)
    assert (_spread(added, data, ending) < _spread(alone, data, ending)).all()
