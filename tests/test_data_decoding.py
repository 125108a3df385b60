"""One image file: every mode has a defined result, every damage an error."""

import struct
import zlib

import numpy as np
import pytest

from jaxmetric.data import DataError, resize_images
from jaxmetric.data.decoding import decode_image, image_extent

Image = pytest.importorskip("PIL.Image")

GREY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
COLOUR = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def saved(tmp_path, image, suffix="png", **options):
    path = str(tmp_path / f"x.{suffix}")
    image.save(path, **options)
    return path


def refusal(path, size=None):
    with pytest.raises(DataError) as caught:
        decode_image(path, size)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{path}: ")
    return message


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "webp", "pgm"])
def test_grey_files_give_one_channel(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    pixels = decode_image(
        saved(tmp_path, Image.fromarray(GREY), suffix, **options), None
    )
    assert pixels.dtype == np.uint8
    assert pixels.shape == (4, 6, 1)
    assert (pixels[..., 0] == GREY).all()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_colour_files_give_three(tmp_path, suffix):
    pixels = decode_image(saved(tmp_path, Image.fromarray(COLOUR), suffix), None)
    assert (pixels == COLOUR).all()


def test_black_and_white(tmp_path):
    image = Image.fromarray(GREY > 100)
    assert image.mode == "1"
    pixels = decode_image(saved(tmp_path, image), None)
    assert (pixels[..., 0] == np.where(GREY > 100, 255, 0)).all()


def test_a_palette_becomes_colour(tmp_path):
    image = Image.fromarray(COLOUR).quantize(5)
    pixels = decode_image(saved(tmp_path, image), None)
    assert (pixels == np.asarray(image.convert("RGB"))).all()


def test_sixteen_bits_are_rounded_to_eight(tmp_path):
    values = np.array([[0, 128, 129, 257, 65535, 65406]], np.uint16)
    for suffix in ("png", "tiff"):
        path = saved(tmp_path, Image.fromarray(values), suffix)
        assert decode_image(path, None)[0, :, 0].tolist() == [0, 0, 1, 1, 255, 254]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_lie_on_white(tmp_path, mode):
    image = Image.new(mode, (3, 2), (0, 128) if mode == "LA" else (0, 0, 99, 128))
    image.putpixel((0, 0), (7, 0) if mode == "LA" else (7, 8, 9, 0))
    pixels = decode_image(saved(tmp_path, image), None)
    assert pixels.shape == (2, 3, 1 if mode == "LA" else 3)
    assert (pixels[0, 0] == 255).all()
    assert (pixels[0, 1, :2] == 127).all()


def test_a_transparent_colour_of_a_palette_or_of_grey_lies_on_white(tmp_path):
    image = Image.fromarray(GREY)
    pixels = decode_image(saved(tmp_path, image, transparency=0), None)
    assert pixels.shape == (4, 6, 1)
    assert pixels[0, 0, 0] == 255
    assert (pixels.ravel()[1:] == GREY.ravel()[1:]).all()
    image = Image.fromarray(COLOUR).quantize(5)
    index = image.getpixel((0, 0))
    pixels = decode_image(saved(tmp_path, image, transparency=index), None)
    assert (pixels[0, 0] == 255).all()


def test_cmyk_becomes_colour(tmp_path):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixels = decode_image(saved(tmp_path, image, "jpg", quality=95), None)
    assert pixels.shape == (8, 8, 3)
    assert abs(pixels.astype(int) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rotation_of_the_camera_is_carried_out(tmp_path, suffix, orientation):
    image = Image.fromarray(np.kron(GREY, np.ones((8, 8), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if suffix == "jpg" else {}
    path = saved(tmp_path, image, suffix, exif=exif, **options)
    turned = np.kron(GREY, np.ones((8, 8), np.uint8)).astype(int)
    if orientation in (2, 3, 7, 8):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 6, 7):
        turned = turned[::-1]
    if orientation >= 5:
        turned = turned.T
    expected = turned
    # Orientation 6 is a turn by 90 degrees clockwise: the first column read upwards
    # becomes the first row.
    if orientation == 6:
        expected = np.rot90(np.kron(GREY, np.ones((8, 8), np.uint8)).astype(int), -1)
    pixels = decode_image(path, None)[..., 0].astype(int)
    assert pixels.shape == expected.shape
    assert abs(pixels - expected).max() <= 3


def test_the_size_asked_for_is_the_area_mean(tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (33, 50, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(image))
    assert (decode_image(path, (9, 13)) == resize_images(image[None], (9, 13))[0]).all()


def test_large_photographs_are_shrunk_close_to_the_area_mean(tmp_path):
    rows, columns = np.mgrid[:1200, :1600]
    colour = [rows / 5, columns / 7, (rows + columns) / 12]
    image = np.stack(colour, -1).astype(np.uint8)
    exact = resize_images(image[None], (35, 35))[0].astype(int)
    for suffix in ("png", "jpg"):
        path = saved(tmp_path, Image.fromarray(image), suffix)
        assert abs(decode_image(path, (35, 35)).astype(int) - exact).max() <= 3


def test_the_first_frame_counts(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    path = saved(tmp_path, frames[0], "gif", save_all=True, append_images=frames[1:])
    assert (decode_image(path, None)[..., 0] == GREY).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_cut_files_are_never_decoded(tmp_path, suffix, share):
    noise = np.random.default_rng(2).integers(0, 256, (64, 64), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), suffix)
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(data[: int(share * len(data))])
    refusal(path, (16, 16))


def png_claiming(width, height):
    """Return a small PNG whose header claims a size."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [7100, 10_000, 14_000, 2**31 - 1])
def test_a_huge_image_is_refused_by_its_header(tmp_path, side):
    path = tmp_path / "x.png"
    path.write_bytes(png_claiming(side, side))
    message = refusal(str(path))
    assert "is more than 50,000,000 pixels" in message
    assert message.endswith("Make the image smaller, or skip such files.")
    with pytest.raises(DataError, match="more than 50,000,000 pixels"):
        image_extent(str(path))


def test_an_image_without_pixels_is_refused(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png_claiming(0, 5))
    refusal(str(path))


def test_other_kinds_of_pixels_are_refused(tmp_path):
    values = np.full((2, 2), 0.5, np.float32)
    path = saved(tmp_path, Image.fromarray(values), "tiff")
    assert "floating point pixels have no defined range" in refusal(path)
    path = saved(tmp_path, Image.fromarray(np.full((2, 2), 2**20, np.int32)), "tiff")
    assert "grey values beyond 16 bits" in refusal(path)


def test_formats_that_run_programs_are_not_asked(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EOF\n")
    assert "is no image in a known format" in refusal(str(path))
