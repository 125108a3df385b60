"""A total and its gradient from one pass over the blocks, against the plain program."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmetric import _blocks, _gradients, reductions
from jaxmetric.reductions import LossStats

M, N, DIM = 11, 7, 3


def one_block(rows, shared):
    """Return statistics of a formula with a kink, a curve and integer operands."""
    x, where = rows
    y, scale = shared
    z = scale * jnp.sin(x @ y.T)
    terms = jnp.where(where[:, None] & (z > 0), z**2, 0)
    count = jnp.sum(jnp.broadcast_to(where[:, None], z.shape), -1, dtype=jnp.int32)
    return LossStats(terms.sum(-1), count, jnp.sum(terms > 0, -1, dtype=jnp.int32))


def operands(seed: int = 0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(M, DIM)), rng.normal(size=(N, DIM))
    weights = rng.uniform(0.5, 2, M)
    cast = partial(np.asarray, dtype=np.float32)
    return cast(x), cast(y), cast(1.5), cast(weights)


WHERE = np.arange(M) != 4


def loss(
    x, y, scale, weights, *, fused, block_size=3, reduction: Any = "mean_per_anchor"
):
    rows, shared = (x, jnp.asarray(WHERE)), (y, scale)
    if fused:
        total, counts = _gradients.reduced_blocks(
            one_block, rows, shared, weights, N, block_size, reduction
        )
        stats = LossStats(total, *counts)
    else:
        stats = _blocks.map_blocks(one_block, rows, shared, N, block_size)
        total = reductions.weighted_total(stats, reduction, weights)
    return reductions.mean_of(total, stats, reduction, weights, None)


@pytest.mark.parametrize("reduction", ["mean", "mean_active", "mean_per_anchor", "sum"])
def test_value_and_gradient_are_those_of_the_plain_program(reduction):
    everything = (0, 1, 2, 3)
    fused, plain = (
        jax.jit(
            jax.value_and_grad(
                partial(loss, fused=fused, reduction=reduction), everything
            )
        )
        for fused in (True, False)
    )
    value, grads = fused(*operands())
    want, want_grads = plain(*operands())
    assert float(want) != 0
    # The value is unchanged under differentiation, to the last bit.
    assert value == want
    alone = jax.jit(partial(loss, fused=True, reduction=reduction))(*operands())
    assert value == alone
    for grad, want in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(grad, want, rtol=2e-6, atol=1e-7)


def test_forward_mode_and_second_order_are_those_of_the_plain_program():
    x, y, scale, weights = operands()
    dx, dy, dscale, _ = operands(seed=1)

    def everything(fused):
        f = partial(loss, weights=weights, fused=fused)
        by_x = jax.grad(f)
        return {
            "jvp": jax.jvp(f, (x, y, scale), (dx, dy, dscale)),
            "hvp": jax.jvp(by_x, (x, y, scale), (dx, dy, dscale)),
            "reverse over reverse": jax.grad(lambda x: (by_x(x, y, scale) * dx).sum())(
                x
            ),
            "forward over forward": jax.jvp(
                lambda x: jax.jvp(lambda x: f(x, y, scale), (x,), (dx,))[1], (x,), (dx,)
            ),
            "hessian": jax.hessian(f, 2)(x, y, scale),
            "mapped": jax.vmap(jax.grad(f, 2), in_axes=(None, None, 0))(
                x, y, jnp.array([0.5, 1.0, 2.0])
            ),
        }

    got, want = (jax.jit(partial(everything, fused))() for fused in (True, False))
    for name in want:
        for a, b in zip(
            jax.tree.leaves(got[name]), jax.tree.leaves(want[name]), strict=True
        ):
            assert np.abs(b).max() > 0, name
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_gradient_reads_every_block_once():
    def products(fused, differentiate):
        f = partial(loss, fused=fused)
        f = jax.value_and_grad(f, (0, 1)) if differentiate else f
        text = jax.jit(f).lower(*operands()).as_text()
        return text.count("stablehlo.dot_general")

    assert products(True, False) == products(False, False) == 1
    # x y^T, and one product for the gradient of each side. The plain program computes
    # x y^T once more on its way back.
    assert products(True, True) == 3
    assert products(False, True) == 4
