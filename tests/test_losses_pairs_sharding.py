"""What the two-pass and whole-batch losses over pairs share over devices: one value."""

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


def lifted(x, y, w, **options):
    """Return the loss whose pairs know the negatives of rows on other devices."""
    return losses.lifted_structure_loss(x, y, weights=w, margin=3.0 + w, **options)


def lifted_against_bank(x, y, w, **options):
    """Return the same against references that every device has all of."""
    bank = jnp.sin(jnp.arange(10.0 * DIM)).reshape(10, DIM) * 2
    return lifted(
        x, y, w, ref_embeddings=bank, ref_labels=jnp.arange(10) % 4, **options
    )


def signals(x, y, w, **options):
    """Return the loss of rows that are centred before they are compared."""
    return losses.snr_contrastive_loss(
        x, y, weights=w, margin=2 + w, zero_mean_weight=0.2, **options
    )


def variance(x, y, w, **options):
    """Return the loss around the means of the whole batch."""
    return losses.intra_pair_variance_loss(x, y, weights=w, **options)


def thresholds(x, y, w, **options):
    """Return the loss of four sums, with bounds of each anchor's own."""
    return losses.threshold_consistent_margin_loss(
        x, y, weights=w, negative_margin=w / 9 - 0.1, **options
    )


def histogram(x, y, w, **options):
    """Return the loss of two histograms of the whole batch."""
    return losses.histogram_loss(x, y, weights=w, num_bins=20, **options)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lifted, marks=pytest.mark.slow),
        lifted_against_bank,
        signals,
        pytest.param(variance, marks=pytest.mark.slow),
        thresholds,
        histogram,
    ],
)
@pytest.mark.parametrize(
    "check_vma", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_sharded_equals_one_device(loss, check_vma):
    if loss is lifted_against_bank and not check_vma:
        return  # what is not tracked is taken for a shard
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, DIM)), jnp.float32)
    # The rows of the first device have no positive.
    y = jnp.asarray(np.append([5, 6], rng.integers(0, 4, BATCH - 2)), jnp.int32)
    w = jnp.asarray(rng.uniform(0.5, 2, BATCH), jnp.float32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))

    def local(x, y, w):
        return loss(x, y, w, axis_name="data", block_size=1)

    with jax.set_mesh(mesh):
        shards = [jax.device_put(a, NamedSharding(mesh, ROWS)) for a in (x, y, w)]
        mapped = jax.shard_map(
            local, mesh=mesh, in_specs=(ROWS,) * 3, out_specs=ALL, check_vma=check_vma
        )
        value, grads = jax.jit(jax.value_and_grad(mapped, (0, 2)))(*shards)
    expected, expected_grads = jax.jit(jax.value_and_grad(loss, (0, 2)))(x, y, w)
    assert expected > 0
    np.testing.assert_allclose(value, expected, rtol=4e-6)
    for got, want in zip(grads, expected_grads, strict=True):
        largest = np.abs(want).max()
        assert largest > 0
        np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=1e-5 * largest)
