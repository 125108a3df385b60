"""Text similarity: the STS benchmark, trained on its train part, measured on its dev.

* jaxmetric: the command `train` with the options that are named, in this process.
* tf-idf: scikit-learn's, of words by default and of pieces of words, fitted on the
  training texts; the cosine.
* mean of vectors: the cosine of the plain means of the words' GloVe vectors.

The settings were chosen on held-out pairs of the train part.
"""

import tempfile
from collections.abc import Container, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import jaxmetric as jm
from jaxmetric.cli import main
from jaxmetric.cli.paired.correlation_metrics import correlations
from jaxmetric.cli.summary import read_summary

NAMES = ("stsb",)
_WORDS = ("--word-vectors", "glove_50d.npz")
_METHODS = {
    "jaxmetric: word vectors, scores": _WORDS,
    "jaxmetric: word vectors, scores (shrinkage)": (*_WORDS, "--loss", "shrinkage"),
    "jaxmetric: word vectors, triplets": (*_WORDS, "--loss", "triplet_margin"),
    "jaxmetric: word vectors, in-batch": (*_WORDS, "--loss", "info_nce"),
    "jaxmetric: pieces of words, scores": (),
    "jaxmetric: transformer, scores": (
        *(*_WORDS, "--model", "transformer"),
        *("--max-length", "24"),
    ),
}


def run(
    data_folder: Path | None,
    *,
    only: Container[str] = NAMES,
    num_seeds: int = 3,
    is_reduced: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each method and seed; none where the data is not there.

    Args:
      data_folder: with stsb_train.tsv, stsb_dev.tsv and glove_50d.npz.
      only: names of the applications to measure.
      num_seeds: runs of each method that is trained.
      is_reduced: a few steps of the first method alone.
    """
    if "stsb" not in only or data_folder is None:
        return
    files = [data_folder / name for name in ("stsb_train.tsv", "stsb_dev.tsv")]
    vectors = data_folder / "glove_50d.npz"
    if not all(file.is_file() for file in (*files, vectors)):
        return
    train, dev = (jm.data.load_texts(file) for file in files)
    assert isinstance(train, jm.data.ScoredTexts)
    assert isinstance(dev, jm.data.ScoredTexts)
    yield _row("tf-idf of words", tf_idf(train, dev))
    pieces = tf_idf(train, dev, analyzer="char_wb", ngram_range=(3, 5))
    yield _row("tf-idf of 3 to 5 letters", pieces)
    yield _row("mean of vectors", mean_of_vectors(vectors, dev))
    for method, options in list(_METHODS.items())[: 1 if is_reduced else None]:
        named = [str(vectors) if o == "glove_50d.npz" else o for o in options]
        named += ["--steps", "5"] if is_reduced else []
        for seed in range(num_seeds):
            yield _row(method, _train(files, [*named, "--seed", str(seed)]), seed)


def tf_idf(
    train: jm.data.ScoredTexts, dev: jm.data.ScoredTexts, **options: Any
) -> dict[str, float]:
    """Return the correlations of the cosine of tf-idf."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(**options).fit(train.first + train.second)
    first, second = (vectorizer.transform(side) for side in (dev.first, dev.second))
    cosines = np.asarray(first.multiply(second).sum(axis=1)).reshape(-1)
    return correlations(cosines, dev.scores)


def mean_of_vectors(path: Path, dev: jm.data.ScoredTexts) -> dict[str, float]:
    """Return the correlations of the cosine of plain means of word vectors."""
    words = jm.data.load_word_vectors(path)
    vocabulary = jm.data.word_vocabulary(dev.first + dev.second, words.words)
    table = np.zeros((vocabulary.num_tokens, words.vectors.shape[1]), np.float32)
    table[vocabulary.ids_of(words.words)] = words.vectors
    sums = [table[vocabulary.encode(side)].sum(1) for side in (dev.first, dev.second)]
    lengths = [np.maximum(np.linalg.norm(x, axis=1), 1e-12) for x in sums]
    cosines = np.sum(sums[0] * sums[1], axis=1) / (lengths[0] * lengths[1])
    return correlations(cosines, dev.scores)


def _train(files: list[Path], options: list[str]) -> dict[str, float]:
    """Return the correlations of a run of the command, and how long all of it took."""
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        out = Path(folder, "run")
        data = [str(files[0]), "--eval-data", str(files[1]), "--out", str(out)]
        code = main(["train", *data, "--plain", *options])
        told = read_summary(out / "summary.json")
    if code != 0 or told is None:
        raise RuntimeError(f"jaxmetric train {' '.join(options)}: exit code {code}")
    return {**told["trained"], "seconds": round(perf_counter() - start, 1)}


def _row(method: str, metrics: dict[str, float], seed: int = 0) -> dict[str, Any]:
    """Return a row of the table."""
    names = ("spearman", "pearson", "seconds")
    told = {name: metrics[name] for name in names if name in metrics}
    return {"application": "stsb", "method": method, "seed": seed, **told}
