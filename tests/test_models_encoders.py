"""Encoders: shapes, unit rows, blank inputs, contrast, and a gradient everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmetric.models import encoders

SHAPES = [(8, 8, 1), (9, 17, 3), (1, 5, 2), (28, 28, 1), (2, 2, 1)]


def _conv(shape=(8, 8, 1), **options):
    options = {"widths": (4, 6), "dim": 3} | options
    return encoders.ConvEncoder(shape, **options, rngs=nnx.Rngs(0))


def _images(shape, n=2):
    return jnp.asarray(np.random.default_rng(0).random((n, *shape)), jnp.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_image_size_gives_unit_rows(shape):
    embeddings = _conv(shape)(_images(shape))
    assert embeddings.shape == (2, 3)
    assert embeddings.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("side", "expected"), [(4, []), (8, [4]), (16, [4, 6]), (64, [4, 6, 6, 6])]
)
def test_an_image_is_halved_until_it_is_small(side, expected):
    convs = _conv((side, side, 1)).convs
    assert [conv.out_features for conv in convs] == expected


def test_ink_and_paper_may_have_any_contrast():
    encoder, images = _conv(), _images((8, 8, 1))
    np.testing.assert_allclose(encoder(images), encoder(0.5 * images + 0.25), atol=2e-2)


def test_rows_of_a_batch_do_not_see_each_other():
    encoder, images = _conv(), _images((8, 8, 1), n=3)
    np.testing.assert_allclose(encoder(images)[1:], encoder(images[1:]), atol=1e-6)


def test_mlp_gives_unit_rows_and_flattens_images():
    encoder = encoders.MLPEncoder(12, hidden=(5, 4), dim=3, rngs=nnx.Rngs(0))
    images = _images((2, 3, 2))
    embeddings = encoder(images)
    assert embeddings.shape == (2, 3)
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(embeddings, encoder(images.reshape(2, 12)))


def test_mlp_without_hidden_layers_is_linear_up_to_the_norm():
    encoder = encoders.MLPEncoder(4, hidden=(), dim=3, rngs=nnx.Rngs(0))
    x = _images((4,))
    np.testing.assert_allclose(encoder(x), encoder(3 * x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["conv", "mlp"])
def test_a_blank_row_is_zero_with_zero_gradient_and_spoils_no_other(kind):
    if kind == "conv":
        encoder, shape = _conv(), (8, 8, 1)
    else:
        encoder = encoders.MLPEncoder(4, hidden=(5,), dim=3, rngs=nnx.Rngs(0))
        shape = (4,)
    images = _images(shape).at[0].set(0)
    graph, params = nnx.split(encoder)
    target = jnp.arange(6, dtype=jnp.float32).reshape(2, 3)

    @jax.jit
    def of(params, images):
        embeddings = nnx.merge(graph, params)(images)
        return jnp.sum(embeddings * target), embeddings

    (by_params, by_images), embeddings = jax.grad(of, argnums=(0, 1), has_aux=True)(
        params, images
    )
    np.testing.assert_array_equal(embeddings[0], 0)
    np.testing.assert_array_equal(by_images[0], 0)
    for gradient in jax.tree.leaves((by_params, by_images[1])):
        assert jnp.isfinite(gradient).all()
        assert jnp.abs(gradient).max() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (8, 8)},
        {"shape": (8, 0, 1)},
        {"widths": ()},
        {"widths": (4, -1)},
        {"dim": 0},
        {"dim": 2.0},
    ],
)
def test_sizes_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match=r"ConvEncoder: `\w+` must .*, got .*\. .*\."):
        _conv(**wrong)


@pytest.mark.parametrize("wrong", [{"hidden": (0,)}, {"dim": 0}, {"in_features": 0}])
def test_mlp_sizes_that_are_none_are_refused(wrong):
    options = {"in_features": 4, "hidden": (5,), "dim": 3} | wrong
    first = options.pop("in_features")
    with pytest.raises(ValueError, match=r"MLPEncoder: `\w+` must .*, got .*\. .*\."):
        encoders.MLPEncoder(first, **options, rngs=nnx.Rngs(0))
