"""Arrays of images: their size, their channels, and their way to floating point."""

import jax
import jax.numpy as jnp
import numpy as np

# Pixels of one image, whatever its file says: about what a large camera makes. Below
# Pillow's own limits, so that ours is the one that speaks.
MAX_PIXELS = 50_000_000

# Working memory of one block of images on their way through a resize, in bytes.
_BLOCK_BYTES = 2**25


def default_image_size(height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) in pixels at which images are used by default.

    Images up to 40 pixels stay as they are, larger ones become 28 x 28: drawings stay
    legible, and a small network on a CPU takes half the time that it does at 35 x 35.

    Args:
      height, width: of the images as they are, in pixels.

    Returns:
      Both sides in pixels.

    Memory: none.

    Example:
      >>> default_image_size(28, 20), default_image_size(105, 105)
      ((28, 20), (28, 28))
    """
    return (height, width) if max(height, width) <= 40 else (28, 28)


def check_image_size(
    function: str, size: int | tuple[int, int] | None
) -> tuple[int, int] | None:
    """Return (height, width) for a side length or a pair; None for None."""
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int | np.integer) else size
    is_pair = isinstance(sides, tuple | list) and len(sides) == 2
    if is_pair and all(
        isinstance(side, int | np.integer) and not isinstance(side, bool) and side > 0
        for side in sides
    ):
        return int(sides[0]), int(sides[1])
    raise ValueError(
        f"{function}: `image_size` must be a positive int or a pair of them, got "
        f"{size!r}. Use 28, or None for the default."
    )


def check_channels(function: str, channels: int | None) -> None:
    """Require 1, 3 or None."""
    if channels is not None and channels not in (1, 3):
        raise ValueError(
            f"{function}: `channels` must be 1, 3 or None, got {channels!r}. "
            "Use None to keep what the images have."
        )


def to_float(inputs: jax.Array | np.ndarray) -> jax.Array:
    """Return uint8 images as float32 in [0, 1]; floating rows and images unchanged.

    Meant for the inside of a compiled step, so that images wait as uint8.

    Args:
      inputs: [n, h, w, c] uint8 or floating images, or [n, d] floating rows.

    Returns:
      An array of the same shape; float32 from uint8, else the dtype that came in.

    Raises:
      TypeError: neither uint8 nor floating.

    Memory: four bytes a pixel for uint8; nothing for floating point.

    Example:
      >>> import numpy as np
      >>> to_float(np.array([[0, 51, 255]], np.uint8)).tolist()
      [[0.0, 0.2, 1.0]]
    """
    inputs = jnp.asarray(inputs)
    if inputs.dtype == jnp.uint8:
        return inputs.astype(jnp.float32) / 255
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise TypeError(
            f"to_float: `inputs` must be uint8 or floating point, got {inputs.dtype}. "
            "Use inputs.astype(np.float32)."
        )
    return inputs


def resize_images(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return images at another size, each pixel the mean of the area that it covers.

    Shrinking is therefore free of aliasing, and an enlarged pixel is a patch. uint8
    results are rounded half up from exact sums, so they are the same everywhere.

    Args:
      images: [n, h, w, c] uint8 or float32.
      size: (height, width) of the result, in pixels.

    Returns:
      [n, height, width, c] of the dtype that came in.

    Memory: the result, and some tens of megabytes for the block at work.

    Example:
      >>> import numpy as np
      >>> drawing = np.array([[0, 255], [255, 255]], np.uint8)[None, :, :, None]
      >>> resize_images(drawing, (1, 1)).ravel().tolist()
      [191]
    """
    n, height, width, channels = images.shape
    if (height, width) == tuple(size):
        return images
    out_height, out_width = size
    is_uint8 = images.dtype == np.uint8
    # The weights are integers: an output pixel of `out` covers lengths that are
    # multiples of 1 / out of an input pixel. Sums of bytes are then integers as well,
    # exact in float32 below 2**24 and in float64 always, whatever the order.
    area = height * width
    dtype = np.float32 if area * 255 < 2**24 or not is_uint8 else np.float64
    rows = _overlaps(height, out_height).astype(dtype)
    columns = _overlaps(width, out_width).astype(dtype)
    result = np.empty((n, out_height, out_width, channels), images.dtype)
    step = max(1, _BLOCK_BYTES // (area * channels * np.dtype(dtype).itemsize))
    for start in range(0, n, step):
        block = images[start : start + step].astype(dtype)
        block = np.matmul(rows, block.reshape(-1, height, width * channels))
        block = block.reshape(-1, width, channels)
        if channels == 1:
            block = np.matmul(block[..., 0], columns.T)
        else:
            block = np.matmul(columns, block)
        block = block.reshape(-1, out_height, out_width, channels)
        if is_uint8:
            result[start : start + step] = (2 * block.astype(np.int64) + area) // (
                2 * area
            )
        else:
            result[start : start + step] = block / dtype(area)
    return result


def convert_channels(images: np.ndarray, channels: int | None) -> np.ndarray:
    """Return [n, h, w, 1 or 3] images with so many channels; as they are for None."""
    present = images.shape[-1]
    if channels is None or channels == present:
        return images
    if (present, channels) == (1, 3):
        return np.repeat(images, 3, axis=-1)
    # Luma of ITU-R 601 in 16-bit fixed point, which is also what Pillow does.
    weights = np.array([19595, 38470, 7471])
    if images.dtype == np.uint8:
        luma = images.astype(np.uint32) @ weights.astype(np.uint32)
        return ((luma + 2**15) >> 16).astype(np.uint8)[..., None]
    return (images @ (weights / 65536).astype(images.dtype))[..., None]


def _overlaps(size: int, out: int) -> np.ndarray:
    """Return [out, size] lengths, in 1 / out pixels, of input in output pixels."""
    outer, inner = np.arange(out)[:, None], np.arange(size)[None, :]
    low = np.maximum(outer * size, inner * out)
    high = np.minimum((outer + 1) * size, (inner + 1) * out)
    return np.clip(high - low, 0, None)
