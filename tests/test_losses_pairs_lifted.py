"""Lifted structures: whose negatives a positive pair meets."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hand_rows import F1, F4, TRIO, rows

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


def test_both_ends_of_a_lifted_pair_bring_their_negatives_and_margin():
    """Row 1 has no negative of its own: its only one is the same sample."""
    x, labels, ids = rows([[0.0], [1.0], [3.0]]), [0, 0, 1], [0, 1, 1]
    stats = losses.lifted_structure_loss(
        x, labels, ids=ids, margin=jnp.array([3.0, 9.0, 9.0]), reduction="none"
    )
    # Both ordered pairs know of the negative of row 0 alone, at 3, with its margin.
    assert stats.num_terms.tolist() == [1, 1, 0]
    np.testing.assert_allclose(stats.total, [(3 - 3 + 1) ** 2 / 2] * 2 + [0])
    # Without ids the ends have 3 - 3 and 9 - 2.
    stats = losses.lifted_structure_loss(
        x, labels, margin=jnp.array([3.0, 9.0, 9.0]), reduction="none"
    )
    want = (math.log(1 + math.exp(7)) + 1) ** 2 / 2
    np.testing.assert_allclose(stats.total, [want, want, 0], rtol=1e-6)


def test_a_lifted_pair_without_any_negative_is_not_counted():
    """TF-Addons multiplies log 0 by 0 and divides 0 by 0 (defect 28)."""
    for labels in ([0, 0, 0, 0], [0, 1, 2, 3]):
        stats = losses.lifted_structure_loss(rows(F1), labels, reduction="none")
        assert not any(a.any() for a in stats)


def test_lifted_references_have_no_negatives_of_their_own():
    """PML takes the rows of the batch for those of the references (defect 4)."""
    x, refs = rows([[0.0]]), rows([[1.0], [3.0], [5.0]])
    loss = losses.lifted_structure_loss(
        x, [0], margin=3.0, ref_embeddings=refs, ref_labels=[0, 1, 1]
    )
    level = math.log(1 + math.exp(-2))
    assert loss == pytest.approx((level + 1) ** 2 / 2)


def test_a_lone_row_is_no_term_of_the_generalized_loss():
    """PML sets its positives' logsumexp to 0, so that it repels (defect 12)."""
    stats = losses.generalized_lifted_structure_loss(
        rows(F4), TRIO, margin=3.0, reduction="none"
    )
    assert stats.total[2] == 0
    assert stats.num_terms.tolist() == [1, 1, 0]


def test_one_candidate_of_each_kind_makes_the_generalized_loss_batch_hard():
    x = rows([[0.0], [1.0], [1.5]])
    soft = losses.generalized_lifted_structure_loss(x, TRIO, margin=1.0)
    # Row 0 has one positive and one negative, and so has row 1.
    assert soft == losses.batch_hard_triplet_loss(x, TRIO, margin=1.0)
