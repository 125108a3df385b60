"""Scored pairs of texts: trained on the scores, or on what they say of pairs."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import jaxmetric as jm
from jaxmetric.cli import texts
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.measure import Metrics
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.paired.correlation_metrics import correlations
from jaxmetric.cli.paired.measure import EmbedSide
from jaxmetric.cli.paired.scored_losses import ScoredLoss, resolve_scored
from jaxmetric.cli.paired.scored_program import ScoredProgram
from jaxmetric.cli.paired.scored_split import components, divided
from jaxmetric.cli.paired.sections import check_sections
from jaxmetric.cli.paired.split import PairedSplit, make_split
from jaxmetric.cli.paired.tasks import Task
from jaxmetric.cli.split import load_like, told_as_usage
from jaxmetric.data import PairedDataset, ScoredTexts, Vocabulary
from jaxmetric.data.paired import Side

# Where a pair counts as alike, and as different, on the way from the least score to the
# greatest; batches, steps and step size chosen on held-out training pairs of STS-B.
_ABOVE, _BELOW = 0.8, 0.4
_LOSS, _BATCH_SIZE, _STEPS, _LEARNING_RATE = "correlation", 64, 500, 5e-3
_TRANSFORMER_RATE = 5e-4
_TRIPLETS_PER_PAIR = 4


class ScoredTextPairs(Task):
    """Pairs of texts of a .tsv file, with scores for how much they mean the same."""

    name = "scored texts"
    columns: Mapping[str, str] = {"spearman": "Spearman", "pearson": "Pearson"}
    program_class = ScoredProgram

    def __init__(self):
        self.vocabulary: Vocabulary | None = None
        self._vectors: Any = None
        self._texts: tuple[ScoredTexts, ScoredTexts] | None = None
        self._negatives: np.ndarray | None = None
        self._train_ids: np.ndarray | None = None
        self._range = (0.0, 1.0)

    def read(self, path: str) -> ScoredTexts:
        """Return the texts of a file, as they are.

        Raises:
          UsageError, DataError: it cannot be used.
        """
        with told_as_usage():
            found = jm.data.load_texts(path, require_labels=False)
        if not isinstance(found, ScoredTexts):
            raise UsageError(
                f"{path}: has no scores, and the run is of scored pairs. Write lines "
                "of score<tab>text<tab>text."
            )
        return found

    def load(self, path: str, options: TrainOptions) -> PairedDataset:
        """Return the pairs of a file as tokens."""
        return self._encoded(self.read(path))

    def measured_on(self, path: str, options: TrainOptions) -> PairedSplit:
        """Return other pairs as what a run that is there is measured on."""
        loaded = self.load(path, options)
        return make_split(loaded, loaded)

    def load_side(
        self, path: str, side: Side, options: TrainOptions
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the tokens of one side, of scored pairs or of texts alone."""
        with told_as_usage():
            found = jm.data.load_texts(path, require_labels=False)
        assert self.vocabulary is not None
        if isinstance(found, ScoredTexts):
            rows = found.first if side == "query" else found.second
            return self.vocabulary.encode(rows), None
        return self.vocabulary.encode(found.texts), found.labels

    def searched(self, path: str, side: Side, options: TrainOptions) -> jm.data.Dataset:
        """Return the texts of a file, whichever side."""
        shape = [self.vocabulary.length] if self.vocabulary else None
        return load_like(
            path,
            shape,
            on_error="stop",
            require_labels=False,
            vocabulary=self.vocabulary,
        )

    def split(self, options: TrainOptions) -> PairedSplit:
        """Return what is trained on and what is held out."""
        data = options.data
        loaded = self.read(data.data)
        if data.eval_data is not None:
            train, held_out = loaded, self.read(data.eval_data)
        else:
            train, held_out = divided(loaded, options)
        self._texts = (train, held_out)
        if self.vocabulary is None:
            both = train.first + train.second
            found = texts.make_vocabulary(both, options.text)
            self.vocabulary, self._vectors = found
        pairs = self._encoded(train)
        self._train_ids = np.concatenate([pairs.query, pairs.key])
        self._range = (float(train.scores.min()), float(train.scores.max()))
        name = options.loss.name or _LOSS
        loss = resolve_scored(name, {})
        if loss.is_triplets:
            pairs = self._triplets(train, pairs, options)
        elif not loss.takes_scores:
            pairs = self._alike(pairs, options)
        return make_split(pairs, self._encoded(held_out))

    def resolve(self, name: str, chosen: Mapping[str, Any]) -> ScoredLoss:
        """Return the loss of a name; here also those of scores and of triplets."""
        return resolve_scored(name, chosen)

    def defaults(self, options: TrainOptions, train: PairedDataset) -> TrainOptions:
        """Return the options with a value in place of every "auto" of the data."""
        optimization, pairs, loss = options.optimization, options.pairs, options.loss
        if optimization.steps is None and optimization.epochs is None:
            optimization = dataclasses.replace(optimization, steps=_STEPS)
        if optimization.learning_rate is None:
            kind = (options.model.query or {}).get("kind", options.model.kind)
            is_deep = kind == "transformer"
            rate = _TRANSFORMER_RATE if is_deep else _LEARNING_RATE
            optimization = dataclasses.replace(optimization, learning_rate=rate)
        if loss.name is None:
            loss = dataclasses.replace(loss, name=_LOSS)
        if pairs.batch_size is None:
            size = min(_BATCH_SIZE, len(train))
            pairs = dataclasses.replace(pairs, batch_size=size)
        text = options.text
        if text.word_vectors is not None:
            path = str(Path(text.word_vectors).absolute())
            text = dataclasses.replace(text, word_vectors=path)
        return dataclasses.replace(
            options, optimization=optimization, pairs=pairs, loss=loss, text=text
        )

    def sections(self, options: TrainOptions, train: PairedDataset) -> dict[str, Any]:
        """Return the section `model`: one encoder for both texts of a pair."""
        pairs = options.pairs
        for name in ("freeze", "standardize", "duplicates"):
            if getattr(pairs, name) is not None:
                raise UsageError(
                    f"--{name} takes rows of features, and {options.data.data} has "
                    "texts. Leave it out."
                )
        if options.model.kind == "towers":
            return check_sections(options)
        assert self.vocabulary is not None
        found = texts.section(options, self.vocabulary, self._vectors)
        dim = found.pop("dim")
        return {
            "kind": "towers",
            "shared": pairs.towers != "separate",
            "frozen": None,
            "query": found,
            "key": dict(found),
            "dim": dim,
        }

    def start(
        self, options: TrainOptions, params: Any, model_state: Any, train: PairedDataset
    ) -> tuple[Any, Any]:
        """Return parameters and state with which training begins: word vectors."""
        assert self.vocabulary is not None
        assert self._train_ids is not None
        for branch in sorted({"encoder", "left", "right"} & params.keys()):
            begun = texts.started(
                params[branch],
                model_state.get(branch, {}),
                vocabulary=self.vocabulary,
                vectors=self._vectors,
                ids=self._train_ids,
                seed=options.run.seed,
            )
            params = {**params, branch: begun[0]}
            if branch in model_state:
                model_state = {**model_state, branch: begun[1]}
        return params, model_state

    def rows(
        self, options: TrainOptions, train: PairedDataset
    ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return scores from 0 to 1, or which pairs mean the same; or negatives."""
        if self._negatives is not None:
            return {"negatives": self._negatives}, ()
        if train.scores is not None:
            low, high = self._range
            return {"scores": (train.scores - low) / (high - low)}, ()
        return {"labels": components(train)}, ()

    def evaluate(self, embed: EmbedSide, split: PairedSplit) -> Metrics:
        """Return how well cosines order the pairs as their scores do."""
        data = split.held_out
        rows = [embed("query", data.query), embed("key", data.key)]
        first, second = (_unit(x) for x in rows)
        assert data.scores is not None
        return correlations(np.sum(first * second, axis=1), data.scores)

    def baseline(self, split: PairedSplit) -> tuple[str, Metrics] | None:
        """Return the metrics of the cosine of tf-idf, fitted on the training texts."""
        assert self._texts is not None
        return "tf-idf", tf_idf(*self._texts)

    def title(self, split: PairedSplit) -> str:
        """Return the title of the closing table."""
        count = f"{len(split.held_out):,} pairs of texts"
        return f"Correlation of cosines with the scores of {count} never seen"

    def report_parts(
        self, embed: EmbedSide, split: PairedSplit
    ) -> list[tuple[str, str, str]]:
        """Return sections of the report, (key, title, HTML); "metrics" comes first."""
        from jaxmetric.cli.report.scored_texts import parts_of

        data = split.held_out
        first, second = embed("query", data.query), embed("key", data.key)
        assert self._texts is not None
        return parts_of(self._texts[1], _unit(first), _unit(second))

    def files(self, split: PairedSplit) -> dict[str, str | bytes]:
        """Return the vocabulary, to be kept with the run."""
        assert self.vocabulary is not None
        return {texts.VOCABULARY: self.vocabulary.to_json()}

    def reload(self, folder: Path, options: TrainOptions) -> None:
        """Read the vocabulary that the run has kept."""
        self.vocabulary = texts.load_vocabulary(folder)

    def _encoded(self, pairs: ScoredTexts) -> PairedDataset:
        """Return pairs as tokens with their scores."""
        assert self.vocabulary is not None
        first, second = (
            self.vocabulary.encode(side) for side in (pairs.first, pairs.second)
        )
        return PairedDataset(first, second, pairs.name, scores=pairs.scores)

    def _thresholds(self, options: TrainOptions) -> tuple[float, float]:
        """Return the scores of pairs that are alike, and of pairs that are not."""
        low, high = self._range
        text = options.text
        above = low + _ABOVE * (high - low) if text.above is None else text.above
        below = low + _BELOW * (high - low) if text.below is None else text.below
        if not low <= above <= high:
            raise UsageError(
                f"--above must be from {low:g} to {high:g}, the scores of "
                f"{options.data.data}, got {above:g}."
            )
        return above, below

    def _alike(self, pairs: PairedDataset, options: TrainOptions) -> PairedDataset:
        """Return the pairs of a high score, without their scores."""
        above, _ = self._thresholds(options)
        assert pairs.scores is not None
        chosen = pairs.take(pairs.scores >= above)
        note = (
            f"{len(chosen):,} of {len(pairs):,} training pairs have a score of "
            f"{above:g} or more and are trained on (--above)"
        )
        return dataclasses.replace(chosen, scores=None, notes=(note,))

    def _triplets(
        self, given: ScoredTexts, pairs: PairedDataset, options: TrainOptions
    ) -> PairedDataset:
        """Return anchors with their positives; the negatives are kept aside."""
        above, below = self._thresholds(options)
        # The same text is the same item, wherever it stands.
        numbers = {
            t: k for k, t in enumerate(dict.fromkeys(given.first + given.second))
        }
        items = np.array(
            [[numbers[t] for t in side] for side in (given.first, given.second)]
        ).T
        count = max(int((given.scores >= above).sum()), 1) * _TRIPLETS_PER_PAIR
        with told_as_usage():
            drawn = jm.data.score_triplets(
                items,
                given.scores,
                num_triplets=count,
                above=above,
                below=below,
                seed=options.run.seed,
            )
        assert self.vocabulary is not None
        rows = self.vocabulary.encode(list(numbers))
        anchor, positive, self._negatives = (rows[drawn[:, k]] for k in range(3))
        note = f"{count:,} triplets drawn from scores >= {above:g} and <= {below:g}"
        return PairedDataset(anchor, positive, pairs.name, notes=(note,))


def tf_idf(train: ScoredTexts, held_out: ScoredTexts) -> Metrics:
    """Return the metrics of the cosine of tf-idf, fitted on the training texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer()
    try:
        vectorizer.fit(train.first + train.second)
    except ValueError:  # no text has a word of two letters
        return {}
    first, second = (
        vectorizer.transform(side) for side in (held_out.first, held_out.second)
    )
    cosines = np.asarray(first.multiply(second).sum(axis=1)).reshape(-1)
    return correlations(cosines, held_out.scores)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1; a zero row stays zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
