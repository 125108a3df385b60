"""Word vectors from a file, and the table of an encoder that starts from them."""

import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmetric.data import archives
from jaxmetric.data.archives import BadArchive
from jaxmetric.data.errors import DataError, data_error
from jaxmetric.data.vocabulary import Vocabulary

# How long the random columns are, of vectors of length 1: measured on held-out pairs of
# the STS benchmark, where 1 and 1.5 are 0.5 and 1.2 points better than 0.7.
_LEXICAL = 1.5
_REMEDY = "Write it with np.savez_compressed(path, words=..., vectors=...)."


class WordVectors(NamedTuple):
    """Words and their vectors.

    Attributes:
      words: n different words.
      vectors: [n, dim] float32.

    Memory: the arrays.

    Example:
      >>> import numpy as np
      >>> WordVectors(("a", "cat"), np.eye(2, dtype=np.float32)).words
      ('a', 'cat')
    """

    words: tuple[str, ...]
    vectors: np.ndarray


def load_word_vectors(path: str | os.PathLike) -> WordVectors:
    """Return the words and vectors of an ``.npz`` file.

    `words` is an array [n] of strings (of a fixed width, as `np.array(list)` makes it;
    pickles are never read), `vectors` one [n, dim] of finite numbers. Of a word that
    stands there twice the first vector counts.

    Args:
      path: the file.

    Returns:
      The words and their vectors, in the order of the file.

    Raises:
      DataError: the file cannot be read or used; one line.

    Memory: the arrays.

    Example:
      >>> import pathlib, tempfile, numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "vectors.npz")
      ...     np.savez(path, words=["a", "cat"], vectors=np.eye(2))
      ...     words, vectors = load_word_vectors(path)
      >>> words, vectors.shape
      (('a', 'cat'), (2, 2))
    """
    path = Path(path)
    try:
        if not path.exists():
            raise data_error(path, "no such file", "Give an .npz of words and vectors.")
        file_size = archives.size_of(path)
        with zipfile.ZipFile(path) as archive:
            return _load(path, archive, file_size)
    except DataError:
        raise
    except BadArchive as error:
        raise data_error(path, str(error), _REMEDY) from error
    except Exception as error:
        # Damaged archives raise at least nine classes, from zlib.error to SyntaxError.
        reason = f"cannot be read as an .npz file ({type(error).__name__}: {error})"
        raise data_error(path, reason, _REMEDY) from error


def _load(path: Path, archive: zipfile.ZipFile, file_size: int) -> WordVectors:
    """Return the vectors of an open archive."""
    names = archives.array_names(archive)
    for name in ("words", "vectors"):
        if name not in names:
            raise data_error(path, f"holds no `{name}`", _REMEDY)
    members = [
        archives.read_header(archive, n, file_size) for n in ("words", "vectors")
    ]
    words, vectors = members
    if words.dtype.kind != "U" or len(words.shape) != 1:
        reason = f"`words` must be [n] strings, got {words.dtype} {words.shape}"
        raise data_error(path, reason, "Use np.array(list_of_words).")
    if vectors.dtype.kind not in "iuf" or len(vectors.shape) != 2:
        reason = f"`vectors` must be [n, dim] numbers, got {vectors.shape}"
        raise data_error(path, reason, "Give one row for each word.")
    if vectors.shape[0] != words.shape[0] or 0 in vectors.shape:
        reason = (
            f"`vectors` of shape {vectors.shape} does not fit `words` of shape "
            f"{words.shape}"
        )
        raise data_error(path, reason, "Give one row for each word.")
    spelt = np.concatenate(list(archives.read_blocks(archive, words, num_axes=1)))
    with np.errstate(over="ignore"):
        blocks = archives.read_blocks(archive, vectors, num_axes=1)
        rows = np.concatenate([block.astype(np.float32) for block in blocks])
    is_finite = np.isfinite(rows).all(axis=1)
    if not is_finite.all():
        row = int(np.argmin(is_finite))
        reason = f"`vectors` must be finite in float32, row {row} is not"
        raise data_error(path, reason, "Leave such words out.")
    found: dict[str, int] = {}
    for k, word in enumerate(spelt.tolist()):
        found.setdefault(word, k)
    return WordVectors(tuple(found), rows[list(found.values())])


def vector_table(
    vocabulary: Vocabulary,
    words: WordVectors | None = None,
    *,
    width: int,
    seed: int = 0,
) -> np.ndarray:
    """Return the vectors that an encoder of texts starts from.

    Given vectors are centred, brought to a mean length of 1, and fill the first
    columns; the others, and whole rows of unknown words, are filled at random: there
    every word is nearly at right angles to every other, so that words which are equal
    tell more than words which are similar. Padding has zeros.

    Args:
      vocabulary: whose ids number the rows.
      words: the vectors; None fills all at random.
      width: of the table, at least that of the vectors.
      seed: of the random columns.

    Returns:
      [num_tokens, width] float32.

    Raises:
      ValueError: `width` is less than that of the vectors.

    Memory: the table, twice.

    Example:
      >>> import numpy as np
      >>> from jaxmetric.data.vocabulary import word_vocabulary
      >>> words = WordVectors(("a", "cat"), np.eye(2, dtype=np.float32))
      >>> vocabulary = word_vocabulary(["A cat."], words.words, num_unknown=3)
      >>> vector_table(vocabulary, words, width=4).shape
      (7, 4)
    """
    given = 0 if words is None else words.vectors.shape[1]
    if width < given or width < 1:
        raise ValueError(
            f"vector_table: `width` must be at least {max(given, 1)}, the width of the "
            f"vectors, got {width}. Use {given + 200}."
        )
    rng = np.random.Generator(np.random.Philox(seed))
    table = rng.standard_normal((vocabulary.num_tokens, width), np.float32)
    if given:
        table[:, :given] /= np.sqrt(np.float32(given))
    if width > given:
        scale = 1 if not given else _LEXICAL
        table[:, given:] *= np.float32(scale / np.sqrt(width - given))
    if words is not None:
        centred = words.vectors - words.vectors.mean(0)
        length = np.linalg.norm(centred, axis=1).mean()
        ids = vocabulary.ids_of(words.words)
        is_known = ids > 0
        table[ids[is_known], :given] = (centred / max(length, 1e-12))[is_known]
    table[0] = 0
    return table
