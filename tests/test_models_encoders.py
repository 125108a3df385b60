"""Encoders: shapes, unit rows, blank inputs, contrast, and a gradient everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmetric.models import encoders


def _conv(shape=(8, 8, 1), **options):
    options = {"widths": (2, 3), "dim": 3} | options
    return encoders.ConvEncoder(shape, **options, rngs=nnx.Rngs(0))


def _mlp(in_features=4, **options):
    options = {"hidden": (5, 4), "dim": 3} | options
    return encoders.MLPEncoder(in_features, **options, rngs=nnx.Rngs(0))


def _inputs(shape, n=2):
    return jnp.asarray(np.random.default_rng(0).random((n, *shape)), jnp.float32)


def _embed(make, *batches):
    """Return the embeddings of several batches, of one compiled program."""
    return jax.jit(lambda *batches: [make()(x) for x in batches])(*batches)


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 17, 3), (1, 2, 2)])
def test_images_of_any_size_become_unit_rows(shape):
    (embeddings,) = _embed(lambda: _conv(shape), _inputs(shape))
    assert embeddings.shape == (2, 3)
    assert embeddings.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "widths", "places"),
    [
        ((4, 4, 1), [], 16),
        ((8, 8, 1), [2], 16),
        ((28, 28, 1), [2, 3, 3], 16),
        ((35, 20, 3), [2, 3, 3, 3], 6),
        ((105, 105, 1), [2, 3, 3, 3, 3], 16),
    ],
)
def test_an_image_is_halved_until_it_is_small(shape, widths, places):
    encoder = nnx.eval_shape(lambda: _conv(shape))
    assert [conv.out_features for conv in encoder.convs] == widths
    channels = widths[-1] if widths else shape[-1]
    assert encoder.head.in_features == places * channels
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    assert jax.eval_shape(lambda x: _conv(shape)(x), images).shape == (2, 3)


def test_contrast_and_brightness_do_not_matter():
    images = _inputs((8, 8, 1))
    first, second = _embed(_conv, images, 0.5 * images + 0.25)
    np.testing.assert_allclose(first, second, atol=2e-3)


def test_images_of_a_batch_do_not_see_each_other():
    images = _inputs((8, 8, 1), n=3)
    together, alone = _embed(_conv, images, images[1:])
    np.testing.assert_allclose(together[1:], alone, atol=1e-6)


def test_mlp_flattens_images_to_unit_rows():
    images = _inputs((2, 3, 2))
    embeddings, of_rows = _embed(lambda: _mlp(12), images, images.reshape(2, 12))
    assert embeddings.shape == (2, 3)
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(embeddings, of_rows)


def test_mlp_without_hidden_layers_is_linear_up_to_the_norm():
    x = _inputs((4,))
    first, second = _embed(lambda: _mlp(hidden=()), x, 3 * x)
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("make", "shape"), [(_conv, (8, 8, 1)), (_mlp, (4,))])
def test_a_blank_input_is_zero_with_zero_gradient_and_spoils_no_other(make, shape):
    @jax.jit
    def gradients(inputs):
        graph, params = nnx.split(make())

        def of(params, inputs):
            embeddings = nnx.merge(graph, params)(inputs)
            first = jnp.arange(embeddings.size, dtype=jnp.float32)
            return jnp.sum(embeddings * first.reshape(embeddings.shape)), embeddings

        return jax.grad(of, argnums=(0, 1), has_aux=True)(params, inputs)

    (by_params, by_inputs), embeddings = gradients(_inputs(shape).at[0].set(0))
    np.testing.assert_array_equal(embeddings[0], 0)
    np.testing.assert_array_equal(by_inputs[0], 0)
    for gradient in jax.tree.leaves((by_params, by_inputs[1])):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_inputs_are_computed_in_the_dtype_of_the_parameters():
    half = jax.ShapeDtypeStruct((2, 4), jnp.bfloat16)
    assert jax.eval_shape(lambda x: _mlp()(x), half).dtype == jnp.float32


@pytest.mark.parametrize(("make", "shape"), [(_conv, (8, 8, 1)), (_mlp, (4,))])
def test_integer_inputs_are_refused_with_what_to_type(make, shape):
    with pytest.raises(TypeError, match=r"got uint8\. Use jaxmetric\.data\.to_float"):
        _embed(make, np.zeros((2, *shape), np.uint8))


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"have shape \(batch, 8, 8, 1\), got \(2, 9"):
        _embed(_conv, _inputs((9, 8, 1)))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (_conv, {"shape": (8, 8)}),
        (_conv, {"shape": (8, 0, 1)}),
        (_conv, {"widths": ()}),
        (_conv, {"widths": (4, -1)}),
        (_conv, {"dim": 2.0}),
        (_mlp, {"hidden": (0,)}),
        (_mlp, {"dim": 0}),
        (_mlp, {"in_features": 0}),
    ],
)
def test_sizes_that_are_not_positive_ints_are_refused(make, options):
    (argument,) = options
    argument = "input_shape" if argument == "shape" else argument
    with pytest.raises(ValueError, match=rf"Encoder: `{argument}` must .*, got .*\. "):
        make(**options)
