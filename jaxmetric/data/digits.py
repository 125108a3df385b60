"""The handwritten digits that come with scikit-learn."""

import numpy as np

from jaxmetric.data.datasets import Dataset
from jaxmetric.data.errors import data_error
from jaxmetric.data.images import (
    check_channels,
    check_image_size,
    convert_channels,
    resize_images,
)


def load_digits(
    *, image_size: int | tuple[int, int] | None = None, channels: int | None = None
) -> Dataset:
    """Return the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels, 10 classes.

    The 17 levels 0 to 16 of the source become 0 to 255.

    Args:
      image_size: side, or (height, width), in pixels; None keeps 8 x 8.
      channels: 3 repeats the grey channel; None and 1 keep it.

    Returns:
      A `Dataset` of [1797, 8, 8, 1] uint8 images, ink bright on dark.

    Raises:
      DataError: scikit-learn is not installed. ValueError: an argument out of range.

    Memory: 115 kB of pixels.

    Example:
      >>> load_digits().inputs.shape
      (1797, 8, 8, 1)
    """
    size = check_image_size("load_digits", image_size)
    check_channels("load_digits", channels)
    try:
        import sklearn.datasets
    except ImportError as error:
        raise data_error(
            "digits",
            "the images come with scikit-learn, which is not installed",
            "Run pip install 'jaxmetric[cli]', or give another data set.",
        ) from error
    levels, target = sklearn.datasets.load_digits(return_X_y=True)
    images = np.floor(levels.reshape(-1, 8, 8, 1) * (255 / 16) + 0.5).astype(np.uint8)
    images = convert_channels(resize_images(images, size or (8, 8)), channels)
    labels = target.astype(np.int32)
    return Dataset(images, labels, tuple("0123456789"), "digits")
