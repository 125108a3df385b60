"""The data of a run: loaded, split by class, checked before anything is written."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

import jaxmetric as jm
from jaxmetric.cli import texts
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import DataOptions, OptimizationOptions, TextOptions
from jaxmetric.cli.values import suggestion
from jaxmetric.data import Vocabulary, WordVectors
from jaxmetric.data.texts import is_text_file


class Split(NamedTuple):
    """What is trained on, and what is not.

    Attributes:
      name: of the data set.
      train, held_out: data sets with labels 0, 1, ... into their own `class_names`.
      notes: lines on what is odd but no mistake.
      skipped: files that could not be read.
      sha256: of everything in both.
      vocabulary: of texts, None for anything else.
      vectors: of the words of texts, where they are given.
    """

    name: str
    train: jm.data.Dataset
    held_out: jm.data.Dataset
    notes: tuple[str, ...]
    skipped: tuple[str, ...]
    sha256: str
    vocabulary: Vocabulary | None = None
    vectors: WordVectors | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example, [h, w, c] or [d]."""
        return self.train.inputs.shape[1:]


@contextlib.contextmanager
def told_as_usage() -> Iterator[None]:
    """Turn what the library says of the user's values into a `UsageError`."""
    try:
        yield
    except (ValueError, TypeError) as error:
        # Its texts are "function: `argument` must be ..."; any other error is a fault
        # of the program, and wants a traceback.
        if not isinstance(error, jm.data.DataError) and "must" not in str(error):
            raise
        raise UsageError(" ".join(str(error).split())) from error


def load_like(
    data: str,
    shape: Sequence[int] | None,
    *,
    on_error: Literal["stop", "skip"],
    image_size: int | None = None,
    require_labels: bool = True,
    vocabulary: Vocabulary | None = None,
) -> jm.data.Dataset:
    """Return a data set, images brought to the size and channels of `shape`.

    With a vocabulary it is of texts, turned into its tokens.

    Raises:
      UsageError: the data cannot be used, or is of another kind or width.
    """
    if vocabulary is not None or (shape is None and is_text_file(data)):
        return _load_texts(data, vocabulary, require_labels=require_labels)
    size: int | tuple[int, int] | None = image_size
    channels = None
    if shape is not None and len(shape) == 3:
        size = (shape[0], shape[1])
        channels = shape[2] if shape[2] in (1, 3) else None
    with told_as_usage():
        loaded = jm.data.load(
            data,
            image_size=size,
            channels=channels,
            require_labels=require_labels,
            on_error=on_error,
        )
    found = loaded.inputs.shape[1:]
    if shape is not None and found != tuple(shape):
        raise UsageError(
            f"{data}: has examples of shape {found}, the model takes {tuple(shape)}. "
            "Give data of the kind that the run was trained on."
        )
    return loaded


def _load_texts(
    data: str, vocabulary: Vocabulary | None, *, require_labels: bool
) -> jm.data.Dataset:
    """Return texts as tokens; without a vocabulary, yet, as the numbers of their rows.

    Raises:
      UsageError: the file cannot be used, or is of something else.
    """
    if not is_text_file(data):
        raise UsageError(
            f"{data}: is no .tsv file, and the run was trained on texts. Give lines of "
            "label<tab>text."
        )
    with told_as_usage():
        found = jm.data.load_texts(data, require_labels=require_labels)
    if isinstance(found, jm.data.ScoredTexts):
        raise UsageError(
            f"{data}: holds scored pairs, and labelled texts are wanted. Give lines of "
            "label<tab>text."
        )
    rows = np.arange(len(found), dtype=np.int32)[:, None]
    if vocabulary is not None:
        rows = vocabulary.encode(found.texts)
    return jm.data.Dataset(
        rows,
        found.labels,
        found.class_names,
        found.name,
        notes=found.notes,
        texts=found.texts,
    )


def split_data(
    options: DataOptions,
    shape: Sequence[int] | None,
    *,
    text: TextOptions | None = None,
    vocabulary: Vocabulary | None = None,
) -> Split:
    """Return the classes to train on and those held out.

    Args:
      options: the section of the data.
      shape: that examples must have, None for any.
      text: the section of texts.
      vocabulary: that texts are read with; None makes one of the training texts.

    Raises:
      UsageError: the data cannot be used or split in this way.
    """
    is_text = is_text_file(options.data)
    shape = None if is_text else shape
    loaded = load_like(
        options.data, shape, on_error=options.on_error, image_size=options.image_size
    )
    if options.eval_data is not None:
        if options.held_out:
            raise UsageError(
                "--eval-data and --held-out exclude each other. Leave one of them out."
            )
        like = None if is_text else loaded.inputs.shape[1:]
        other = load_like(options.eval_data, like, on_error=options.on_error)
        if is_text != (other.texts is not None):
            raise UsageError(
                f"--eval-data {options.eval_data}: is of another kind than "
                f"{options.data}. Give texts for texts."
            )
        train, held_out = loaded, other
        notes, skipped = loaded.notes + other.notes, loaded.skipped + other.skipped
    else:
        classes = _choose_classes(loaded, options)
        train, held_out = (loaded.select_classes(chosen) for chosen in classes)
        notes, skipped = loaded.notes, loaded.skipped
    if options.on_error == "stop":
        _refuse_single_rows(options.data, loaded)
    train, held_out = _renumber(train), _renumber(held_out)
    if max(class_sizes(held_out)) < 2:
        raise UsageError(
            f"{options.eval_data or options.data}: no class to evaluate on has two "
            "examples. Give more examples of a class, or other data with --eval-data."
        )
    if train.num_classes < 2:
        raise UsageError(
            f"{options.data}: has a single class to train on. Give at least two."
        )
    digest = _sha256(train, held_out)
    if not is_text:
        return Split(loaded.name, train, held_out, notes, skipped, digest)
    assert train.texts is not None
    vectors = None
    if vocabulary is None:
        # Of the training texts alone: what is held out is not to be seen.
        made = texts.make_vocabulary(train.texts, text or TextOptions())
        vocabulary, vectors = made
    train, held_out = (texts.encoded(data, vocabulary) for data in (train, held_out))
    return Split(
        loaded.name, train, held_out, notes, skipped, digest, vocabulary, vectors
    )


def make_sampler(
    train: jm.data.Dataset, options: OptimizationOptions, seed: int, has_pairs: bool
) -> jm.data.ClassSampler:
    """Return the sampler of P x K batches.

    Args:
      train: the data.
      options: the section with P and K, filled in.
      seed: of the run.
      has_pairs: whether the loss compares rows with each other, and so needs K >= 2.

    Raises:
      UsageError: the data cannot give such batches.
    """
    num_classes, m_per_class = options.batch_classes, options.m_per_class
    assert num_classes is not None
    assert m_per_class is not None
    least = 2 if has_pairs else 1
    if num_classes < 2:
        raise UsageError(
            f"--batch-classes must be at least 2, got {num_classes}. Without another "
            "class in the batch nothing is a negative."
        )
    if m_per_class < least:
        raise UsageError(
            f"--m-per-class must be at least {least}, got {m_per_class}. "
            "Without another example of the class nothing is a positive."
        )
    if num_classes > train.num_classes:
        raise UsageError(
            f"--batch-classes must be at most the {train.num_classes} classes that are "
            f"trained on, got {num_classes}. Use --batch-classes {train.num_classes}."
        )
    largest = max(class_sizes(train))
    if m_per_class > largest:
        raise UsageError(
            f"--m-per-class must be at most the {largest} examples of the largest "
            f"class, got {m_per_class}. Use --m-per-class {largest}."
        )
    assert train.labels is not None
    with told_as_usage():
        return jm.data.ClassSampler(
            train.labels, num_classes=num_classes, m_per_class=m_per_class, seed=seed
        )


def class_sizes(data: jm.data.Dataset) -> list[int]:
    """Return the number of rows of each class of a labelled data set."""
    assert data.labels is not None
    return np.bincount(data.labels, minlength=data.num_classes).tolist()


def _choose_classes(
    loaded: jm.data.Dataset, options: DataOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes to train on and those to hold out."""
    assert loaded.labels is not None
    if not options.held_out:
        if not 0 < options.eval_fraction < 1:
            raise UsageError(
                "--eval-fraction must be above 0 and below 1, got "
                f"{options.eval_fraction:g}. Use 0.2."
            )
        if loaded.num_classes < 3:
            raise UsageError(
                f"{options.data}: has {loaded.num_classes} classes, and at least 3 are "
                "needed to hold some out. Give more, or other data with --eval-data."
            )
        with told_as_usage():
            return jm.data.hold_out_classes(
                loaded.labels, fraction=options.eval_fraction, seed=options.split_seed
            )
    for name in options.held_out:
        if name not in loaded.class_names:
            hint = suggestion(name, loaded.class_names)
            raise UsageError(
                f"--held-out: {options.data} has no class {name!r}. {hint}".strip()
            )
    is_held_out = np.isin(loaded.class_names, options.held_out)
    if is_held_out.all():
        raise UsageError(
            f"--held-out names all classes of {options.data}. Leave two to train on."
        )
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _refuse_single_rows(name: str, loaded: jm.data.Dataset) -> None:
    """Refuse a class of one example, which has no positive pair."""
    single = [
        loaded.class_names[c] for c, n in enumerate(class_sizes(loaded)) if n == 1
    ]
    if single:
        more = f" (and {len(single) - 1} more classes)" if len(single) > 1 else ""
        raise UsageError(
            f"{name}: class {single[0]!r}{more} has a single example, which makes no "
            "pair. Add examples, leave the class out, or use --on-error skip to train "
            "all the same."
        )


def _renumber(data: jm.data.Dataset) -> jm.data.Dataset:
    """Return a data set whose labels count the classes that it has rows of."""
    assert data.labels is not None
    present, labels = np.unique(data.labels, return_inverse=True)
    names = tuple(data.class_names[c] for c in present)
    return dataclasses.replace(
        data,
        labels=labels.astype(np.int32),
        class_names=names,
        skipped=(),
        notes=(),
    )


def _sha256(*sets: jm.data.Dataset) -> str:
    """Return a hash of inputs, labels and class names."""
    digest = hashlib.sha256()
    for data in sets:
        for array in (data.inputs, data.labels):
            assert array is not None
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(repr(data.class_names).encode())
        if data.texts is not None:
            digest.update(repr(data.texts).encode())
    return digest.hexdigest()
