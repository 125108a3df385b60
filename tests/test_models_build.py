"""A configuration's description becomes the encoder it describes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmetric.models import ConvEncoder, MLPEncoder, build
from jaxmetric.models.build import KINDS
from jaxmetric.training import as_functional

KINDS_IN_WORDS = ", ".join(map(repr, KINDS))


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ({"kind": "mlp", "input_shape": [5], "dim": 3, "hidden": [4]}, MLPEncoder),
        ({"kind": "mlp", "input_shape": [4, 2, 1], "dim": 3}, MLPEncoder),
        (
            {"kind": "conv", "input_shape": [9, 8, 1], "dim": 3, "widths": [4]},
            ConvEncoder,
        ),
    ],
)
def test_the_encoder_embeds_examples_of_the_shape(model, kind):
    encoder = build(model, nnx.Rngs(0))
    assert isinstance(encoder, kind)
    embed_fn, params, model_state = as_functional(encoder)
    x = jax.random.uniform(jax.random.key(0), (6, *model["input_shape"]))
    embeddings, _ = embed_fn(params, model_state, x, key=None, train=False)
    assert embeddings.shape == (6, 3)
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-5)


def test_options_that_are_left_out_have_the_defaults_of_the_class():
    built = build({"kind": "mlp", "input_shape": [5]}, nnx.Rngs(0))
    made = MLPEncoder(5, rngs=nnx.Rngs(0))
    jax.tree.map(np.testing.assert_array_equal, nnx.state(built), nnx.state(made))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            {"kind": "cnov", "input_shape": [8, 8, 1]},
            f"build: `kind` must be one of {KINDS_IN_WORDS}, got 'cnov'. Use 'conv'.",
        ),
        (
            {"input_shape": [8, 8, 1]},
            f"build: `kind` must be one of {KINDS_IN_WORDS}, got None. Use 'conv'.",
        ),
        (
            {"kind": "conv", "input_shape": [8]},
            "build: `input_shape` must be [h, w, c], got [8]. "
            "Give the shape of one example, in positive integers.",
        ),
        (
            {"kind": "mlp"},
            "build: `input_shape` must be [d] or [h, w, c], got None. "
            "Give the shape of one example, in positive integers.",
        ),
        (
            {"kind": "mlp", "input_shape": [0]},
            "build: `input_shape` must be [d] or [h, w, c], got [0]. "
            "Give the shape of one example, in positive integers.",
        ),
        (
            {"kind": "mlp", "input_shape": [4], "widths": [3]},
            "build: `model` must be one of 'hidden', 'dim', 'dropout', "
            "got 'widths'. Use 'dim'.",
        ),
    ],
)
def test_descriptions_that_do_not_fit_are_refused_with_the_remedy(model, text):
    with pytest.raises(ValueError, match="build") as e:
        build(model, nnx.Rngs(0))
    assert str(e.value) == text
