"""Whole classes set aside, so that a model is judged on what it has never seen."""

import numpy as np

from jaxmetric.data._words import Stream, check_counter, check_labels, words


def hold_out_classes(
    labels: np.ndarray, *, fraction: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes to train on and the classes held out for evaluation.

    The share is rounded to whole classes; at least two are held out, since retrieval
    among one class finds nothing wrong, and at least two are left to train on. Three
    classes are split two to one. The choice is a function of the arguments alone, the
    same on every machine.

    Args:
      labels: [n] integer. Only which values occur matters.
      fraction: share of the classes to hold out, in (0, 1).
      seed: which split, an int >= 0.

    Returns:
      Two sorted int32 arrays of class numbers, train and held out.

    Raises:
      ValueError: fewer than three classes, or an argument out of range.
      TypeError: labels that are no integers.

    Memory: O(n), for the sorting of the labels.

    Example:
      >>> import numpy as np
      >>> train, held_out = hold_out_classes(np.arange(10) % 5)
      >>> len(train), len(held_out)
      (3, 2)
    """
    classes = np.unique(check_labels("hold_out_classes", labels))
    seed = check_counter("hold_out_classes", "seed", seed)
    if not 0 < fraction < 1:
        raise ValueError(
            f"hold_out_classes: `fraction` must be in (0, 1), got {fraction!r}. "
            "Use 0.2."
        )
    if len(classes) < 3:
        raise ValueError(
            "hold_out_classes: `labels` must have at least 3 classes, got "
            f"{len(classes)}. Give more classes, or other data to evaluate on."
        )
    num_held_out = int(fraction * len(classes) + 0.5)
    num_held_out = min(max(num_held_out, 2), len(classes) - 2)
    order = np.argsort(words(seed, 0, Stream.HOLD_OUT, classes.shape), kind="stable")
    held_out = np.sort(classes[order[:num_held_out]])
    train = np.sort(classes[order[num_held_out:]])
    return train.astype(np.int32), held_out.astype(np.int32)


def hold_out_rows(
    num_rows: int, *, fraction: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and the rows held out, where no class is set aside.

    The share is rounded to whole rows; two at least are held out, and two are left. The
    choice is a function of the arguments alone, the same on every machine.

    Args:
      num_rows: how many there are, 4 at least.
      fraction: share of the rows to hold out, in (0, 1).
      seed: which split, an int >= 0.

    Returns:
      Two sorted int32 arrays of row numbers, train and held out.

    Raises:
      ValueError: fewer than four rows, or an argument out of range.

    Memory: O(num_rows).

    Example:
      >>> train, held_out = hold_out_rows(10)
      >>> len(train), len(held_out)
      (8, 2)
    """
    seed = check_counter("hold_out_rows", "seed", seed)
    if not 0 < fraction < 1:
        raise ValueError(
            f"hold_out_rows: `fraction` must be in (0, 1), got {fraction!r}. Use 0.2."
        )
    if num_rows < 4:
        raise ValueError(
            f"hold_out_rows: `num_rows` must be at least 4, got {num_rows}. "
            "Give more rows, or other data to evaluate on."
        )
    num_held_out = min(max(int(fraction * num_rows + 0.5), 2), num_rows - 2)
    random = words(seed, 0, Stream.HOLD_OUT_ROWS, (num_rows,))
    order = np.argsort(random, kind="stable").astype(np.int32)
    return np.sort(order[num_held_out:]), np.sort(order[:num_held_out])
