"""Where the metrics of a run go besides metrics.jsonl, none of which may harm it."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import jaxmetric as jm
from jaxmetric.cli import folders, measure
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.gallery import to_pictures
from jaxmetric.cli.records import Record
from jaxmetric.training import (
    MetricsWriter,
    TensorBoardWriter,
    TrainState,
    WandbWriter,
)

if TYPE_CHECKING:
    from jaxmetric.cli.prepare import Prepared

TENSORBOARD = "tensorboard"
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
_PICTURES = (folders.CURVES, folders.GALLERY)
# The projector of TensorBoard is quick up to so many rows.
_MOST_ROWS = 10_000


class Hook:
    """A writer that gives up at its first error, which is told in one line.

    Args:
      name: as the user asked for it.
      make: opens the writer.

    Attributes:
      writer: None once it has failed.
    """

    def __init__(self, name: str, make: Callable[[], MetricsWriter]):
        self.name = name
        self.writer: MetricsWriter | None = None
        with self._guarded("cannot be opened"):
            self.writer = make()

    def write(self, record: Record) -> None:
        """Pass a record on."""
        self.use(lambda writer: writer.write(record))

    def use(self, function: Callable[[Any], None]) -> None:
        """Call a function with the writer, if it still works."""
        if self.writer is not None:
            with self._guarded("gets no more of this run"):
                function(self.writer)

    def close(self) -> None:
        """Close the writer."""
        if self.writer is not None:
            with self._guarded("has not got all of this run"):
                self.writer.close()

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            writer, self.writer = self.writer, None
            with contextlib.suppress(Exception):
                if writer is not None:
                    writer.close()
            first = (str(error).splitlines() or [""])[0][:200]
            print(
                f"jaxmetric: warning: --log {self.name} {what} "
                f"({type(error).__name__}: {first}); metrics.jsonl has all.",
                file=sys.stderr,
            )


def check(names: Sequence[str] | None) -> None:
    """Require the packages behind the names of hooks.

    Raises:
      UsageError: one is missing.
    """
    for name in names or ():
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise UsageError(
                f"--log {name}: the package {_PACKAGES[name]} is missing. Use pip "
                f"install 'jaxmetric[{name}]', or leave the option out."
            )


def open_hooks(
    names: Sequence[str] | None,
    folder: Path,
    *,
    config: Mapping[str, Any],
    records: Sequence[Record],
    name: str | None = None,
) -> list[Hook]:
    """Return the hooks of a run, to be closed in the end.

    Args:
      names: which.
      folder: of the run.
      config: what config.yaml holds.
      records: of the steps that were taken before.
      name: of the run; that of its folder by default.
    """

    def tensorboard() -> MetricsWriter:
        return TensorBoardWriter(folder / TENSORBOARD, records=records)

    def wandb() -> MetricsWriter:
        writer = WandbWriter(folder, records=records, config=config, name=name)
        if writer.url:
            print(f"Weights & Biases: {writer.url}", flush=True)
        return writer

    makers = {"tensorboard": tensorboard, "wandb": wandb}
    return [Hook(name, makers[name]) for name in dict.fromkeys(names or ())]


def show_hooks(
    hooks: Sequence[Any], prepared: "Prepared", folder: Path, state: TrainState
) -> None:
    """Give the hooks the pictures of a finished run and its held-out embeddings."""
    step = int(state.step)
    for hook in hooks:
        for name in _PICTURES:
            if (folder / name).exists():
                png, tag = (folder / name).read_bytes(), Path(name).stem
                hook.use(lambda w, p=png, t=tag: w.write_image(t, p, step=step))
        if isinstance(hook.writer, TensorBoardWriter):
            hook.use(lambda writer: _project(writer, prepared, state))


def _project(writer: TensorBoardWriter, prepared: "Prepared", state: Any) -> None:
    """Write embeddings with their classes, of images with thumbnails too."""
    held_out: Any = prepared.split.held_out
    if isinstance(held_out, jm.data.PairedDataset):
        _project_pairs(writer, prepared, state)
        return
    assert held_out.labels is not None
    n, inputs = len(held_out), held_out.inputs
    rows = np.unique(np.linspace(0, n, min(n, _MOST_ROWS), endpoint=False).astype(int))
    names = [held_out.class_names[label] for label in held_out.labels[rows]]
    pictures = None
    if held_out.is_image:
        floats = (to_pictures(inputs, np.array([row]))[0] for row in rows)
        pictures = (np.rint(255 * image).astype(np.uint8) for image in floats)
    embed = measure.embedder(prepared.program.embed_fn)
    embeddings = embed(state.params, state.model_state, inputs[rows])
    writer.write_embeddings(embeddings, names, pictures=pictures, name="held out")


def _project_pairs(writer: TensorBoardWriter, prepared: "Prepared", state: Any) -> None:
    """Write embeddings of both sides of pairs, with their category or place."""
    from jaxmetric.cli.paired.measure import embedder

    held_out: Any = prepared.split.held_out
    embed = embedder(prepared.program.embed_fn)(state.params, state.model_state)
    n = len(held_out)
    places = np.linspace(0, n, min(n, _MOST_ROWS // 2), endpoint=False).astype(int)
    chosen = held_out.take(np.unique(places))
    found, names = [], []
    for side in ("query", "key"):
        rows, texts = chosen.side(side), [str(row) for row in np.unique(places)]
        if rows.ndim == 1:  # ids: each once
            rows = np.unique(rows)
            texts = [str(row) for row in rows]
        elif chosen.labels is not None:
            texts = [chosen.class_names[label] for label in chosen.labels]
        found.append(embed(side, rows))
        names += [f"{side} {text}" for text in texts]
    writer.write_embeddings(np.concatenate(found), names, name="held out")
