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
