"""Random triplets: valid, uniform, and a pure function of the arguments."""

import numpy as np
import pytest

import jaxmetric as jm
from jaxmetric.data import random_triplets

LABELS = np.array([5, 1, 5, 2, 1, 5, 3])


def test_every_triplet_is_valid():
    triplets = random_triplets(LABELS, num_triplets=5000)
    assert triplets.shape == (5000, 3)
    assert triplets.dtype == np.int32
    a, p, n = triplets.T
    assert (a != p).all()
    assert (LABELS[a] == LABELS[p]).all()
    assert (LABELS[a] != LABELS[n]).all()


def test_anchors_positives_and_negatives_are_uniform():
    a, p, n = random_triplets(LABELS, num_triplets=40_000, seed=3).T
    # Anchors: the rows of classes 5 and 1. Five standard deviations of a binomial.
    assert set(a) == {0, 1, 2, 4, 5}
    counts = np.bincount(a, minlength=7)[[0, 1, 2, 4, 5]]
    assert abs(counts - 8000).max() < 5 * np.sqrt(40_000 * 0.2 * 0.8)
    positives = np.bincount(p[a == 0], minlength=7)
    assert set(np.flatnonzero(positives)) == {2, 5}
    assert abs(positives[2] - positives[5]) < 5 * np.sqrt(counts[0])
    negatives = np.bincount(n[a == 1], minlength=7)
    assert set(np.flatnonzero(negatives)) == {0, 2, 3, 5, 6}
    assert abs(negatives[negatives > 0] - counts[1] / 5).max() < 5 * np.sqrt(
        counts[1] * 0.2 * 0.8
    )


def test_the_same_arguments_give_the_same_triplets():
    first = random_triplets(LABELS, num_triplets=20, seed=1, epoch=2)
    again = random_triplets(LABELS, num_triplets=20, seed=1, epoch=2)
    assert (first == again).all()
    for change in ({"seed": 2}, {"epoch": 3}):
        arguments = {"seed": 1, "epoch": 2} | change
        assert (random_triplets(LABELS, num_triplets=20, **arguments) != first).any()


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [4]])
def test_labels_without_a_triplet_are_refused(labels):
    with pytest.raises(ValueError, match="must have two classes, one of them with two"):
        random_triplets(np.array(labels), num_triplets=3)


def test_a_number_of_triplets_below_one_is_refused():
    with pytest.raises(ValueError, match="`num_triplets` must be at least 1, got 0"):
        random_triplets(LABELS, num_triplets=0)


SCORED = np.array([[0, 1], [0, 2], [3, 4], [5, 0], [1, 6], [2, 2]])
SCORES = np.array([5.0, 1.0, 4.0, 2.5, 0.0, 5.0])


def test_score_triplets_keep_their_promise():
    drawn = jm.data.score_triplets(
        SCORED, SCORES, num_triplets=400, above=4, below=2, seed=3
    )
    assert drawn.shape == (400, 3)
    assert drawn.dtype == np.int32
    found = {tuple(row) for row in drawn.tolist()}
    # Only two pairs are alike; item 2 with itself is none.
    assert {row[:2] for row in found} == {(0, 1), (1, 0), (3, 4), (4, 3)}
    # The far partners where there are some, else all but the near ones.
    assert {row[2] for row in found if row[0] == 0} == {2}
    assert {row[2] for row in found if row[0] == 1} == {6}
    assert {row[2] for row in found if row[0] == 3} == {0, 1, 2, 5, 6}


def test_score_triplets_are_a_function_of_seed_and_epoch():
    def draw(**options):
        named = {"num_triplets": 50, "above": 4.0, "below": 2.0} | options
        return jm.data.score_triplets(SCORED, SCORES, **named)

    assert (draw() == draw()).all()
    assert not (draw() == draw(epoch=1)).all()
    assert not (draw() == draw(seed=1)).all()


@pytest.mark.parametrize(
    ("pairs", "scores", "options", "text"),
    [
        (SCORED, SCORES, {"above": 6.0}, "`above` must be at most the greatest"),
        (SCORED, SCORES, {"below": 4.0}, "`below` must be less than `above`"),
        (SCORED, SCORES[:2], {}, "`scores` must be 6 finite numbers"),
        (SCORED, SCORES * np.nan, {}, "`scores` must be 6 finite numbers"),
        (SCORED - 1, SCORES, {}, "`pairs` must be"),
        (SCORED[:, :1], SCORES, {}, "`pairs` must be"),
        (SCORED, SCORES, {"num_triplets": 0}, "`num_triplets` must be at least 1"),
        (np.array([[0, 1]]), np.array([5.0]), {}, "must leave item 0 a negative"),
    ],
)
def test_mistakes_of_score_triplets_are_told(pairs, scores, options, text):
    named = {"num_triplets": 5, "above": 4.0, "below": 2.0} | options
    with pytest.raises(ValueError, match=text):
        jm.data.score_triplets(pairs, scores, **named)
