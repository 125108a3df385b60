"""Every fast path against plain float64 rows, at the sizes where the path changes.

The rows of the float64 side are mapped one after the other, with all pairs or triplets
of a row written out: no blocks, tiles, sorts, masks of padding or rules for gradients.
Its derivatives are those of JAX. Coordinates are small integers, so that squares are
exact on both sides, ties are ties on both, and the lowest index wins on both.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxmetric as jm

MARGIN, TEMPERATURE = 0.3, 0.5
# About the distance of the rows below, so that half of the negatives are pushed.
PUSHED = 15.0
# Up to 724 rows make one block, 725 make two; a class of 256 is sorted.
SIZES = {"one": 1, "seven": 7, "one block": 724, "two blocks": 725}
MANY = 32_769


def hinge(x):
    return jnp.where(x > 0, x, 0)


def batch_hard(d, positive, negative):
    farthest = d[jnp.argmax(jnp.where(positive, d, -jnp.inf))]
    nearest = d[jnp.argmin(jnp.where(negative, d, jnp.inf))]
    counts = positive.any() & negative.any()
    return jnp.where(counts, hinge(farthest + MARGIN - nearest), 0), counts


def batch_all(d, positive, negative):
    """Visit the 8 or 300 positives of a row by index: a cube would not fit."""
    found = jnp.nonzero(positive, size=min(len(d), 300), fill_value=len(d))[0]
    t = d.at[found].get(mode="fill", fill_value=-jnp.inf) + MARGIN

    def one(t):
        violation = jnp.where(negative & (t > d), t - d, 0)
        return violation.sum(), (violation > 0).sum()

    if len(d) < 1000:
        totals, counts = jax.vmap(one)(t)
    else:
        totals, counts = lax.map(one, t[:8])
    return totals.sum(), counts.sum()


def semi_hard(d, positive, negative):
    found = jnp.nonzero(positive, size=min(len(d), 300), fill_value=len(d))[0]
    found = found[:8] if len(d) >= 1000 else found
    farthest = jnp.argmax(jnp.where(negative, d, -jnp.inf))

    def one(p):
        exists = (p < len(d)) & negative.any()
        d_p = d.at[p].get(mode="fill", fill_value=0)
        beyond = negative & (d > d_p)
        nearest = jnp.argmin(jnp.where(beyond, d, jnp.inf))
        d_n = d[jnp.where(beyond.any(), nearest, farthest)]
        return jnp.where(exists, hinge(d_p + MARGIN - d_n), 0), exists

    totals, counts = lax.map(one, found)
    return totals.sum(), counts.sum()


def contrastive(d, positive, negative):
    pulled = jnp.where(positive, d**2, 0)
    terms = pulled + jnp.where(negative, hinge(PUSHED - d) ** 2, 0)
    return terms.sum() / 2, (positive | negative).sum()


def supervised_contrastive(d, positive, negative):
    z = (1 - d) / TEMPERATURE
    others = positive | negative
    total = jax.nn.logsumexp(jnp.where(others, z, -jnp.inf))
    counts = positive.any() & negative.any()
    pulled = jnp.where(positive, z, 0).sum() / jnp.maximum(positive.sum(), 1)
    return jnp.where(counts, total - pulled, 0), counts


def nt_xent(d, positive, negative):
    z = (1 - d) / TEMPERATURE
    pushed = jax.nn.logsumexp(jnp.where(negative, z, -jnp.inf))
    is_term = positive & negative.any()
    terms = jnp.where(is_term, jax.nn.softplus(jnp.where(is_term, pushed - z, 0)), 0)
    return terms.sum(), is_term.sum()


# name: (row formula, distance, hyper-parameters of ours)
LOSSES: dict[str, tuple[Callable, str, dict[str, Any]]] = {
    "batch_hard_triplet": (batch_hard, "euclidean", {"margin": MARGIN}),
    "batch_all_triplet": (batch_all, "euclidean", {"margin": MARGIN}),
    "semi_hard_triplet": (semi_hard, "euclidean", {"margin": MARGIN}),
    "contrastive": (contrastive, "euclidean", {"margin": PUSHED}),
    "supervised_contrastive": (
        supervised_contrastive,
        "cosine",
        {"temperature": TEMPERATURE},
    ),
    "nt_xent": (nt_xent, "cosine", {"temperature": TEMPERATURE}),
}


def batch(n: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return integer rows, and labels of classes of 4 with one of 290 where it fits.

    The rows add up to exactly 0: what is taken out before the products is nothing.
    """
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (n, dim)).astype(np.float32)
    half = n // 2
    x[n - half :] = -x[:half]
    if n % 2 and n > 1:
        x[half] += x[0]
        x[n - half] -= x[half]
    x = x[rng.permutation(n)]
    assert n == 1 or not x.sum(0).any()
    labels = rng.permutation(np.arange(n) // 4).astype(np.int32)
    if 700 < n < 1000:
        labels[rng.permutation(n)[:290]] = 0
    return x, labels


def by_rows(name: str, labels: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """Return the loss of float64 rows."""
    formula, distance, _ = LOSSES[name]
    classes = jnp.asarray(labels)
    index = jnp.arange(len(labels))

    def loss(x):
        if distance == "cosine":
            x = x / jnp.sqrt((x * x).sum(-1, keepdims=True))

        def row(i):
            if distance == "cosine":
                d = 1 - x @ x[i]
            else:
                squares = ((x - x[i]) ** 2).sum(-1)
                d = jnp.sqrt(jnp.where(squares > 0, squares, 1)) * (squares > 0)
            is_same = classes == classes[i]
            return formula(d, is_same & (index != i), ~is_same)

        totals, counts = lax.map(jax.checkpoint(row), index, batch_size=16)
        return totals.sum() / jnp.maximum(counts.sum(), 1)

    return loss


def ours(name: str, labels: np.ndarray, block_size: int | None) -> Callable:
    _, distance, hyper = LOSSES[name]
    kwargs = hyper if distance == "cosine" else {**hyper, "distance": distance}
    loss = getattr(jm.losses, f"{name}_loss")
    return partial(loss, labels=labels, block_size=block_size, **kwargs)


@contextmanager
def plainly() -> Iterator[None]:
    """Compute in float64, and write formulas as NumPy would allow."""
    promotion = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with jax.enable_x64(True), promotion[0], promotion[1]:
        yield


def check(got: Any, want: Any, tolerance: float) -> None:
    """Compare with the greatest entry: kinks move an entry by a rounding of it."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = max(float(np.abs(b).max()), 1e-30)
        assert np.abs(np.asarray(a, np.float64) - b).max() <= tolerance * scale


def derivatives(f: Callable, x: jax.Array, v: jax.Array) -> tuple:
    """Return value and gradient, and their forward derivatives along `v`."""
    return jax.jvp(jax.value_and_grad(f), (x,), (v,))


@pytest.mark.slow
@pytest.mark.fusion
@pytest.mark.parametrize("dim", [8, 40])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_all_derivatives_where_the_default_rule_changes(name, size, dim):
    compare(name, SIZES[size], dim, None)


@pytest.mark.slow
@pytest.mark.fusion
@pytest.mark.parametrize("n", [63, 64, 65, 129])
@pytest.mark.parametrize("name", LOSSES)
def test_all_derivatives_around_a_block_of_64(name, n):
    compare(name, n, 40, 64)


def compare(name: str, n: int, dim: int, block_size: int | None) -> None:
    x, labels = batch(n, dim)
    v = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    got = jax.jit(partial(derivatives, ours(name, labels, block_size)))(x, v)
    with plainly():
        program = jax.jit(partial(derivatives, by_rows(name, labels)))
        want = jax.tree.map(np.asarray, program(x.astype(float), v.astype(float)))
    assert n < 8 or np.abs(want[0][1]).max() > 0
    check(got, want, 1e-5)


@pytest.mark.slow
@pytest.mark.fusion
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_of_very_many_rows(name):
    x, labels = batch(MANY, 33)
    value, grad = jax.jit(jax.value_and_grad(ours(name, labels, None)))(x)
    with plainly():
        program = jax.jit(jax.value_and_grad(by_rows(name, labels)))
        want, want_grad = (np.asarray(a) for a in program(x.astype(float)))
    assert want > 0
    assert abs(float(value) - want) <= 2e-6 * (1 + want)
    check(grad, want_grad, 1e-5)
