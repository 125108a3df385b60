"""Losses with two passes, or two directions, over a batch on eight devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmetric as jm

losses: Any = jm.losses
BATCH, DIM = 32, 5
ROWS, ALL = PartitionSpec("data"), PartitionSpec()


def sharded(loss, arrays, specs) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Return value and gradient by the first two of the global arrays."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = [
            jax.device_put(a, NamedSharding(mesh, spec))
            for a, spec in zip(arrays, specs, strict=True)
        ]
        mapped = jax.shard_map(loss, mesh=mesh, in_specs=tuple(specs), out_specs=ALL)
        return jax.jit(jax.value_and_grad(mapped, argnums=(0, 1)))(*placed)


def assert_like_one_device(local, single, arrays, specs, scale: float = 10.0) -> None:
    """Compare a loss of shards with the loss of the whole batch."""
    value, grads = sharded(local, arrays, specs)
    want, single_grads = jax.jit(jax.value_and_grad(single, argnums=(0, 1)))(*arrays)
    assert want > 0
    np.testing.assert_allclose(value, want, rtol=2e-6)
    for grad, other in zip(grads, single_grads, strict=True):
        atol = 1e-6 * scale * max(1.0, float(jnp.abs(other).max()))
        np.testing.assert_allclose(np.asarray(grad), other, rtol=0, atol=atol)
        assert other.any()


def sides(keys: int = BATCH) -> tuple[jax.Array, ...]:
    """Return queries, keys, labels of the queries, and which exist."""
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(n, DIM)), jnp.float32) for n in (BATCH, keys))
    labels = jnp.asarray(rng.integers(0, 20, BATCH), jnp.int32)
    return x, y, labels, jnp.asarray(rng.random(BATCH) < 0.8)


CALLS = [
    ("info_nce_loss", {"temperature": 0.2, "symmetric": True}),
    ("sigmoid_contrastive_loss", {"bias": -3.0}),
    ("cross_modal_triplet_loss", {}),
    pytest.param(
        "cross_modal_triplet_loss", {"hardest": False}, marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("name", "options"), CALLS)
def test_pairs_on_eight_devices(name, options):
    def loss(x, y, labels, where, **more):
        return getattr(losses, name)(
            x, y, labels=labels, where=where, **options, **more
        )

    def local(*arrays):
        return loss(*arrays, axis_name="data", block_size=3)

    assert_like_one_device(local, loss, sides(), [ROWS] * 4)


def test_further_keys_on_eight_devices_are_found_by_their_global_index():
    """Of 64 keys in shards of 8, most queries' own one is on another device."""

    def loss(x, y, **more):
        return losses.info_nce_loss(x, y, temperature=0.2, **more)

    def local(x, y):
        return loss(x, y, axis_name="data")

    assert_like_one_device(local, loss, sides(2 * BATCH)[:2], [ROWS, ROWS])


@pytest.mark.parametrize(
    "keys", [BATCH, pytest.param(2 * BATCH, marks=pytest.mark.slow)]
)
def test_frequencies_of_keys_on_eight_devices(keys):
    x, y, labels, where = sides(keys)
    log_p = jnp.linspace(-3.0, 0.0, keys)

    def loss(x, y, log_p, where, **more):
        return losses.info_nce_loss(
            x, y, log_frequencies=log_p, where=where, temperature=0.2, **more
        )

    def local(*arrays):
        return loss(*arrays, axis_name="data", block_size=3)

    assert_like_one_device(local, loss, (x, y, log_p, where), [ROWS] * 4)


def test_frequencies_are_known_to_data_parallel_by_name():
    x, y, *_ = sides()
    log_p = jnp.linspace(-3.0, 0.0, BATCH)
    mesh = jax.make_mesh((8,), ("data",))
    loss = jm.sharding.data_parallel(losses.info_nce_loss, mesh=mesh)
    got = loss(x, y, log_frequencies=log_p)
    want = losses.info_nce_loss(x, y, log_frequencies=log_p)
    assert got == pytest.approx(float(want), rel=1e-6)


def test_keys_that_every_device_has_are_used_as_they_are():
    def loss(x, y, where, **more):
        return losses.cross_modal_triplet_loss(x, y, where=where, **more)

    def local(*arrays):
        return loss(*arrays, axis_name="data")

    x, y, _, where = sides()
    assert_like_one_device(local, loss, (x, y, where), [ROWS, ALL, ROWS])


def test_too_few_keys_on_eight_devices_are_told():
    x, y, *_ = sides()

    def local(x, y):
        return losses.info_nce_loss(x, y, axis_name="data")

    with pytest.raises(ValueError, match="at least the 32 rows of `queries`, got 16"):
        sharded(local, (x, y[:16]), [ROWS, ALL])


@pytest.mark.parametrize(
    "has_references", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_the_first_rows_of_classes_on_eight_devices(has_references):
    """The pair of a class is on two devices, and its further rows on others."""
    x, y, _, where = sides()
    labels = jnp.asarray(np.random.default_rng(1).integers(0, 6, BATCH), jnp.int32)

    def loss(x, y, labels, where, **more):
        refs = {"ref_embeddings": y, "ref_labels": labels, "ref_where": where}
        rows = x if has_references else x + y
        more |= refs if has_references else {}
        return losses.n_pairs_loss(rows, labels, where=where, l2_weight=0.1, **more)

    def local(*arrays):
        return loss(*arrays, axis_name="data", block_size=3)

    assert_like_one_device(local, loss, (x, y, labels, where), [ROWS] * 4)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("smooth_ap_loss", marks=pytest.mark.slow),
        pytest.param("fast_ap_loss", marks=pytest.mark.slow),
        "instance_loss",
    ],
)
def test_rankings_on_eight_devices(name):
    x, y, _, where = sides()
    labels = jnp.asarray(np.arange(BATCH) % 3, jnp.int32)
    options = {
        "smooth_ap_loss": {"temperature": 0.2},
        "instance_loss": {"gamma": 4.0},
        "fast_ap_loss": {},
    }[name]

    def loss(x, y, where, labels, **more):
        return getattr(losses, name)(x + y, labels, where=where, **options, **more)

    def local(*arrays):
        return loss(*arrays, axis_name="data", block_size=3)

    assert_like_one_device(local, loss, (x, y, where, labels), [ROWS] * 4)
