"""What some triplet losses share over devices beyond rows: states, costs, stand-ins."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmetric as jm

BATCH, DIM = 16, 40
ROWS, ALL = PartitionSpec("data"), PartitionSpec()

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


def dynamic(x, y, extra, **options):
    """Return loss and histogram, after that of the batches before."""
    return losses.dynamic_soft_margin_loss(
        x, y, histogram=extra, return_histogram=True, min_value=-6.0, **options
    )


def margin(x, y, extra, **options):
    """Return the loss with boundaries of their own cost, one a class."""
    return losses.margin_loss(x, y, beta=extra, nu=0.3, margin=1.0, **options), extra


def equidistant(x, y, extra, **options):
    """Return the loss with the spread of the negatives, whose search is a second."""
    loss = losses.equidistant_triplet_loss(
        x, y, equidistributed_weight=extra[0], **options
    )
    return loss, extra


def against_bank(x, y, extra, **options):
    """Return the same against references that every device has all of."""
    bank = jnp.sin(jnp.arange(10.0 * DIM)).reshape(10, DIM) * 2
    return equidistant(
        x, y, extra, ref_embeddings=bank, ref_labels=jnp.arange(10) % 4, **options
    )


@pytest.mark.parametrize(
    "loss",
    [
        dynamic,
        pytest.param(margin, marks=pytest.mark.slow),
        pytest.param(equidistant, marks=pytest.mark.slow),
        against_bank,
    ],
)
@pytest.mark.parametrize(
    "check_vma", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_sharded_equals_one_device(loss, check_vma):
    if loss is against_bank and not check_vma:
        return  # what is not tracked is taken for a shard
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, DIM)), jnp.float32)
    y = jnp.asarray(np.append([5, 6], rng.integers(0, 4, BATCH - 2)), jnp.int32)
    extra = jnp.linspace(0.05, 9.0, 10)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))

    def local(x, y, extra):
        return loss(x, y, extra, axis_name="data", block_size=3)

    with jax.set_mesh(mesh):
        shards = [jax.device_put(a, NamedSharding(mesh, ROWS)) for a in (x, y)]
        everywhere = jax.device_put(extra, NamedSharding(mesh, ALL))
        mapped = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(ROWS, ROWS, ALL),
            out_specs=(ALL, ALL),
            check_vma=check_vma,
        )
        value_and_grad = jax.value_and_grad(mapped, (0, 2), has_aux=True)
        (value, state), grads = jax.jit(value_and_grad)(*shards, everywhere)
    single = jax.value_and_grad(loss, (0, 2), has_aux=True)
    (expected, expected_state), expected_grads = jax.jit(single)(x, y, extra)
    np.testing.assert_allclose(value, expected, rtol=2e-6)
    np.testing.assert_allclose(np.asarray(state), expected_state, rtol=2e-6)
    for got, want in zip(grads, expected_grads, strict=True):
        largest = np.abs(want).max()
        np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=1e-5 * largest)
