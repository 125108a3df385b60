"""Classes held out: disjoint, complete, of the right number, always the same."""

import numpy as np
import pytest

from jaxmetric.data import hold_out_classes


@pytest.mark.parametrize(
    ("num_classes", "fraction", "expected"),
    [
        (10, 0.2, 2),
        (964, 0.2, 193),
        (4, 0.01, 2),
        (4, 0.9, 2),
        (5, 0.9, 3),
        (3, 0.2, 1),
    ],
)
def test_the_share_is_rounded_and_both_sides_keep_two(num_classes, fraction, expected):
    labels = np.repeat(np.arange(num_classes), 3)
    train, held_out = hold_out_classes(labels, fraction=fraction)
    assert len(held_out) == expected
    assert sorted([*train, *held_out]) == list(range(num_classes))


def test_sorted_int32_of_the_values_that_occur():
    labels = np.array([9, -4, 100, 9, 33, 2, 2], np.int64)
    train, held_out = hold_out_classes(labels)
    for part in (train, held_out):
        assert part.dtype == np.int32
        assert (np.diff(part) > 0).all()
    assert set(train) | set(held_out) == {9, -4, 100, 33, 2}


def test_a_function_of_the_seed_and_the_classes_alone():
    labels = np.arange(50)
    first = hold_out_classes(labels)[1]
    shuffled = np.tile(labels[::-1], 3)
    assert (hold_out_classes(shuffled)[1] == first).all()
    assert (hold_out_classes(labels, seed=1)[1] != first).any()
    # The split of a published run must be the split of any other machine.
    assert first.tolist() == [0, 1, 2, 9, 11, 17, 20, 21, 38, 43]


@pytest.mark.parametrize(
    ("labels", "fraction", "text"),
    [
        (
            [0, 1, 1],
            0.2,
            "hold_out_classes: `labels` must have at least 3 classes, got 2. "
            "Give more classes, or other data to evaluate on.",
        ),
        (
            [0, 1, 2, 3],
            float("nan"),
            "hold_out_classes: `fraction` must be in (0, 1), got nan. Use 0.2.",
        ),
        (
            [0, 1, 2, 3],
            1.0,
            "hold_out_classes: `fraction` must be in (0, 1), got 1.0. Use 0.2.",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(labels, fraction, text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        hold_out_classes(np.array(labels), fraction=fraction)
    assert str(caught.value) == text
