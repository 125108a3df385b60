"""Encoders of texts: padding, weights, what is trained, and mistakes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmetric as jm

TOKENS = jnp.array([[5, 2, 7, 0, 0], [3, 0, 0, 0, 0], [0, 0, 0, 0, 0]], jnp.int32)


def words(**options) -> Any:
    named: dict[str, Any] = {"num_tokens": 9, "width": 6} | options
    return jm.models.WordVectorEncoder(5, **named, rngs=nnx.Rngs(0))


def transformer(**options) -> Any:
    named: dict[str, Any] = {"num_tokens": 9, "width": 8, "depth": 2, "heads": 2}
    named |= {"dim": 4} | options
    return jm.models.TransformerEncoder(5, **named, rngs=nnx.Rngs(0, dropout=1))


@pytest.mark.parametrize(
    "make",
    [pytest.param(words, marks=pytest.mark.slow), transformer, lambda: words(dim=3)],
)
def test_padding_does_not_change_an_embedding(make):
    encoder = make()
    encoder.eval()
    whole = encoder(TOKENS)
    np.testing.assert_allclose(whole[:1], encoder(TOKENS[:1, :3]), atol=1e-6)
    np.testing.assert_allclose(whole[1:2], encoder(TOKENS[1:2, :1]), atol=1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(whole[:2], axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "make", [words, pytest.param(transformer, marks=pytest.mark.slow)]
)
def test_a_text_without_tokens_has_finite_values_and_gradients(make):
    embed, params, state = jm.training.as_functional(make())

    def loss(params):
        x, _ = embed(params, state, TOKENS, key=jax.random.key(0), train=True)
        return jnp.sum(x[:, 0])

    for leaf in jax.tree.leaves(jax.grad(loss)(params)):
        assert jnp.isfinite(leaf).all()


def test_the_words_are_weighted_as_the_formula_says():
    encoder = words()
    encoder.weights[...] = jnp.log(jnp.arange(1.0, 10.0))
    encoder.shift[...] = jnp.full(6, 0.1)
    table = np.asarray(encoder.vectors[...], np.float64)
    mean = (6 * table[5] + 3 * table[2] + 8 * table[7]) / 17 + 0.1
    want = mean / np.linalg.norm(mean)
    np.testing.assert_allclose(encoder(TOKENS)[0], want, atol=1e-6)


def test_a_frozen_table_is_state_and_a_trained_one_a_parameter():
    for trainable in (True, False):
        _, params, state = jm.training.as_functional(words(trainable=trainable))
        assert ("vectors" in params) == trainable
        assert ("vectors" in state) != trainable
        assert {"weights", "shift"} <= params.keys()


def test_a_transformer_sees_the_order_of_words_and_a_mean_does_not():
    other = TOKENS[:1, jnp.array([1, 0, 2, 3, 4])]
    first, second = words()(TOKENS[:1]), words()(other)
    np.testing.assert_allclose(first, second, atol=1e-6)
    encoder = transformer()
    encoder.eval()
    # Their places are small at first.
    assert jnp.abs(encoder(TOKENS[:1]) - encoder(other)).max() > 1e-5


def test_a_projection_is_there_where_the_widths_differ():
    assert words(dim=3)(TOKENS).shape == (3, 3)
    assert words(dim=6).head is None
    assert words().head is None


def test_they_are_built_from_a_configuration():
    section = {"input_shape": [5], "num_tokens": 9, "width": 8, "dim": 8}
    kinds = {
        "words": jm.models.WordVectorEncoder,
        "transformer": jm.models.TransformerEncoder,
    }
    for kind, of in kinds.items():
        model = jm.models.build({"kind": kind, **section}, nnx.Rngs(0))
        assert isinstance(model, of)
    with pytest.raises(ValueError, match=r"must be \[d\]"):
        jm.models.build(
            {"kind": "words", **section, "input_shape": [5, 5]}, nnx.Rngs(0)
        )


def test_mistakes_are_told():
    with pytest.raises(TypeError, match="`x` must be integer"):
        words()(jnp.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"must have shape \(batch, length\)"):
        words()(jnp.zeros(5, jnp.int32))
    with pytest.raises(ValueError, match="at most 5 tokens a row"):
        transformer()(jnp.zeros((2, 6), jnp.int32))
    with pytest.raises(ValueError, match="multiple of the 3 heads"):
        transformer(heads=3)
    for make in (words, transformer):
        with pytest.raises(ValueError, match="`num_tokens` must"):
            make(num_tokens=0)
