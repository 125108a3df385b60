"""Triplets drawn before training, without looking at embeddings."""

import numpy as np

from jaxmetric.data import _words
from jaxmetric.data._words import Stream, below, check_counter, check_labels, words


def random_triplets(
    labels: np.ndarray, *, num_triplets: int, seed: int = 0, epoch: int = 0
) -> np.ndarray:
    """Return random triplets of row ids for training on explicit triplets.

    The anchor is uniform among the rows that have a positive and a negative, the
    positive uniform among the other rows of its class, the negative uniform among the
    rows of other classes. The same on every machine.

    Args:
      labels: [n] integer, the class of each row; n below 2**31.
      num_triplets: how many, at least 1.
      seed: an int >= 0.
      epoch: another epoch gives other triplets, an int >= 0.

    Returns:
      [num_triplets, 3] int32: anchor, positive, negative.

    Raises:
      ValueError: no row has both a positive and a negative, or an argument out of
        range. TypeError: labels that are no integers.

    Memory: O(n + num_triplets).

    Example:
      >>> import numpy as np
      >>> labels = np.array([0, 0, 1, 1, 1])
      >>> a, p, n = random_triplets(labels, num_triplets=100).T
      >>> bool((labels[a] == labels[p]).all() and (labels[a] != labels[n]).all())
      True
    """
    labels = check_labels("random_triplets", labels)
    seed = check_counter("random_triplets", "seed", seed)
    epoch = check_counter("random_triplets", "epoch", epoch)
    num_triplets = check_counter("random_triplets", "num_triplets", num_triplets)
    if num_triplets < 1:
        raise ValueError(
            "random_triplets: `num_triplets` must be at least 1, got 0. "
            "Use len(labels)."
        )
    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # Positions in the order of the classes, where each class is one segment.
    rows = np.argsort(numbers, kind="stable")
    size = counts[numbers[rows]]
    start = (np.cumsum(counts) - counts)[numbers[rows]]
    anchors = np.flatnonzero((size > 1) & (size < len(labels)))
    if not anchors.size:
        raise ValueError(
            "random_triplets: `labels` must have two classes, one of them with two "
            f"rows, got {len(counts)} classes in {len(labels)} rows. Give more data."
        )
    random = words(seed, epoch, Stream.TRIPLETS, (3, num_triplets))
    anchor = anchors[below(random[0], np.full(num_triplets, anchors.size))]
    size, start = size[anchor], start[anchor]
    positive = start + below(random[1], size - 1)
    positive += positive >= anchor  # the anchor itself is stepped over
    negative = below(random[2], len(labels) - size)
    negative += np.where(negative >= start, size, 0)  # and so is its class
    return rows[np.stack([anchor, positive, negative], axis=1)].astype(np.int32)


def score_triplets(
    pairs: np.ndarray,
    scores: np.ndarray,
    *,
    num_triplets: int,
    above: float,
    below: float,
    seed: int = 0,
    epoch: int = 0,
) -> np.ndarray:
    """Return triplets of item ids, drawn by the scores that pairs of items have.

    Anchor and positive are a pair of a score of at least `above`, drawn uniformly and
    in either order. The negative is a partner of the anchor of a score of at most
    `below`, drawn uniformly; where there is none, any item that is not the anchor
    itself and no partner of it of a greater score. The same on every machine.

    Args:
      pairs: [n, 2] integer, ids of the items of each pair, 0 to below 2**31. Items with
        one id are the same: number texts by what they say.
      scores: [n] real, large for items that are alike.
      num_triplets: how many, at least 1.
      above: the score from which a pair is positive.
      below: the score up to which a pair is negative, less than `above`.
      seed: an int >= 0.
      epoch: another epoch gives other triplets, an int >= 0.

    Returns:
      [num_triplets, 3] int32: anchor, positive, negative.

    Raises:
      ValueError: no pair has a score of `above`, nothing is left for a negative, or
        arrays and arguments do not fit.

    Memory: O(n + num_triplets x largest number of partners of an item).

    Example:
      >>> import numpy as np
      >>> pairs, scores = np.array([[0, 1], [0, 2], [3, 4]]), np.array([5.0, 1.0, 3.0])
      >>> drawn = score_triplets(pairs, scores, num_triplets=50, above=4, below=2)
      >>> sorted(set(map(tuple, drawn[drawn[:, 0] == 0].tolist())))
      [(0, 1, 2)]
    """
    pairs, scores = np.asarray(pairs), np.asarray(scores)
    seed = check_counter("score_triplets", "seed", seed)
    epoch = check_counter("score_triplets", "epoch", epoch)
    num_triplets = check_counter("score_triplets", "num_triplets", num_triplets)
    _check_scored(pairs, scores, num_triplets, above, below)
    # Each pair in both orders: whichever comes first may be the anchor.
    first = np.concatenate([pairs[:, 0], pairs[:, 1]])
    second = np.concatenate([pairs[:, 1], pairs[:, 0]])
    both = np.concatenate([scores, scores])
    positive = np.flatnonzero((both >= above) & (first != second))
    if not positive.size:
        raise ValueError(
            f"score_triplets: `above` must be at most the greatest score of two "
            f"different items, {both[first != second].max(initial=-np.inf):g}, got "
            f"{above!r}. Use a lower number."
        )
    random = words(seed, epoch, Stream.TRIPLETS, (2, num_triplets))
    chosen = positive[_words.below(random[0], np.full(num_triplets, positive.size))]
    negative = np.empty(num_triplets, np.int64)
    num_items = int(pairs.max()) + 1
    near, far = both > below, (both <= below) & (first != second)
    for anchor in np.unique(first[chosen]).tolist():
        of_anchor = first == anchor
        close = np.unique(np.append(second[of_anchor & near], anchor))
        # A pair that stands twice with different scores: the greater one counts.
        wanted = np.setdiff1d(second[of_anchor & far], close)
        if not wanted.size:
            wanted = np.setdiff1d(np.arange(num_items), close)
        if not wanted.size:
            raise ValueError(
                f"score_triplets: `below` must leave item {anchor} a negative, got "
                f"{below!r}, above which it is paired with all. Use a greater number."
            )
        slots = np.flatnonzero(first[chosen] == anchor)
        places = _words.below(random[1][slots], np.full(slots.size, wanted.size))
        negative[slots] = wanted[places]
    drawn = np.stack([first[chosen], second[chosen], negative], axis=1)
    return drawn.astype(np.int32)


def _check_scored(
    pairs: np.ndarray,
    scores: np.ndarray,
    num_triplets: int,
    above: float,
    below: float,
) -> None:
    """Require pairs with their scores, and numbers in their range."""
    is_pairs = pairs.dtype.kind in "iu" and pairs.ndim == 2 and pairs.shape[1:] == (2,)
    if not is_pairs or not pairs.size or pairs.min() < 0 or pairs.max() >= 2**31:
        raise ValueError(
            "score_triplets: `pairs` must be [n, 2] ids from 0 to below 2**31, got "
            f"{pairs.dtype} of shape {pairs.shape}. Number the items from 0."
        )
    if scores.shape != pairs.shape[:1] or not np.isfinite(scores).all():
        raise ValueError(
            f"score_triplets: `scores` must be {len(pairs)} finite numbers to match "
            f"`pairs`, got shape {scores.shape}. Give one for each pair."
        )
    if num_triplets < 1:
        raise ValueError(
            "score_triplets: `num_triplets` must be at least 1, got 0. Use len(pairs)."
        )
    if not below < above:
        raise ValueError(
            f"score_triplets: `below` must be less than `above` {above!r}, got "
            f"{below!r}. Use the middle of the scores."
        )
