"""Interactions set aside: some of every user, nothing of them left to train on."""

import numpy as np
import pytest

from jaxmetric import data


def interactions(seed=0, n=200):
    """Few items of many users, so that many come again; some users have one."""
    random = np.random.default_rng(seed)
    users = np.concatenate([random.integers(0, 20, n), [50, 60]])
    items = np.concatenate([random.integers(0, 15, n), [3, 3]])
    return users, items


@pytest.mark.parametrize("order", ["random", "last"])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.99])
def test_of_every_user_some_are_held_out_and_some_are_left(order, fraction):
    users, items = interactions()
    train, held_out = data.hold_out_interactions(
        users, items, fraction=fraction, order=order
    )
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()
    pairs = [set(zip(users[r], items[r], strict=True)) for r in (train, held_out)]
    assert not pairs[0] & pairs[1]
    assert pairs[0] | pairs[1] == set(zip(users, items, strict=True))
    assert len(held_out) == len(pairs[1])
    for user in np.unique(users):
        count = len(set(items[users == user]))
        here = sum(u == user for u, _ in pairs[1])
        assert here == (0 if count == 1 else max(int(fraction * count), 1))


def test_the_last_are_those_met_last():
    users, items = np.array([1, 1, 1, 1, 2, 2]), np.array([5, 6, 7, 5, 5, 6])
    train, held_out = data.hold_out_interactions(
        users, items, fraction=0.4, order="last"
    )
    # User 1 met item 5 again after 6 and 7.
    assert held_out.tolist() == [3, 5]
    assert train.tolist() == [1, 2, 4]


def test_the_seed_chooses_and_names_do_not():
    users, items = interactions()
    one, two, other = (
        data.hold_out_interactions(users + shift, items, seed=seed)[1].tolist()
        for shift, seed in ((0, 1), (1000, 1), (0, 2))
    )
    assert one == two
    assert one != other


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        (([0, 1], [0, 1]), {}, "`items` must be two or more of some user, got one of"),
        (([0, 1], [0]), {}, r"`items` must have the shape of `users`, \(2,\), got \(1"),
        (([0, 0], [0, 1]), {"fraction": 1.0}, r"`fraction` must be in \(0, 1\), got 1"),
        (([0, 0], [0, 1]), {"order": "first"}, "`order` must be 'random' or 'last', g"),
        (([0, 0], [0, 1]), {"seed": -1}, "`seed`"),
    ],
)
def test_bad_calls(arguments, options, text):
    with pytest.raises(ValueError, match=text):
        data.hold_out_interactions(*map(np.array, arguments), **options)
