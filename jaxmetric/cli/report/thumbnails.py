"""Rows as small pictures, in the page itself."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np

from jaxmetric.cli.gallery import to_pictures

_SIDE = 72
_SPRITE_SIDE, _LEAST_SIDE = 40, 12
# Of the sprite, in bytes; the page is to stay below 3 MB, and base64 adds a third.
_MOST_BYTES = 1_400_000
# Characters of one picture, of which there are about a hundred.
_MOST_OF_ONE = 6000


class Sprite(NamedTuple):
    """Many pictures in one.

    Attributes:
      uri: the picture as a data URI.
      columns, lines: of equal cells, filled line by line.
      width, height: of a cell, in pixels.
    """

    uri: str
    columns: int
    lines: int
    width: int
    height: int


class Thumbnails:
    """Pictures of rows.

    Args:
      inputs: [n, h, w, c] images.
      rows: those that may be asked for; floating images are stretched to their range.
    """

    def __init__(self, inputs: np.ndarray, rows: np.ndarray):
        self._inputs = inputs
        self._low, self._high = 0.0, 1.0
        if inputs.dtype != np.uint8:
            for row in rows:
                image = np.nan_to_num(inputs[row], posinf=0.0, neginf=0.0)
                self._low = min(self._low, float(image.min()))
                self._high = max(self._high, float(image.max()))

    def one(self, row: int) -> str:
        """Return the picture of a row as a data URI."""
        image = self._image(row, _SIDE)
        exact = _uri(image, "PNG")
        return exact if len(exact) <= _MOST_OF_ONE else _uri(image, "JPEG")

    def sprite(self, rows: np.ndarray) -> Sprite:
        """Return the pictures of rows in their order, as small as they must be."""
        side = _SPRITE_SIDE
        while True:
            images = [self._image(int(row), side) for row in rows]
            width, height = images[0].size
            columns = max(round((len(images) * height / width) ** 0.5), 1)
            lines = -(-len(images) // columns)
            from PIL import Image

            sheet = Image.new(images[0].mode, (columns * width, lines * height))
            for i, image in enumerate(images):
                line, column = divmod(i, columns)
                sheet.paste(image, (column * width, line * height))
            for kind in ("PNG", "JPEG"):
                uri = _uri(sheet, kind)
                if len(uri) * 3 // 4 <= _MOST_BYTES or side <= _LEAST_SIDE:
                    return Sprite(uri, columns, lines, width, height)
            side = max(3 * side // 4, _LEAST_SIDE)

    def _image(self, row: int, side: int) -> Any:
        """Return a row as a picture of at most a side, grey where it has no colour."""
        from PIL import Image

        image = self._inputs[[row]]
        if image.dtype != np.uint8:
            image = np.nan_to_num(image.astype(np.float64), posinf=0.0, neginf=0.0)
            image = (image - self._low) / (self._high - self._low)
        colours = np.rint(255 * to_pictures(image, np.array(0))).astype(np.uint8)
        is_grey = self._inputs.shape[-1] < 3
        picture = Image.fromarray(colours[..., 0] if is_grey else colours)
        h, w = colours.shape[:2]
        if max(h, w) > side:
            size = (max(w * side // max(h, w), 1), max(h * side // max(h, w), 1))
            picture = picture.resize(size, Image.Resampling.BOX)
        return picture


def _uri(image: Any, kind: str) -> str:
    """Return a picture as a data URI."""
    buffer = io.BytesIO()
    options = {"optimize": True} if kind == "PNG" else {"quality": 80}
    image.save(buffer, kind, **options)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{text}"
