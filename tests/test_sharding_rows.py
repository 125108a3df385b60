"""A loss inside a mapped region equals the loss of the global batch on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmetric as jm

LOSSES = [
    "angular_loss",
    "batch_all_triplet_loss",
    "batch_hard_triplet_loss",
    "contrastive_loss",
    "coupled_clusters_loss",
    "dynamic_soft_margin_loss",
    "equidistant_triplet_loss",
    "lossless_triplet_loss",
    "margin_loss",
    "nt_xent_loss",
    "semi_hard_triplet_loss",
    "supervised_contrastive_loss",
]
BATCH, DIM = 32, 40


def batch():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, DIM)), jnp.float32)
    # Classes spread over devices, and a first device whose rows have no positive.
    y = rng.integers(0, 6, BATCH)
    y[:4] = [10, 11, 12, 13]
    where = rng.random(BATCH) < 0.9
    return x, jnp.asarray(y, jnp.int32), jnp.asarray(where)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("axis_type", "check_vma"),
    [
        (AxisType.Explicit, True),
        pytest.param(AxisType.Auto, True, marks=pytest.mark.slow),
        pytest.param(AxisType.Auto, False, marks=pytest.mark.slow),
        pytest.param(AxisType.Explicit, False, marks=pytest.mark.slow),
    ],
)
def test_sharded_equals_one_device(name, axis_type, check_vma):
    loss = getattr(jm.losses, name)
    arrays = batch()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    rows = PartitionSpec("data")

    def local(x, y, where):
        return loss(x, y, where=where, axis_name="data", block_size=3)

    with jax.set_mesh(mesh):
        shards = [jax.device_put(a, NamedSharding(mesh, rows)) for a in arrays]
        mapped = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(rows, rows, rows),
            out_specs=PartitionSpec(),
            check_vma=check_vma,
        )
        value, gradient = jax.jit(jax.value_and_grad(mapped))(*shards)

    def single(x):
        return loss(x, arrays[1], where=arrays[2])

    expected, expected_gradient = jax.jit(jax.value_and_grad(single))(arrays[0])
    np.testing.assert_allclose(value, expected, rtol=2e-6)
    largest = np.abs(expected_gradient).max()
    scale = 1 / 0.07 if "nt_xent" in name else 10
    np.testing.assert_allclose(
        np.asarray(gradient), expected_gradient, atol=1e-6 * scale * largest
    )
