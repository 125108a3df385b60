"""Equidistant triplets: values by hand, and how the negatives are spread."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import PRINTED, SAME

import jaxmetric as jm

F1 = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
PAIRS = jnp.array([0, 0, 1, 1])

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


def test_values_by_hand():
    x = jnp.asarray(F1)
    assert losses.equidistant_triplet_loss(x, PAIRS, margin=2.0) == (2 + 2 + 8 + 8) / 4
    # Half of what the difference of the far sides costs: 1, 1, 4 and 4.
    half = losses.equidistant_triplet_loss(
        x, PAIRS, margin=2.0, equidistant_weight=0.5, reduction="none"
    )
    assert half.total.tolist() == [1.5, 1.5, 6, 6]


def test_how_near_and_how_unevenly_spread_negatives_are():
    """Nearest negatives 2, 2, 1, 1 (at 3, 2, 2, 6), theirs 1, 1, 2, 2 (all at 2)."""
    x = jnp.asarray(F1)

    def loss(weight):
        return losses.equidistant_triplet_loss(
            x, PAIRS, margin=2.0, equidistributed_weight=weight
        )

    spread = [math.exp(-d) + d - 2 for d in (3, 2, 2, 6)]
    assert loss(0.5) == pytest.approx(5 + 0.5 * sum(spread) / 4, rel=1e-6)
    # A weight that arrives as an array is not looked at, and 0 all the same.
    assert loss(jnp.array(0.0)) == 5


def test_a_row_without_another_of_its_class_does_not_count():
    """The authors' code takes the row itself for its positive (defect 41)."""
    x = jax.random.normal(jax.random.key(0), (4, 3))
    stats = losses.equidistant_triplet_loss(
        x, jnp.array([0, 0, 1, 2]), equidistributed_weight=1.0, reduction="none"
    )
    assert stats.num_terms.tolist() == [1, 1, 0, 0]
    one_class = losses.equidistant_triplet_loss(x, jnp.zeros(4, jnp.int32))
    assert one_class == 0


def test_sides_of_equal_length_have_no_gradient_between_them():
    """All rows equal: two margins, nothing of the difference."""
    x = jnp.full((4, 2), 0.3)
    value, grad = jax.value_and_grad(
        lambda x: losses.equidistant_triplet_loss(x, PAIRS)
    )(x)
    assert value == pytest.approx(2 * 0.3, rel=PRINTED["float32"])
    assert not grad.any()


def test_a_negative_whose_nearest_is_the_anchor_is_evenly_spread():
    """Both sides of the difference are one distance then."""
    x = jax.random.normal(jax.random.key(1), (3, 40))
    y = jnp.array([0, 0, 1])

    d = jm.pairwise_distance(x)
    # The nearer of rows 0 and 1 to row 2 is nearest to it, the other is not.
    uneven = jnp.abs(d[0, 2] - d[1, 2]) / 2
    want = (jnp.exp(-d[0, 2]) + jnp.exp(-d[1, 2])) / 2 + uneven
    spread = losses.equidistant_triplet_loss(x, y, equidistributed_weight=1.0)
    spread -= losses.equidistant_triplet_loss(x, y)
    assert spread == pytest.approx(float(want), rel=1e-5)


def test_the_loss_scales_with_rows_and_margin():
    x = jax.random.normal(jax.random.key(2), (6, 3))
    y = jnp.array([0, 0, 1, 1, 2, 2])
    one = losses.equidistant_triplet_loss(x, y, margin=0.5)
    four = losses.equidistant_triplet_loss(4 * x, y, margin=2.0)
    assert four == pytest.approx(4 * float(one), rel=SAME["float32"])


def test_spread_negatives_need_classes():
    is_same = PAIRS[:, None] == PAIRS[None, :]
    relation, x = jm.Relation(is_same, ~is_same), jnp.asarray(F1)
    with pytest.raises(TypeError, match="got a Relation"):
        losses.equidistant_triplet_loss(x, relation, equidistributed_weight=1.0)
    assert losses.equidistant_triplet_loss(x, relation, margin=2.0) == 5
