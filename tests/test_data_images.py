"""Resizing by exact area means, channels, and the way to floating point."""

from fractions import Fraction

import jax
import numpy as np
import pytest

from jaxmetric.data import default_image_size, resize_images, to_float
from jaxmetric.data.images import convert_channels

SIZES = [((6, 9), (2, 3)), ((7, 5), (3, 4)), ((3, 2), (5, 7)), ((10, 11), (10, 4))]


def area_mean(image, size):
    """Return the means over areas of a [h, w] image, in exact fractions."""
    result = [[Fraction(0)] * size[1] for _ in range(size[0])]
    scale = [Fraction(a, b) for a, b in zip(image.shape, size, strict=True)]
    for (i, row), (r, s) in (
        (out, place) for out in np.ndindex(*size) for place in np.ndindex(*image.shape)
    ):
        shares = [
            max(Fraction(0), min((o + 1) * f, p + 1) - max(o * f, Fraction(p)))
            for o, p, f in ((i, r, scale[0]), (row, s, scale[1]))
        ]
        value = Fraction(float(image[r, s]))
        result[i][row] += value * shares[0] * shares[1] / (scale[0] * scale[1])
    return result


@pytest.mark.parametrize(("size", "out"), SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pixel_is_the_mean_of_its_area(size, out, channels):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, *size, channels), dtype=np.uint8)
    result = resize_images(images, out)
    real = resize_images(images.astype(np.float32), out)
    assert result.shape == (2, *out, channels)
    assert (result.dtype, real.dtype) == (np.uint8, np.float32)
    for n, c in np.ndindex(2, channels):
        exact = area_mean(images[n, ..., c], out)
        for i, j in np.ndindex(*out):
            # Rounded half up, from exact sums: no tolerance.
            assert result[n, i, j, c] == int(exact[i][j] + Fraction(1, 2))
            assert abs(real[n, i, j, c] - float(exact[i][j])) < 1e-3


def test_drawings_become_clean_grey():
    # Black and white at 105 pixels to 35: each pixel is a mean of nine.
    random = np.random.default_rng(1)
    drawings = (random.random((4, 105, 105, 1)) < 0.5).astype(np.uint8) * 255
    result = resize_images(drawings, (35, 35))
    nine = drawings.reshape(4, 35, 3, 35, 3).sum((2, 4), dtype=np.int64)
    assert (result[..., 0] == np.floor(nine / 9 + 0.5)).all()
    plain = np.full((2, 97, 64, 3), 201, np.uint8)
    assert (resize_images(plain, (31, 35)) == 201).all()


def test_large_images_are_summed_exactly_too():
    image = np.full((1, 700, 500, 1), 255, np.uint8)
    image[0, 0, 0, 0] = 0
    assert (resize_images(image, (3, 7)) == 255).all()
    # A mean of 100.5 is reached, or missed by one count: float32 cannot tell them.
    image = np.full(700 * 500, 100, np.uint8)
    for count, expected in ((175_000, 101), (174_999, 100)):
        image[:count] = 101
        image[count:] = 100
        assert resize_images(image.reshape(1, 700, 500, 1), (1, 1)).item() == expected


def test_blocks_change_nothing(monkeypatch):
    images = np.random.default_rng(2).integers(0, 256, (7, 6, 5, 2), dtype=np.uint8)
    whole = resize_images(images, (4, 3))
    monkeypatch.setattr("jaxmetric.data.images._BLOCK_BYTES", 1000)
    assert (resize_images(images, (4, 3)) == whole).all()


def test_the_default_size_leaves_small_images_alone():
    assert default_image_size(8, 8) == (8, 8)
    assert default_image_size(40, 1) == (40, 1)
    assert default_image_size(41, 1) == (28, 28)


def test_grey_from_colour_is_that_of_pillow():
    image = pytest.importorskip("PIL.Image")
    colour = np.random.default_rng(3).integers(0, 256, (1, 20, 20, 3), dtype=np.uint8)
    grey = np.asarray(image.fromarray(colour[0]).convert("L"))
    assert (convert_channels(colour, 1)[0, ..., 0] == grey).all()
    real = convert_channels(colour.astype(np.float32), 1)
    assert abs(real[0, ..., 0] - grey).max() <= 0.51
    assert (convert_channels(colour[..., :1], 3) == colour[..., :1]).all()


def test_bytes_become_fractions_and_floats_stay():
    bytes_ = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    result = np.asarray(jax.jit(to_float)(bytes_))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, bytes_.astype(np.float64) / 255, rtol=3e-7)
    assert (result.min(), result.max()) == (0, 1)
    rows = np.array([[3.5, -2.0]], np.float32)
    assert np.asarray(to_float(rows)).tobytes() == rows.tobytes()
    with pytest.raises(TypeError, match="`inputs` must be uint8 or floating point"):
        to_float(np.zeros((2, 2), np.int32))
