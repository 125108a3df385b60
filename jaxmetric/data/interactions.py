"""Interactions of users with items: some of each user set aside."""

from typing import Literal

import numpy as np

from jaxmetric.data._words import Stream, check_counter, words

Order = Literal["random", "last"]


def hold_out_interactions(
    users: np.ndarray,
    items: np.ndarray,
    *,
    fraction: float = 0.2,
    order: Order = "random",
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interactions to train on and those held out, some of every user.

    Of a user with two items or more the share is rounded down to whole items; one at
    least is held out, and one is left. An item that a user has met several times is
    held out with all of these rows, and stands once among those held out. The choice
    is a function of the arguments alone, the same on every machine.

    Args:
      users, items: [n] integer ids, a row an interaction, in the order of time.
      fraction: share of each user's items to hold out, in (0, 1).
      order: "random", or "last" for the items that a user met last.
      seed: which split at random, an int >= 0.

    Returns:
      Two sorted int32 arrays of row numbers, train and held out.

    Raises:
      ValueError: an argument out of range, or no user has two items.

    Memory: O(n), for the sorting.

    Example:
      >>> import numpy as np
      >>> users, items = np.array([7, 7, 7, 8, 8, 9]), np.array([0, 1, 0, 1, 2, 2])
      >>> hold_out_interactions(users, items, order="last")
      (array([1, 3, 5], dtype=int32), array([2, 4], dtype=int32))
    """
    function = "hold_out_interactions"
    seed = check_counter(function, "seed", seed)
    if not 0 < fraction < 1:
        raise ValueError(
            f"{function}: `fraction` must be in (0, 1), got {fraction!r}. Use 0.2."
        )
    if order not in ("random", "last"):
        raise ValueError(
            f"{function}: `order` must be 'random' or 'last', got {order!r}. Use "
            "'random'."
        )
    users, items = np.asarray(users), np.asarray(items)
    if users.ndim != 1 or users.shape != items.shape:
        raise ValueError(
            f"{function}: `items` must have the shape of `users`, {users.shape}, got "
            f"{items.shape}. Give one id of each a row."
        )
    _, user = np.unique(users, return_inverse=True)
    _, item = np.unique(items, return_inverse=True)
    pair_of_row = user.astype(np.int64) * (item.max(initial=0) + 1) + item
    # Of a pair that comes several times, its last row stands for it.
    pairs, backwards = np.unique(pair_of_row[::-1], return_index=True)
    row_of_pair = len(users) - 1 - backwards
    user_of_pair = user[row_of_pair]
    place = row_of_pair
    if order == "random":
        place = words(seed, 0, Stream.HOLD_OUT_INTERACTIONS, pairs.shape)
    by_user = np.lexsort((place, user_of_pair))
    counts = np.bincount(user_of_pair)
    # How many of the same user come after each.
    after = np.cumsum(counts)[user_of_pair[by_user]] - np.arange(len(pairs)) - 1
    num_held_out = np.maximum((fraction * counts).astype(np.int64), 1)
    num_held_out = np.where(counts > 1, num_held_out, 0)
    is_held_out = np.zeros(len(pairs), bool)
    is_held_out[by_user] = after < num_held_out[user_of_pair[by_user]]
    if not is_held_out.any():
        raise ValueError(
            f"{function}: `items` must be two or more of some user, got one of each. "
            "Give more interactions, or other data to evaluate on."
        )
    held_out = np.sort(row_of_pair[is_held_out])
    train = np.flatnonzero(~is_held_out[np.searchsorted(pairs, pair_of_row)])
    return train.astype(np.int32), held_out.astype(np.int32)
