"""Ids as inputs: a row each, features beside it, ids that there are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmetric import models, training

IDS = jnp.array([3, 0, 3, 1])


def test_an_id_is_its_row_at_length_one():
    encoder = models.IdEncoder(4, dim=3, rngs=nnx.Rngs(0))
    rows = np.asarray(encoder.rows[...])[IDS]
    want = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder(IDS), want, rtol=1e-6)


def test_features_are_added_to_the_row_of_an_id():
    encoder = models.IdEncoder(4, num_features=2, hidden=(), dim=3, rngs=nnx.Rngs(0))
    features = jnp.arange(8.0).reshape(4, 2)
    encoder.set_features(features)
    rows = encoder.rows[...] + features @ encoder.head.kernel[...]
    want = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder(IDS), want[IDS], rtol=1e-5)


def test_features_are_state_and_not_trained():
    section = {"kind": "ids", "input_shape": [], "num_ids": 4, "num_features": 2}
    section |= {"hidden": [5], "dim": 3}
    embed_fn, params, state = training.build_encoder(section, seed=0)
    assert jax.tree.map(jnp.shape, state) == {"features": (4, 2)}
    assert set(params) == {"rows", "hidden", "head"}
    one, _ = embed_fn(params, state, IDS, key=None, train=False)
    other = jax.tree.map(lambda a: a + 1, state)
    two, kept = embed_fn(params, other, IDS, key=None, train=True)
    assert not jnp.allclose(one, two)
    np.testing.assert_array_equal(kept["features"], other["features"])


@pytest.mark.parametrize("bad", [-1, 4, 2**31 - 1])
def test_an_id_that_there_is_not_is_a_row_of_nan(bad):
    encoder = models.IdEncoder(4, dim=3, rngs=nnx.Rngs(0))
    found = jax.jit(encoder)(jnp.array([1, bad]))
    assert jnp.isnan(found).any(1).tolist() == [False, True]


def test_only_the_rows_of_the_batch_have_a_gradient():
    encoder = models.IdEncoder(5, dim=3, rngs=nnx.Rngs(0))
    graph, params = nnx.split(encoder)
    grads = jax.grad(lambda p: nnx.merge(graph, p)(IDS)[:, 0].sum())(params)
    assert jnp.any(grads["rows"][...] != 0, 1).tolist() == [
        True,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: models.IdEncoder(0, rngs=nnx.Rngs(0)),
            "IdEncoder: `num_ids` must be a positive int, got 0. Shapes must be known "
            "when tracing.",
        ),
        (
            lambda: models.IdEncoder(4, rngs=nnx.Rngs(0))(jnp.ones(3)),
            "IdEncoder: `ids` must be integer, got float32. Count the ids from 0.",
        ),
        (
            lambda: models.IdEncoder(4, rngs=nnx.Rngs(0))(IDS[:, None]),
            "IdEncoder: `ids` must have shape (batch,), got (4, 1). Give one a row.",
        ),
        (
            lambda: models.IdEncoder(4, rngs=nnx.Rngs(0)).set_features(
                jnp.ones((4, 2))
            ),
            "set_features: `features` must be left out, got shape (4, 2). Pass "
            "num_features= to IdEncoder.",
        ),
    ],
)
def test_bad_calls(call, text):
    with pytest.raises((ValueError, TypeError)) as error:
        call()
    assert str(error.value) == text
