"""Metrics, pictures and embeddings as TensorBoard shows them; needs no TensorFlow."""

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from jaxmetric import _checks
from jaxmetric.training.writers import scalars

__all__ = ["TensorBoardWriter"]

_TENSORS, _METADATA, _SPRITE = "tensors.tsv", "metadata.tsv", "sprite.png"
_PROJECTOR = "projector_config.pbtxt"
# The browser takes no larger texture; smaller pictures are shown as they are.
_SPRITE_SIDE, _MOST_SIDE = 8192, 64


class TensorBoardWriter:
    """Write a folder that TensorBoard shows: `tensorboard --logdir FOLDER`.

    A folder has one log. What an earlier writer has left in it is replaced by the
    records given here, so that a run which was cut, and takes some steps again, has no
    step twice.

    Args:
      folder: made if it is not there.
      records: of the steps that were taken before, to begin with.

    Raises:
      ModuleNotFoundError: the package tensorboardX is missing.
      OSError: the folder cannot be written.

    Memory: one record; every record is in the file when `write` returns.

    Example:
      >>> folder = getfixture("tmp_path")
      >>> with TensorBoardWriter(folder) as log:
      ...     log.write({"step": 1, "kind": "train", "loss": 0.25})
      >>> print(len(list(folder.glob("events.*"))))
      1
    """

    def __init__(self, folder: Path | str, *, records: Iterable[Mapping] = ()):
        try:
            from tensorboardX import RecordWriter
        except ImportError as error:
            raise ModuleNotFoundError(
                "TensorBoardWriter: needs tensorboardX. Use pip install "
                "'jaxmetric[tensorboard]'.",
                name="tensorboardX",
            ) from error
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        before = sorted(self._folder.glob("events.out.tfevents.*"))
        now, records = time.time(), list(records)
        # The writer of the package lets a thread write, which waits for ever once the
        # disk is full; this one is the file itself.
        self._file = RecordWriter(str(self._free_path(int(now))))
        # Steps are as far apart in time as they were.
        began = now - max((r.get("seconds") or 0.0 for r in records), default=0.0)
        self._add(began, file_version="brain.Event:2")
        # A TensorBoard that is looking on drops what it has read from the files before.
        self._add(began, step=0, session_log={"status": 1})
        moment = began
        for record in records:
            moment = max(moment, began + (record.get("seconds") or 0.0))
            self._add_scalars(record, moment)
        self._file.flush()
        for path in before:
            path.unlink()

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of a record under "kind/name", at its step."""
        self._add_scalars(record, time.time())
        self._file.flush()

    def write_image(self, name: str, png: bytes, *, step: int) -> None:
        """Write a picture, the content of a PNG file."""
        width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
        image = {"width": width, "height": height, "colorspace": 4}
        value = {"tag": name, "image": image | {"encoded_image_string": png}}
        self._add(time.time(), step=step, summary={"value": [value]})
        self._file.flush()

    def write_embeddings(
        self,
        embeddings: np.ndarray,
        labels: Sequence[str],
        *,
        pictures: Iterable[np.ndarray] | None = None,
        name: str = "embeddings",
    ) -> None:
        """Write rows for the projector, in place of those before.

        Args:
          embeddings: [n, dim]. The browser is quick up to some 10,000 rows.
          labels: n texts.
          pictures: n uint8 images [h, w, 3] of one shape; asked for one by one.
          name: of the rows.

        Raises:
          ValueError: the numbers of rows differ.
        """
        n = len(embeddings)
        if len(labels) != n:
            must, got = f"have {n} texts like `embeddings`", f"{len(labels)}"
            remedy = "Give one text a row."
            text = _checks.text("write_embeddings", "labels", must, got, remedy)
            raise ValueError(text)
        lines = ("\t".join(f"{x:.6g}" for x in row) for row in embeddings.tolist())
        self._write_lines(_TENSORS, lines)
        self._write_lines(_METADATA, (" ".join(text.split()) for text in labels))
        config = [f'tensor_name: "{name}"', f'tensor_path: "{_TENSORS}"']
        config.append(f'metadata_path: "{_METADATA}"')
        if pictures is not None and n:
            side = self._write_sprite(pictures, n)
            dims = f"single_image_dim: {side} single_image_dim: {side}"
            config.append(f'sprite {{ image_path: "{_SPRITE}" {dims} }}')
        # Last: it is what TensorBoard looks for.
        self._write_lines(_PROJECTOR, ["embeddings {", *config, "}"])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _free_path(self, second: int) -> Path:
        """Return a file that is not there: two writers may begin in one second."""
        for i in itertools.count():
            path = self._folder / f"events.out.tfevents.{second}.{i}"
            if not path.exists():
                return path
        raise AssertionError

    def _add_scalars(self, record: Mapping[str, Any], moment: float) -> None:
        values = [{"tag": k, "simple_value": v} for k, v in scalars(record).items()]
        if values:
            self._add(moment, step=int(record["step"]), summary={"value": values})

    def _add(self, moment: float, **event: Any) -> None:
        from tensorboardX.proto import event_pb2

        made: Any = event_pb2  # whose names protobuf makes at run time
        told = made.Event(wall_time=moment, **event)
        self._file.write(told.SerializeToString())

    def _write_lines(self, name: str, lines: Iterable[str]) -> None:
        with open(self._folder / name, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    def _write_sprite(self, pictures: Iterable[np.ndarray], n: int) -> int:
        """Write all pictures in squares, line by line; return the side of a square."""
        from PIL import Image

        # The projector counts ceil(sqrt(n)) squares a line, and wants a square of them.
        columns = int(np.ceil(np.sqrt(n)))
        most = max(min(_MOST_SIDE, _SPRITE_SIDE // columns), 1)
        sheet, side, count = None, most, 0
        for i, picture in enumerate(pictures):
            image = Image.fromarray(np.ascontiguousarray(picture))
            if sheet is None:
                side = min(max(image.size), most)
                sheet = Image.new("RGB", (columns * side, columns * side))
            if max(image.size) > side:
                image.thumbnail((side, side), Image.Resampling.BOX)
            line, column = divmod(i, columns)
            left = column * side + (side - image.width) // 2
            top = line * side + (side - image.height) // 2
            sheet.paste(image, (left, top))
            count = i + 1
        if sheet is None or count != n:
            must, got = f"have {n} images like `embeddings`", f"{count}"
            remedy = "Give one image a row."
            text = _checks.text("write_embeddings", "pictures", must, got, remedy)
            raise ValueError(text)
        sheet.save(self._folder / _SPRITE)
        return side
