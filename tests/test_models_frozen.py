"""Rows that are taken as they are, inputs brought to one scale, and their towers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmetric.models import (
    IdentityEncoder,
    MLPEncoder,
    SharedTowers,
    Standardized,
    TwoTowers,
    build,
)
from jaxmetric.training import as_functional, build_encoder

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(5, 4)).astype(np.float32)
TOWERS = {
    "kind": "towers",
    "dim": 3,
    "query": {
        "kind": "mlp",
        "input_shape": [4],
        "hidden": [6],
        "standardize": True,
    },
    "key": {"kind": "mlp", "input_shape": [2], "hidden": []},
}


def test_a_frozen_side_has_unit_rows_and_no_parameters():
    encoder = IdentityEncoder(4, rngs=nnx.Rngs(0))
    x = np.asarray(encoder(jnp.asarray(X)))
    np.testing.assert_allclose(x, X / np.linalg.norm(X, axis=1)[:, None], rtol=1e-6)
    _, params, model_state = as_functional(encoder)
    assert jax.tree.leaves((params, model_state)) == []
    assert np.asarray(encoder(jnp.zeros((1, 4)))).tolist() == [[0, 0, 0, 0]]
    with pytest.raises(ValueError, match=r"must have shape \(batch, 4\), got \(5, 3\)"):
        encoder(jnp.ones((5, 3)))


def test_statistics_are_state_and_columns_come_to_one_scale():
    rows = X * np.array([1e-3, 1.0, 1e3, 0.0]) + np.array([0, 5, 1e3, 7])
    encoder = Standardized(nnx.identity, 4)
    encoder.fit(jnp.asarray(rows, jnp.float32))
    x = np.asarray(encoder(jnp.asarray(rows, jnp.float32)))
    np.testing.assert_allclose(x.mean(0), 0, atol=2e-4)
    np.testing.assert_allclose(x[:, :3].std(0), 1, rtol=2e-3)
    # A column that is always the same tells nothing, and does not blow up.
    np.testing.assert_array_equal(x[:, 3], 0)
    _, params, model_state = as_functional(encoder)
    assert params == {}
    assert set(model_state) == {"mean", "scale"}
    with pytest.raises(TypeError, match="`x` must be floating point, got int32"):
        encoder(jnp.ones((2, 4), jnp.int32))


def test_a_step_leaves_the_statistics_as_they_are():
    embed_fn, params, model_state = build_encoder(TOWERS)
    inputs = (X, X[:, :2])
    (q, k), after = embed_fn(
        params, model_state, inputs, key=jax.random.key(0), train=True
    )
    assert (q.shape, k.shape) == ((5, 3), (5, 3))
    jax.tree.map(np.testing.assert_array_equal, after, model_state)


def test_one_side_is_embedded_alone():
    embed_fn, params, state = build_encoder(TOWERS, seed=1)
    both = embed_fn(params, state, (X, X[:, :2]), key=None, train=False)[0]
    query = embed_fn(params, state, (X, None), key=None, train=False)[0]
    key = embed_fn(params, state, (None, X[:, :2]), key=None, train=False)[0]
    assert query[1] is None
    assert key[0] is None
    np.testing.assert_allclose(query[0], both[0], rtol=1e-6)
    np.testing.assert_allclose(key[1], both[1], rtol=1e-6)


def test_shared_towers_are_one_encoder():
    section = {"kind": "mlp", "input_shape": [4], "hidden": [6]}
    model = {"kind": "towers", "shared": True, "dim": 3}
    towers = build(model | {"query": section, "key": section}, nnx.Rngs(0))
    assert isinstance(towers, SharedTowers)
    x, y = towers(jnp.asarray(X), jnp.asarray(X))
    np.testing.assert_allclose(x, y, rtol=1e-6)
    assert towers(None, jnp.asarray(X))[0] is None
    other = section | {"hidden": [5]}
    with pytest.raises(ValueError, match="`key` must be like `query`"):
        build(model | {"query": section, "key": other}, nnx.Rngs(0))


def test_a_frozen_side_takes_no_dim_and_the_other_has_its_width():
    model = TOWERS | {"dim": 2, "key": {"kind": "identity", "input_shape": [2]}}
    towers = build(model, nnx.Rngs(0))
    assert isinstance(towers, TwoTowers)
    x, y = towers(jnp.asarray(X), jnp.asarray(X[:, :2]))
    assert x.shape == y.shape == (5, 2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"key": None}, "`key` must hold the section of an encoder, got None"),
        ({"width": 3}, "`model` must be one of"),
        ({"query": {"kind": "mlp"}}, "`input_shape` must be"),
    ],
)
def test_towers_that_do_not_fit_are_refused(change, text):
    with pytest.raises(ValueError, match=text):
        build(TOWERS | change, nnx.Rngs(0))


def test_dropout_is_random_in_training_alone():
    encoder = MLPEncoder(4, hidden=(64,), dim=3, dropout=0.5, rngs=nnx.Rngs(0))
    embed_fn, params, state = as_functional(encoder)
    drawn = [
        embed_fn(params, state, jnp.asarray(X), key=jax.random.key(k), train=True)[0]
        for k in (0, 0, 1)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])
    plain = [
        embed_fn(params, state, jnp.asarray(X), key=None, train=False)[0]
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*plain)
    with pytest.raises(ValueError, match=r"`dropout` must be in \[0, 1\), got 1"):
        MLPEncoder(4, dropout=1.0, rngs=nnx.Rngs(0))
