"""Augmentation: nothing at zero, known maps at known amounts, always in bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmetric.data import augment, to_float
from jaxmetric.data.augmentation import _source_places

KEY = jax.random.key(3)

compiled = jax.jit(augment, static_argnames=("shift", "rotation", "scale"))
places = jax.jit(_source_places, static_argnums=(1, 2, 3, 4, 5))


def images(n=6, height=9, width=7, channels=2):
    random = np.random.default_rng(0)
    return jnp.asarray(random.random((n, height, width, channels), np.float32))


def test_zero_ranges_change_no_bit():
    x = images()
    assert augment(KEY, x) is x
    jitted = compiled(KEY, x)
    assert np.asarray(jitted).tobytes() == np.asarray(x).tobytes()


@pytest.mark.parametrize("ranges", [{"shift": 1e-30}, {"scale": 1e-30}])
def test_vanishing_ranges_change_no_bit_either(ranges):
    # The general path with the identity map: places and weights are exact.
    x = images()
    assert np.asarray(compiled(KEY, x, **ranges)).tobytes() == np.asarray(x).tobytes()


def test_each_pixel_is_the_bilinear_mean_at_its_place():
    x, size = images(), (9, 7)
    ranges = {"shift": 0.2, "rotation": 40.0, "scale": 0.3}
    result = np.asarray(compiled(KEY, x, **ranges))
    y, z = (np.asarray(v) for v in places(KEY, 6, size, *ranges.values()))
    for i, r, s in np.ndindex(6, *size):
        a, b = y[i, r, s], z[i, r, s]
        top, left = min(int(a), 7), min(int(b), 5)
        da, db = a - top, b - left
        corners = np.asarray(x[i, top : top + 2, left : left + 2])
        expected = (corners[0] * (1 - da) + corners[1] * da).T @ np.array([1 - db, db])
        np.testing.assert_allclose(result[i, r, s], expected, atol=1e-6)


def test_a_turn_keeps_lengths_and_a_scale_is_relative():
    y, x = places(KEY, 4, (101, 101), 0.0, 45.0, 0.0)
    # Far from the border, where nothing is clamped.
    y, x = np.asarray(y)[:, 40:61, 40:61] - 50, np.asarray(x)[:, 40:61, 40:61] - 50
    grid = np.hypot(*np.mgrid[-10:11, -10:11])
    np.testing.assert_allclose(np.hypot(y, x), np.stack([grid] * 4), atol=1e-4)
    angle = np.degrees(np.arctan2(y[:, 10, 20], x[:, 10, 20]))
    assert (abs(angle) <= 45).all()
    assert len(set(angle.tolist())) == 4
    y, x = places(KEY, 4, (101, 101), 0.0, 0.0, 0.25)
    factor = 10 / (np.asarray(x)[:, 50, 60] - 50)
    assert ((factor >= 0.75) & (factor <= 1.25)).all()


def test_a_shift_is_a_fraction_of_the_side():
    y, x = places(KEY, 500, (11, 21), 0.1, 0.0, 0.0)
    moved_y, moved_x = np.asarray(y)[:, 5, 10] - 5, np.asarray(x)[:, 5, 10] - 10
    assert 0.95 * 1.1 < abs(moved_y).max() <= 1.1 + 1e-5
    assert 0.95 * 2.1 < abs(moved_x).max() <= 2.1 + 1e-5


@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (3, 1, 5, 2), (3, 5, 1, 1)])
def test_values_stay_within_those_of_the_image(shape):
    x = jnp.asarray(np.random.default_rng(1).random(shape, np.float32))
    result = np.asarray(compiled(KEY, x, shift=1.0, rotation=180.0, scale=0.9))
    assert result.shape == shape
    x = np.asarray(x)
    assert (result >= x.min(axis=(1, 2), keepdims=True) - 1e-6).all()
    assert (result <= x.max(axis=(1, 2), keepdims=True) + 1e-6).all()


def test_a_plain_background_goes_on_beyond_the_border():
    x = np.ones((4, 8, 8, 1), np.float32)
    x[:, 3:5, 3:5] = 0
    corner = np.asarray(compiled(KEY, x, shift=0.3))[:, 0, 0, 0]
    np.testing.assert_allclose(corner, 1, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_dtype_comes_back(dtype):
    x = images().astype(dtype)
    result = compiled(KEY, x, rotation=10.0)
    assert result.dtype == x.dtype
    # The work is done in float32, whatever comes in.
    wide = np.asarray(compiled(KEY, x.astype(jnp.float32), rotation=10.0))
    assert (np.asarray(result) == wide.astype(result.dtype)).all()


def test_it_works_in_a_compiled_step_on_bytes():
    x = np.full((3, 6, 6, 1), 255, np.uint8)
    step = jax.jit(lambda key, x: augment(key, to_float(x), shift=0.1, rotation=5.0))
    np.testing.assert_allclose(np.asarray(step(KEY, x)), 1, atol=1e-6)
    assert (np.asarray(step(jax.random.key(1), x)) >= 0).all()
    assert step._cache_size() == 1  # type: ignore  # unknown to its annotations


@pytest.mark.parametrize(
    ("x", "ranges", "kind", "text"),
    [
        (
            np.zeros((4, 8), np.float32),
            {"shift": 0.1},
            ValueError,
            "augment: `images` must have shape (n, h, w, c), got (4, 8). "
            "Feature rows cannot be augmented.",
        ),
        (
            np.zeros((4, 8, 8, 1), np.uint8),
            {},
            TypeError,
            "augment: `images` must be floating point, got uint8. "
            "Use to_float(images).",
        ),
        (
            np.zeros((4, 8, 8, 1), np.float32),
            {"shift": -0.1},
            ValueError,
            "augment: `shift` must be in [0, 1], got -0.1. Use 0 to leave it out.",
        ),
        (
            np.zeros((4, 8, 8, 1), np.float32),
            {"rotation": float("nan")},
            ValueError,
            "augment: `rotation` must be in [0, 180], got nan. Use 0 to leave it out.",
        ),
        (
            np.zeros((4, 8, 8, 1), np.float32),
            {"scale": 1.0},
            ValueError,
            "augment: `scale` must be in [0, 1), got 1.0. Use 0 to leave it out.",
        ),
    ],
)
def test_what_cannot_be_augmented_is_refused(x, ranges, kind, text):
    with pytest.raises(kind) as caught:
        augment(KEY, jnp.asarray(x), **ranges)
    assert str(caught.value) == text
