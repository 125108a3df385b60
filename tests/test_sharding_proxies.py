"""Losses over proxies, without labels and regularizers on eight devices.

Embeddings are shards of the global batch, proxies the same on every device: value and
gradients of both are those of one device.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import jaxmetric as jm

losses: Any = jm.losses
BATCH, CLASSES, DIM = 24, 5, 6

# Each takes rows, proxies, labels, `where` and the keywords.
SUBJECTS: dict[str, Any] = {
    name: lambda x, w, labels, name=name, **options: getattr(losses, name)(
        x, labels, w, **options
    )
    for name in (
        "proxy_anchor_loss",
        "distributional_ranking_loss",
        "p2s_grad_loss",
        "seesaw_loss",
        "manifold_loss",
    )
} | {
    "vicreg_loss": lambda x, w, labels, **o: losses.vicreg_loss(x, x**2, **o),
    "shrinkage_loss": lambda x, w, labels, **o: losses.shrinkage_loss(x, x**2, **o),
    "lp": lambda x, w, labels, **o: jm.regularizers.lp(x, **o),
    "zero_mean": lambda x, w, labels, **o: jm.regularizers.zero_mean(x, **o),
}


def arrays() -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, DIM)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(CLASSES, DIM)), jnp.float32)
    # A class that only the first device has, and a device without any row.
    labels = rng.integers(1, CLASSES, BATCH)
    labels[1] = 0
    where = rng.random(BATCH) < 0.8
    where[:3], where[3:6] = True, False
    return x, w, jnp.asarray(labels, jnp.int32), jnp.asarray(where)


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize(
    "check_vma", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_eight_devices_give_what_one_gives(name, check_vma):
    loss = SUBJECTS[name]
    x, w, labels, where = arrays()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows, whole = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(
        lambda x, w, labels, where: loss(x, w, labels, where=where, axis_name="data"),
        mesh=mesh,
        in_specs=(rows, whole, rows, rows),
        out_specs=whole,
        check_vma=check_vma,
    )

    def single(x, w, labels, where):
        return loss(x, w, labels, where=where)

    compiled = jax.jit(jax.value_and_grad(mapped, (0, 1)))
    value, grads = compiled(x, w, labels, where)
    single = jax.jit(jax.value_and_grad(single, (0, 1)))
    want, expected = single(x, w, labels, where)
    np.testing.assert_allclose(value, want, rtol=4e-6)
    for got, grad in zip(grads, expected, strict=True):
        atol = 2e-5 * max(1.0, np.abs(grad).max())
        np.testing.assert_allclose(got, grad, rtol=0, atol=atol)
    # A row that is not finite is told on every device; no row anywhere gives 0.
    assert np.isnan(compiled(x.at[8, 0].set(np.nan), w, labels, where)[0])
    value, grads = compiled(x, w, labels, jnp.zeros(BATCH, bool))
    assert value == 0
    assert not any(grad.any() for grad in grads)
