"""From texts to token ids, by a vocabulary that is kept with the run."""

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmetric.data.errors import data_error

_PADDING, _UNKNOWN = "[PAD]", "[UNK]"
# "don't" is "do" and "n't", "it's" is "it" and "'s", as in the treebanks that public
# word vectors were made of; any other sign stands alone.
_WORDS = r"\w+(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\w+|[^\w\s]"
_FORMAT = 1
# Longer texts are cut there, whatever the longest of the training texts is.
_MAX_LENGTH = 128


class Vocabulary:
    """Which tokens a text has, and their ids.

    Id 0 is padding; ids 1 to `num_known` - 1 are the tokens that are known, of which 1
    stands for unknown signs. A word that is not known gets one of the `num_unknown` ids
    behind these, by a hash of its letters: two texts with the same unknown word still
    have it in common.

    Args:
      tokenizer: of the library `tokenizers`, with [PAD] as 0 and [UNK] as 1.
      length: tokens of a row; longer texts are cut, shorter ones filled up with 0.
      num_unknown: ids for unknown words; 0 makes all of them 1.

    Raises:
      ValueError: a number out of range.

    Memory: the vocabulary.

    Example:
      >>> vocabulary = subword_vocabulary(["a cat", "a dog"], size=30)
      >>> again = Vocabulary.from_json(vocabulary.to_json())
      >>> bool((again.encode(["a cat"]) == vocabulary.encode(["a cat"])).all())
      True
    """

    def __init__(self, tokenizer: Any, *, length: int, num_unknown: int = 0):
        for name, value, least in (
            ("length", length, 1),
            ("num_unknown", num_unknown, 0),
        ):
            if type(value) is not int or value < least:
                raise ValueError(
                    f"Vocabulary: `{name}` must be an int >= {least}, got {value!r}. "
                    f"Use {max(least, 32)}."
                )
        self._tokenizer = tokenizer
        self.length, self.num_unknown = length, num_unknown

    @property
    def num_known(self) -> int:
        """Number of ids of padding, [UNK], and known tokens."""
        return self._tokenizer.get_vocab_size()

    @property
    def num_tokens(self) -> int:
        """Number of all ids: the rows of a table of vectors."""
        return self.num_known + self.num_unknown

    def ids_of(self, words: Iterable[str]) -> np.ndarray:
        """Return [n] int32, the ids of words as they are spelt; 0 if not known."""
        known = self._tokenizer.get_vocab()
        return np.array([known.get(word, 0) for word in words], np.int32)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return [n, length] int32 token ids of texts."""
        ids = np.zeros((len(texts), self.length), np.int32)
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for row, text, encoding in zip(ids, texts, encodings, strict=True):
            found = encoding.ids[: self.length]
            if self.num_unknown:
                offsets = encoding.offsets
                for k, number in enumerate(found):
                    if number == 1:
                        start, stop = offsets[k]
                        found[k] = self._hashed(text[start:stop])
            row[: len(found)] = found
        return ids

    def longest(self, texts: Sequence[str]) -> int:
        """Return the number of tokens of the longest of some texts."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return max((len(encoding.ids) for encoding in encodings), default=0)

    def to_json(self) -> str:
        """Return all of it as text, for `from_json`."""
        content = {
            "format": _FORMAT,
            "length": self.length,
            "num_unknown": self.num_unknown,
            "tokenizer": json.loads(self._tokenizer.to_str()),
        }
        return json.dumps(content, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Vocabulary":
        """Return the vocabulary that `to_json` told.

        Raises:
          ValueError: the text is something else.
        """
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(
                f"Vocabulary.from_json: `text` must be of format {_FORMAT}, got "
                "another. Make it with Vocabulary.to_json."
            )
        try:
            tokenizer = _library().Tokenizer.from_str(json.dumps(content["tokenizer"]))
        except Exception as error:  # the library raises a bare Exception
            raise ValueError(
                "Vocabulary.from_json: `text` must hold a tokenizer, got one that "
                f"cannot be read ({error}). Make it with Vocabulary.to_json."
            ) from error
        return cls(
            tokenizer,
            length=content.get("length", 0),
            num_unknown=content.get("num_unknown", -1),
        )

    def _hashed(self, word: str) -> int:
        """Return the id of an unknown word."""
        code = zlib.crc32(word.lower().encode())
        return self.num_known + code % self.num_unknown


def word_vocabulary(
    texts: Sequence[str],
    words: Sequence[str],
    *,
    max_words: int = 50_000,
    num_unknown: int = 2048,
    max_length: int = _MAX_LENGTH,
) -> Vocabulary:
    """Return a vocabulary of whole words, those that there are vectors of.

    Texts are put in lower case where no word has a capital letter.

    Args:
      texts: what is trained on; gives the length of a row, and which words come first.
      words: those with a vector, as `load_word_vectors` gives them.
      max_words: of more, those that the texts have are kept, and then the first ones.
      num_unknown: ids for words that are not known.
      max_length: greatest length of a row, in tokens.

    Returns:
      A `Vocabulary`.

    Raises:
      ImportError: the library `tokenizers` is not installed.

    Memory: O(words + texts).

    Example:
      >>> vocabulary = word_vocabulary(["A cat sat."], ["a", "cat", "."])
      >>> vocabulary.encode(["A cat."]).tolist(), vocabulary.num_known
      ([[2, 3, 4, 0]], 5)
    """
    library = _library()
    is_lower = all(word == word.lower() for word in words)
    tokenizer = library.Tokenizer(library.models.WordLevel({}, unk_token=_UNKNOWN))
    _prepare(tokenizer, lowercase=is_lower)
    words = list(dict.fromkeys(words))
    if len(words) > max_words:
        seen = {word for text in texts for word in _split(tokenizer, text)}
        # Sorting is stable: each part stays in the order of the file.
        words = sorted(words, key=lambda word: word not in seen)[:max_words]
    ids = {word: k for k, word in enumerate([_PADDING, _UNKNOWN, *words])}
    tokenizer.model = library.models.WordLevel(ids, unk_token=_UNKNOWN)
    return _fitted(tokenizer, texts, max_length, num_unknown)


def subword_vocabulary(
    texts: Sequence[str], *, size: int = 4096, max_length: int = _MAX_LENGTH
) -> Vocabulary:
    """Return a vocabulary of pieces of words, learned by byte-pair encoding.

    Texts are put in lower case. Any word is spelt in the pieces that are known, so only
    signs that no training text has are unknown.

    Args:
      texts: what it is learned on; they give the length of a row too.
      size: greatest number of tokens.
      max_length: greatest length of a row, in tokens.

    Returns:
      A `Vocabulary`, the same for the same texts.

    Raises:
      ImportError: the library `tokenizers` is not installed.

    Memory: O(texts).

    Example:
      >>> vocabulary = subword_vocabulary(["low lower lowest"] * 2, size=16)
      >>> (vocabulary.encode(["low", "slow"]) > 0).sum(axis=1).tolist()
      [1, 2]

    Source: Sennrich, Haddow, Birch. Neural Machine Translation of Rare Words with
    Subword Units. ACL 2016. arXiv:1508.07909.
    """
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE(unk_token=_UNKNOWN))
    _prepare(tokenizer, lowercase=True)
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_PADDING, _UNKNOWN],
        # No prefix for pieces inside words: their numbers would be random.
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _fitted(tokenizer, texts, max_length, 0)


def inverse_frequencies(ids: np.ndarray, num_tokens: int) -> np.ndarray:
    """Return how rare each token is among texts.

    log((1 + n) / (1 + number of texts with it)) + 1, as scikit-learn's tf-idf has it; a
    token of no text is the rarest.

    Args:
      ids: [n, length] int32, 0 for padding.
      num_tokens: of the vocabulary.

    Returns:
      [num_tokens] float32, 0 for padding.

    Memory: O(n x length).

    Example:
      >>> import numpy as np
      >>> ids = np.array([[1, 2], [1, 0]], np.int32)
      >>> inverse_frequencies(ids, 4).round(2).tolist()
      [0.0, 1.0, 1.41, 2.1]
    """
    rows = np.arange(len(ids))[:, None] * num_tokens + ids
    # A token that a text has twice counts once.
    counts = np.bincount(np.unique(rows) % num_tokens, minlength=num_tokens)
    rarity = np.log((1 + len(ids)) / (1 + counts)) + 1
    rarity[0] = 0
    return rarity.astype(np.float32)


def load_vocabulary(path: str | os.PathLike) -> Vocabulary:
    """Return the vocabulary of a file that holds `Vocabulary.to_json`.

    Args:
      path: the file, such as vocabulary.json of a run.

    Returns:
      A `Vocabulary`.

    Raises:
      DataError: the file cannot be read or is no vocabulary; one line.

    Memory: the vocabulary.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "vocabulary.json")
      ...     _ = path.write_text(word_vocabulary(["a cat"], ["a", "cat"]).to_json())
      ...     vocabulary = load_vocabulary(path)
      >>> vocabulary.encode(["cat"]).tolist()
      [[3, 0]]
    """
    try:
        return Vocabulary.from_json(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        remedy = "Restore the file that the run was made with."
        raise data_error(path, "no such file", remedy) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = f"is no vocabulary ({type(error).__name__}: {error})"
        remedy = "Restore the file that the run was made with."
        raise data_error(path, reason, remedy) from error


def _prepare(tokenizer: Any, *, lowercase: bool) -> None:
    """Let a tokenizer cut texts into words."""
    library = _library()
    steps = [library.normalizers.NFC()]
    # Typographic apostrophes are those of "don't".
    steps += [library.normalizers.Replace(sign, "'") for sign in "\u2019\u2018"]
    if lowercase:
        steps.append(library.normalizers.Lowercase())
    tokenizer.normalizer = library.normalizers.Sequence(steps)
    words = library.Regex(_WORDS)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Split(
        words, "removed", invert=True
    )


def _split(tokenizer: Any, text: str) -> list[str]:
    """Return the words of a text."""
    normal = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]


def _fitted(
    tokenizer: Any, texts: Sequence[str], max_length: int, num_unknown: int
) -> Vocabulary:
    """Return a vocabulary whose rows hold the longest text, within bounds."""
    vocabulary = Vocabulary(tokenizer, length=1, num_unknown=num_unknown)
    vocabulary.length = min(max(vocabulary.longest(texts), 1), max_length)
    return vocabulary


def _library() -> Any:
    """Return the library `tokenizers`."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "Texts need tokenizers. Use pip install 'jaxmetric[text]'."
        ) from error
    return tokenizers
