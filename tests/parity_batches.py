"""The random batches on which losses are compared with those of other libraries.

Rows are of float32, so that they are the same numbers in float64. Classes overlap: some
hinges are active and some are not. What varies from batch to batch is content only, so
that all batches of a kind are one stack and need one program.
"""

from collections.abc import Sequence

import numpy as np

NUM_BATCHES = 200
ROWS, REFERENCES, DIM, NUM_CLASSES, NUM_CENTERS = 16, 12, 6, 5, 3

# "any": classes by chance, so that some rows are alone in theirs.
# "both": every row has a positive and a negative, among the batch and the references.
# "square": classes in order, as many as they have rows.
# "own": every row is a class of its own, in order.
# "paired": likewise, and row i of the references belongs to row i of the batch.
# "keys": likewise, and there are references that belong to no row.
KINDS = ("any", "both", "square", "own", "paired", "keys")


def make(
    kind: str,
    *,
    has_references: bool = False,
    proxies: Sequence[int] | None = None,
    count: int = NUM_BATCHES,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return `count` batches of a kind, stacked, by keyword name.

    Args:
      kind: one of KINDS.
      has_references: whether there are `ref_embeddings` and `ref_labels`.
      proxies: the shape of the `proxies` of one batch, None for no proxies.
      count: how many batches.
      seed: of all that is random.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    batches = [_one(rng, kind, has_references, proxies) for _ in range(count)]
    return {key: np.stack([batch[key] for batch in batches]) for key in batches[0]}


def _one(
    rng: np.random.Generator,
    kind: str,
    has_references: bool,
    proxies: Sequence[int] | None,
) -> dict[str, np.ndarray]:
    centers = 0.6 * rng.normal(size=(64, DIM))

    def rows(labels: np.ndarray) -> np.ndarray:
        noise = 0.6 * rng.normal(size=(len(labels), DIM))
        return (centers[labels] + noise).astype(np.float32)

    labels, ref_labels = _labels(rng, kind)
    batch = {"embeddings": rows(labels), "labels": labels.astype(np.int32)}
    if has_references:
        batch["ref_embeddings"] = rows(ref_labels)
        batch["ref_labels"] = ref_labels.astype(np.int32)
    if proxies is not None:
        batch["proxies"] = rng.normal(size=proxies).astype(np.float32)
    return batch


def _labels(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    if kind == "any":
        labels = rng.integers(0, NUM_CLASSES, ROWS)
        # Two classes at least, on either side.
        labels[:2], ref_labels = [0, 1], rng.integers(0, NUM_CLASSES, REFERENCES)
        ref_labels[:2] = [0, 1]
        return rng.permutation(labels), rng.permutation(ref_labels)
    if kind == "both":
        classes = np.arange(NUM_CLASSES - 1)
        more = rng.integers(0, len(classes), ROWS - 2 * len(classes))
        labels = np.concatenate([classes, classes, more])
        more = rng.integers(0, len(classes), REFERENCES - len(classes))
        ref_labels = np.concatenate([classes, more])
        return rng.permutation(labels), rng.permutation(ref_labels)
    if kind == "square":
        side = int(ROWS**0.5)
        return np.repeat(np.arange(side), side), np.arange(0)
    further = REFERENCES if kind == "keys" else 0
    return np.arange(ROWS), np.arange(ROWS + further)
