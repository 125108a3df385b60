"""Trees as named arrays: paths, kinds and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmetric.training import TrainState, leaves


def test_fields_and_keys_give_the_same_paths():
    state = TrainState.create(
        {"dense": [{"kernel": jnp.ones((2, 3))}]},
        {},
        optax.sgd(0.1),
        key=jax.random.key(0),
    )
    described, arrays = leaves.flatten(state)
    by_path = {leaf.path: leaf for leaf in described}
    assert by_path["params/dense/0/kernel"] == (
        "params/dense/0/kernel",
        (2, 3),
        "float32",
    )
    assert by_path["key"] == ("key", (), "key:threefry2x32")
    # A state is a tuple of fields; a dictionary of the same names is the same tree.
    assert leaves.differences(state._asdict(), described, subset=False) is None
    assert len(arrays) == len(described)


def test_numbers_change_no_description_but_shape_and_dtype_do():
    described, _ = leaves.flatten({"a": np.zeros(2, np.float32)})
    assert leaves.differences({"a": jnp.ones(2)}, described, subset=False) is None
    like = {"a": jax.ShapeDtypeStruct((2,), jnp.bfloat16)}
    assert leaves.differences(like, described, subset=False) == (
        "1 leaf differs: a is float32[2], expected bfloat16[2]"
    )


def test_each_leaf_becomes_what_it_replaces():
    like = {"a": 1, "b": 2.0, "c": True, "d": np.float32(0), "e": np.zeros(1)}
    like |= {"f": jnp.zeros(1), "g": jax.ShapeDtypeStruct((1,), jnp.float32)}
    _, arrays = leaves.flatten(like | {"g": jnp.zeros(1)})
    new = leaves.rebuild(like, dict(zip("abcdefg", arrays, strict=True)))
    assert [type(new[name]) for name in "abcd"] == [int, float, bool, np.float32]
    assert isinstance(new["e"], np.ndarray)
    assert isinstance(new["f"], jax.Array)
    assert isinstance(new["g"], jax.Array)


@pytest.mark.parametrize("leaf", ["text", np.array([None]), np.datetime64("2020")])
def test_leaves_without_numbers_are_refused(leaf):
    with pytest.raises(TypeError, match=r"got \w+ at a/0. Put it into `metadata`."):
        leaves.flatten({"a": [leaf]})
