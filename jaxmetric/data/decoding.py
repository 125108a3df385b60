"""One image file to one array, or one `DataError`.

The header is read first and the size it claims compared with the cap; only then are
pixels decoded. Readers of formats that run other programs are never asked.
"""

import os
import stat
import warnings
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxmetric.data.errors import DataError, data_error
from jaxmetric.data.images import MAX_PIXELS, resize_images

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_REMEDY = "Repair or remove the file, or skip such files."


def image_extent(path: str) -> tuple[int, int]:
    """Return (height, width) in pixels as the header of a file says, before rotation.

    Raises:
      DataError: the file is no image that can be read, or too large.
    """
    with _opened(path) as image:
        return image.height, image.width


def decode_image(path: str, size: tuple[int, int] | None) -> np.ndarray:
    """Return an image file as [h, w, 1] or [h, w, 3] uint8.

    Images without colour give one channel, all others three. 16 bits become 8 by
    rounding, transparent pixels lie on white, palettes, CMYK and the like become RGB,
    and the rotation that a camera noted is carried out. Of several frames the first
    counts. A damaged or cut file is an error, never half an image.

    Args:
      path: the file.
      size: (height, width) of the result in pixels; None for that of the file.

    Raises:
      DataError: the file is no image that can be read, or too large.

    Memory: up to sixteen bytes for each pixel of the file.
    """
    from PIL import ImageOps

    with _opened(path) as image:
        if size is not None:
            # A JPEG can be decoded at a half, quarter or eighth of its size.
            image.draft(None, (4 * max(size), 4 * max(size)))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        image = _plain_mode(image)
        if size is not None:
            # Large photographs come close to their size by whole factors, in bytes,
            # so that the exact averaging below sees few pixels.
            factors = (image.width // (4 * size[1]), image.height // (4 * size[0]))
            if max(factors) > 1:
                image = image.reduce((max(1, factors[0]), max(1, factors[1])))
        pixels = _on_white(np.asarray(image))
        if size is not None:
            pixels = resize_images(pixels[None], size)[0]
        # GIF and WebP have no grey mode: what has no colour is told by its pixels.
        is_grey = (pixels == pixels[..., :1]).all()
        return pixels[..., :1] if is_grey else pixels


@contextmanager
def _opened(path: str):
    """Open an image file and read its header; every failure becomes a DataError."""
    try:
        from PIL import Image
    except ImportError as error:
        raise data_error(
            path,
            "images are read with Pillow, which is not installed",
            "Run pip install 'jaxmetric[cli]'.",
        ) from error
    try:
        # A pipe would be waited on forever, so the kind of file is looked at first.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise data_error(path, "is not a regular file", _REMEDY)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open(path, "rb") as file, Image.open(file, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(path, f"{image.height} x {image.width}")
                if image.width * image.height == 0:
                    raise data_error(path, "is an image without pixels", _REMEDY)
                yield image
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(path, "the header's size") from error
    except Exception as error:
        # Pillow's readers raise what they stumble over: OSError, SyntaxError,
        # ValueError, struct.error, EOFError and more.
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "is no image in a known format (PNG, JPEG, GIF, BMP, TIFF, WebP)"
        elif isinstance(error, OSError) and error.strerror:
            reason = f"cannot be opened ({error.strerror})"
        else:
            reason = f"cannot be decoded ({type(error).__name__}: {error})"
        raise data_error(path, reason, _REMEDY) from error


def _too_large(path: str, found: str) -> DataError:
    """Return the error of an image above the cap."""
    reason = f"{found} is more than {MAX_PIXELS:,} pixels"
    return data_error(path, reason, "Make the image smaller, or skip such files.")


def _plain_mode(image: Any) -> Any:
    """Return a Pillow image of mode L, LA, RGB or RGBA from one of any mode."""
    from PIL import Image

    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("grey values beyond 16 bits")
        grey = (values.astype(np.uint32) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating point pixels have no defined range")
    is_grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        return image.convert("LA") if is_grey else image
    mode = "L" if is_grey else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """Return [h, w, 1 or 3] from [h, w], [h, w, 3] or, on white, [h, w, 2 or 4]."""
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[-1] == 3:
        return pixels
    colour, alpha = pixels[..., :-1].astype(np.uint16), pixels[..., -1:]
    alpha = alpha.astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
