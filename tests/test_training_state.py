"""The training state owns its buffers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmetric.training import TrainState


def addresses(tree):
    """Return where the numbers of all leaves lie."""
    leaves = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(tree)
    ]
    return [x.unsafe_buffer_pointer() for x in leaves if x.size]


@pytest.mark.parametrize(
    "optimizer",
    [optax.adam(0.1), optax.contrib.schedule_free_sgd(0.1)],
    ids=["adam", "keeps the parameters in its state"],
)
def test_no_buffer_is_in_the_state_twice(optimizer):
    w = jnp.ones((4, 4))
    params = {"a": w, "b": w}
    state = TrainState.create(
        params, {"m": w}, optimizer, key=jax.random.key(0), loss_params={"p": w}
    )
    places = addresses(state._replace(key=jnp.zeros(1)))
    assert len(set(places)) == len(places)
    assert w.unsafe_buffer_pointer() not in places


def test_fresh_state_counts_from_zero_and_knows_its_dtypes():
    state = TrainState.create(
        {"w": jnp.ones(2), "t": jnp.asarray(1.0)},
        {},
        optax.sgd(1.0),
        key=jax.random.key(3),
    )
    assert (int(state.step), int(state.skipped), state.loss_params) == (0, 0, {})
    assert state.step.dtype == state.skipped.dtype == jnp.int32
    # A weak dtype would turn strong in the first step and compile it twice.
    assert not any(x.weak_type for x in jax.tree.leaves(state._replace(key=())))
    np.testing.assert_array_equal(
        jax.random.key_data(state.key), jax.random.key_data(jax.random.key(3))
    )


def test_the_state_of_many_models_is_made_by_vmap():
    keys = jax.random.split(jax.random.key(0), 5)

    def create(key):
        params = {"w": jax.random.normal(key, (3,))}
        return TrainState.create(params, {}, optax.adam(0.1), key=key)

    states = jax.vmap(create)(keys)
    assert states.params["w"].shape == (5, 3)
    assert states.key.shape == (5,)


@pytest.mark.parametrize(
    ("key", "got"), [(0, "int"), (jnp.zeros(2, jnp.uint32), "uint32")]
)
def test_untyped_keys_are_refused_with_the_remedy(key, got):
    with pytest.raises(TypeError) as e:
        TrainState.create({}, {}, optax.sgd(1.0), key=key)
    assert str(e.value) == (
        f"TrainState.create: `key` must be a typed PRNG key, got {got}. "
        "Use jax.random.key(0)."
    )
