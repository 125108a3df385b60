"""Sums of hinges over all triplets: by visits, by sorting, and as plain loops."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmetric as jm
from jaxmetric import _hinges, _sorted_hinges, pairs


def rows(b: int, n: int, num_classes: int, seed: int) -> tuple:
    """Return distances with exact ties on the margin 0.5, masks and segments."""
    rng = np.random.default_rng(seed)
    d = rng.integers(-2, 9, (b, n)).astype(np.float32) / 4
    labels = rng.integers(0, num_classes, n).astype(np.int32)
    where = rng.random(n) < 0.85
    index = jnp.arange(b, dtype=jnp.int32)
    anchors = pairs.Side(jnp.asarray(labels[:b]), jnp.asarray(where[:b]), None, index)
    others = pairs.Side(jnp.asarray(labels), jnp.asarray(where), None, None)
    positive, negative = pairs.pair_masks(anchors, others)
    return d, (positive, negative, pairs.class_segments(anchors, others))


def by_loops(d, positive, negative, margin):
    """Return totals, counts and slopes in float64."""
    total, count = np.zeros(len(d)), np.zeros(len(d), int)
    slope = np.zeros(d.shape)
    for i, row in enumerate(d.astype(float)):
        for p in np.flatnonzero(positive[i]):
            for n in np.flatnonzero(negative[i]):
                violation = (row[p] + margin[i]) - row[n]
                if violation > 0:
                    total[i] += violation
                    count[i] += 1
                    slope[i, p] += 1
                    slope[i, n] -= 1
    return total, count, slope


COUNTS = [
    _hinges._visit,
    *(partial(_sorted_hinges.slopes, chunk=chunk) for chunk in (4, 512)),
]
TOTALS = [
    lambda *operands: _hinges._sums_and_slopes(*operands)[:2],
    *(partial(_sorted_hinges.sums, chunk=chunk) for chunk in (4, 512)),
]


@pytest.mark.parametrize(
    ("b", "n", "num_classes"),
    [
        (9, 70, 3),
        pytest.param(7, 7, 2, marks=pytest.mark.slow),
        pytest.param(1, 64, 1, marks=pytest.mark.slow),
    ],
)
def test_every_algorithm_counts_what_loops_count(b, n, num_classes):
    d, masks = rows(b, n, num_classes, seed=b)
    margin = np.where(np.arange(b) % 2, 0.5, 0.3).astype(np.float32)
    want = by_loops(d, np.asarray(masks[0]), np.asarray(masks[1]), margin)
    assert num_classes == 1 or want[1].sum() > 10
    operands = (jnp.asarray(d), jnp.asarray(margin), jnp.zeros(b, jnp.int32), masks)
    for find in COUNTS:
        count, slope, origin = find(*operands)
        np.testing.assert_array_equal(count, want[1])
        np.testing.assert_array_equal(slope, want[2])
        # One of the row's own positives: nothing that is masked.
        is_own = np.abs(d - np.asarray(origin)[:, None]) < 1e-6
        has_own = (is_own & np.asarray(masks[0])).any(1)
        assert (has_own | ~np.asarray(masks[0]).any(1)).all()
    for find in TOTALS:
        total, count = find(*operands)
        np.testing.assert_allclose(total, want[0], rtol=2e-6, atol=1e-6)
        np.testing.assert_array_equal(count, want[1])


def large_classes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = np.r_[np.zeros(290), rng.integers(1, 9, 60)].astype(np.int32)
    return rng.normal(size=(350, 3)).astype(np.float32), labels


@pytest.mark.slow
def test_a_large_class_is_sorted_to_the_same_loss():
    x, labels = large_classes()
    d = np.sqrt(((x[:, None].astype(float) - x[None]) ** 2).sum(-1))
    is_equal = labels[:, None] == labels[None, :]
    positive = is_equal & ~np.eye(350, dtype=bool)
    total, count, slope = 0.0, 0, np.zeros_like(d)
    for i in range(350):
        t = d[i, positive[i]][:, None] + 0.3 - d[i, ~is_equal[i]][None, :]
        total, count = total + t[t > 0].sum(), count + (t > 0).sum()
        slope[i, positive[i]] = (t > 0).sum(1)
        slope[i, ~is_equal[i]] = -(t > 0).sum(0)
    both = (slope + slope.T) / np.where(d > 0, d, 1)
    pulls = both.sum(1)[:, None] * x - both @ x

    def loss(x, margin, reduction: Any = "mean_active"):
        return jm.losses.batch_all_triplet_loss(
            x, labels, margin=margin, reduction=reduction
        )

    value, (grad, slope) = jax.jit(jax.value_and_grad(loss, (0, 1)))(x, 0.3)
    np.testing.assert_allclose(value, total / count, rtol=1e-6)
    np.testing.assert_allclose(slope, 1, rtol=1e-6)
    np.testing.assert_allclose(grad, pulls / count, rtol=1e-4, atol=1e-7)
    direction = np.random.default_rng(6).normal(size=x.shape).astype(np.float32)
    _, along = jax.jvp(partial(loss, margin=0.3, reduction="sum"), (x,), (direction,))
    np.testing.assert_allclose(along, (pulls * direction).sum(), rtol=1e-4)


def test_many_margins_share_a_sort_and_agree_with_one_margin_each():
    x, labels = large_classes()
    x, labels = jnp.asarray(x[200:]), labels[200:] % 4

    def loss(margin):
        return jm.losses.batch_all_triplet_loss(x, labels, margin=margin)

    margins = jnp.linspace(0.0, 1.5, 16)
    program, one = jax.jit(jax.vmap(loss)).lower(margins), jax.jit(loss)
    # Both halves of the rows are sorted, without an axis of margins; and a single
    # margin sorts no row at all.
    sort_of_half = "(tensor<75x150xi32>) -> tensor<75x150xi32>"
    assert sort_of_half in program.as_text()
    assert sort_of_half not in one.lower(margins[0]).as_text()
    together = program.compile()(margins)
    np.testing.assert_allclose(together, [one(m) for m in margins], rtol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 40])
def test_second_order_by_blocks_is_that_of_one_block(num_classes):
    rng = np.random.default_rng(7)
    x, v = rng.normal(size=(2, 600, 3)).astype(np.float32)
    labels = rng.integers(0, num_classes, 600).astype(np.int32)

    def derivatives(x, block_size):
        def loss(x):
            return jm.losses.batch_all_triplet_loss(
                x, labels, margin=0.3, block_size=block_size
            )

        forward = jax.jvp(jax.value_and_grad(loss), (x,), (v,))
        return forward, jax.grad(lambda x: (jax.grad(loss)(x) * v).sum())(x)

    program = jax.jit(derivatives, static_argnums=1)
    for a, b in zip(
        jax.tree.leaves(program(x, 250)),
        jax.tree.leaves(program(x, None)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(b).max())
