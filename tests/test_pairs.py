"""Masks of positives and negatives, and the segments of classes."""

import jax.numpy as jnp
import numpy as np

from jaxmetric import pairs


def side(rng, rows, *, ids=False, index=False):
    return pairs.Side(
        labels=jnp.asarray(rng.integers(-1, 3, rows), jnp.int32),
        where=jnp.asarray(rng.random(rows) < 0.8),
        ids=jnp.asarray(rng.integers(0, 5, rows), jnp.int32) if ids else None,
        index=jnp.arange(rows, dtype=jnp.int32) if index else None,
    )


def loop_masks(anchors, references):
    shape = len(anchors.labels), len(references.labels)
    positive, negative = np.zeros(shape, bool), np.zeros(shape, bool)
    for i in range(shape[0]):
        for j in range(shape[1]):
            if not (anchors.where[i] and references.where[j]):
                continue
            if anchors.ids is not None and anchors.ids[i] == references.ids[j]:
                continue
            if anchors.labels[i] != references.labels[j]:
                negative[i, j] = True
            elif anchors.index is None or i != j:
                positive[i, j] = True
    return positive, negative


def test_masks_equal_loops():
    rng = np.random.default_rng(0)
    for ids in (False, True):
        rows = side(rng, 9, ids=ids, index=True)
        others = side(rng, 7, ids=ids)
        for anchors, references in (
            (rows, rows),
            (rows._replace(index=None), others),
        ):
            masks = pairs.pair_masks(anchors, references)
            for mask, expected in zip(
                masks, loop_masks(anchors, references), strict=True
            ):
                np.testing.assert_array_equal(mask, expected)


def test_every_positive_is_visited_once():
    rng = np.random.default_rng(1)
    for trial in range(20):
        rows = side(rng, 11, index=True)
        references = rows if trial % 2 else side(rng, 6)
        anchors = rows if trial % 2 else rows._replace(index=None)
        positive, _ = pairs.pair_masks(anchors, references)
        segments = pairs.class_segments(anchors, references)
        visits = np.zeros(positive.shape, int)
        for slot in range(int(segments.size.max())):
            column, exists = segments.candidate(jnp.int32(slot))
            for i in range(11):
                visits[i, column[i]] += int(exists[i])
        np.testing.assert_array_equal(visits, np.asarray(positive).astype(int))


def test_extreme_labels_are_ordinary_classes():
    labels = jnp.array([2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 0], jnp.int32)
    where = jnp.array([True, True, True, True, False])
    rows = pairs.Side(labels, where, None, jnp.arange(5, dtype=jnp.int32))
    segments = pairs.class_segments(rows, rows)
    np.testing.assert_array_equal(segments.size, [1, 1, 1, 1, 0])
    column, exists = segments.candidate(jnp.int32(0))
    np.testing.assert_array_equal(column[:4], [2, 3, 0, 1])
    np.testing.assert_array_equal(exists, [True, True, True, True, False])
