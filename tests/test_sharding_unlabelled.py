"""Losses without labels, and regularizers, over a batch on eight devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxmetric as jm

BATCH, DIM = 24, 6


def vicreg(embeddings, *, where, axis_name=None):
    options: Any = {"where": where, "axis_name": axis_name}
    return jm.losses.vicreg_loss(embeddings, embeddings**2, **options)


def shrinkage(embeddings, *, where, axis_name=None):
    options: Any = {"where": where, "axis_name": axis_name}
    return jm.losses.shrinkage_loss(embeddings, embeddings**2, **options)


SUBJECTS: list[Any] = [vicreg, shrinkage, jm.regularizers.lp, jm.regularizers.zero_mean]


@pytest.mark.parametrize("loss", SUBJECTS, ids=lambda loss: loss.__name__)
def test_eight_devices_give_what_one_gives(loss):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, DIM)), jnp.float32)
    # A device without any row.
    where = rng.random(BATCH) < 0.8
    where[:3], where[3:6] = True, False
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def value_and_grad(loss):
        of = lambda x, where: loss(x, where=where)  # noqa: E731
        return jax.jit(jax.value_and_grad(of))

    compiled = value_and_grad(jm.sharding.data_parallel(loss, mesh=mesh))
    value, got = compiled(x, jnp.asarray(where))
    want, grad = value_and_grad(loss)(x, jnp.asarray(where))
    np.testing.assert_allclose(value, want, rtol=2e-6)
    np.testing.assert_allclose(got, grad, rtol=0, atol=1e-6 * np.abs(grad).max())
    # A row that is not finite is told on every device; no row anywhere gives 0.
    assert np.isnan(compiled(x.at[8, 0].set(np.nan), jnp.asarray(where))[0])
    value, grad = compiled(x, jnp.zeros(BATCH, bool))
    assert value == 0
    assert not grad.any()
