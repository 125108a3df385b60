"""Triplets drawn before training, without looking at embeddings."""

import numpy as np

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
