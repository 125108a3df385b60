"""Texts in a run: their vocabulary, their encoder, and the vectors it starts from."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import jaxmetric as jm
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import ModelOptions, TextOptions, TrainOptions
from jaxmetric.data import Vocabulary, WordVectors
from jaxmetric.models.build import parameters_of

VOCABULARY = "vocabulary.json"
KINDS = ("words", "transformer")

# Measured on held-out pairs of the STS benchmark: 200 random columns beside 50 of GloVe
# are 2 to 3 points of Spearman's correlation, since they tell equal words from alike.
_LEXICAL_WIDTH, _WIDTH, _TRANSFORMER_WIDTH, _DIM = 200, 250, 128, 64
_VOCABULARY_SIZE, _MAX_LENGTH = 4096, 64


def make_vocabulary(
    texts: Sequence[str], options: TextOptions
) -> tuple[Vocabulary, WordVectors | None]:
    """Return the vocabulary of a run, made of its training texts; and word vectors.

    Raises:
      UsageError, DataError: the options or the file of vectors cannot be used.
    """
    for name in ("vocabulary_size", "max_length"):
        value, least = getattr(options, name), 8 if name == "vocabulary_size" else 1
        if value is not None and not least <= value < 2**20:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} must be {least} to 1048575, got {value}.")
    max_length = options.max_length or _MAX_LENGTH
    try:
        if options.word_vectors is None:
            size = options.vocabulary_size or _VOCABULARY_SIZE
            vocabulary = jm.data.subword_vocabulary(
                texts, size=size, max_length=max_length
            )
            return vocabulary, None
        if options.vocabulary_size is not None:
            raise UsageError(
                "--vocabulary-size has no effect with --word-vectors, whose words are "
                "the vocabulary. Leave out one."
            )
        vectors = jm.data.load_word_vectors(options.word_vectors)
        vocabulary = jm.data.word_vocabulary(
            texts, vectors.words, max_length=max_length
        )
    except ImportError as error:
        raise UsageError(str(error)) from error
    return vocabulary, vectors


def load_vocabulary(folder: Path) -> Vocabulary:
    """Return the vocabulary that a run has kept.

    Raises:
      UsageError, DataError: it cannot be read.
    """
    try:
        return jm.data.load_vocabulary(folder / VOCABULARY)
    except ImportError as error:
        raise UsageError(str(error)) from error


def section(
    options: TrainOptions, vocabulary: Vocabulary, vectors: WordVectors | None
) -> dict[str, Any]:
    """Return the filled section `model` of an encoder of texts.

    Raises:
      UsageError: the options do not fit together.
    """
    model = options.model
    kind = model.kind or "words"
    if kind not in KINDS:
        raise UsageError(
            f"--model {kind} takes no texts. Use --model words or --model transformer."
        )
    given = 0 if vectors is None else vectors.vectors.shape[1]
    width = model.width
    if width is None and kind == "words":
        width = given + _LEXICAL_WIDTH if given else _WIDTH
    elif width is None:
        width = -(-max(_TRANSFORMER_WIDTH, given) // 4) * 4
    if width < max(given, 1):
        raise UsageError(
            f"--width must be at least {max(given, 1)}, the width of the word vectors, "
            f"got {width}. Leave it out."
        )
    dim = model.dim or (width if kind == "words" else _DIM)
    found: dict[str, Any] = {
        "kind": kind,
        "input_shape": [vocabulary.length],
        "num_tokens": vocabulary.num_tokens,
        "width": width,
        "dim": dim,
    }
    names = {field.name for field in dataclasses.fields(ModelOptions)}
    for name in sorted(names - found.keys() - {"shared", "frozen", "query", "key"}):
        value = getattr(model, name)
        if value is None:
            continue
        if name not in parameters_of(kind):
            raise UsageError(f"--{name} has no effect on --model {kind}. Leave it out.")
        found[name] = value
    if not 0 <= found.get("dropout", 0) < 1:
        raise UsageError(
            f"--dropout must be at least 0 and below 1, got {found['dropout']:g}."
        )
    return found


def started(
    params: Any,
    model_state: Any,
    *,
    vocabulary: Vocabulary,
    vectors: WordVectors | None,
    ids: np.ndarray,
    seed: int,
) -> tuple[Any, Any]:
    """Return the parameters and state of an encoder with which training begins.

    The vectors of words are the given ones, the weights of words what is rare in the
    training texts.

    Args:
      params, model_state: of the encoder, as it was built.
      vocabulary: of the run.
      vectors: given ones, or None.
      ids: [n, length] tokens of the training texts.
      seed: of what no vector is given for.
    """
    is_trained = "vectors" in params
    place = params if is_trained else model_state
    width = place["vectors"].shape[1]
    table = {
        "vectors": jm.data.vector_table(vocabulary, vectors, width=width, seed=seed)
    }
    if is_trained:
        params = {**params, **table}
    else:
        model_state = {**model_state, **table}
    if "weights" in params:
        rarity = jm.data.inverse_frequencies(ids, vocabulary.num_tokens)
        rarity[0] = 1  # padding, which is left out whatever its weight
        params = {**params, "weights": np.log(rarity)}
    return params, model_state


def encoded(data: jm.data.Dataset, vocabulary: Vocabulary) -> jm.data.Dataset:
    """Return a data set of texts whose inputs are their tokens."""
    assert data.texts is not None
    return dataclasses.replace(data, inputs=vocabulary.encode(data.texts))


def tf_idf_rows(
    train: Sequence[str], held_out: Sequence[str], *, most: int = 5000
) -> np.ndarray:
    """Return [n, words] float32 tf-idf of texts, fitted on training texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(max_features=most)
    try:
        vectorizer.fit(train)
    except ValueError:  # no text has a word of two letters
        return np.zeros((len(held_out), 1), np.float32)
    return vectorizer.transform(held_out).toarray().astype(np.float32)
