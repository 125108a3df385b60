"""Users and items: pairs of ids, judged by the items that a user has not seen."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmetric as jm
from jaxmetric.cli import losses
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.measure import Metrics
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.paired import defaults
from jaxmetric.cli.paired.losses import PairedLoss
from jaxmetric.cli.paired.measure import EmbedSide
from jaxmetric.cli.paired.sections import SIDES, check_sections
from jaxmetric.cli.paired.split import PairedSplit, make_split
from jaxmetric.cli.paired.tasks import Task
from jaxmetric.cli.split import told_as_usage
from jaxmetric.data import PairedDataset, archives, npz
from jaxmetric.data.paired import Side
from jaxmetric.models.frozen import column_statistics

KS = (10, 20)
# Of the defaults of pairs these differ: a table learns a row a step, and slowly.
_EPOCHS, _BATCH_SIZE, _LEARNING_RATE, _HIDDEN = 20, 512, 5e-3, (64,)
# Softer than the default of info_nce: of what a user might like, one thing is known.
_LOSS, _TEMPERATURE = "info_nce", 0.2
# A table has a row for every id up to the largest, whether it occurs or not.
_MOST_IDS = 10_000_000


class Interactions(Task):
    """A row is a user who met an item; see `Task`.

    Features of ids stand in arrays of the file, a row an id: `user_features` beside
    the ids `user`.
    """

    name = "interactions"
    columns: Mapping[str, str] = {
        "recall_at_10": "Recall@10",
        "recall_at_20": "Recall@20",
        "ndcg_at_10": "NDCG@10",
    }

    def __init__(self):
        self._features: dict[Side, np.ndarray | None] = {}
        self._sizes: dict[Side, int] = {}

    def resolve(self, name: str, chosen: Mapping[str, Any]) -> PairedLoss:
        """Return the loss of a name: users choose among items, and not the reverse."""
        return PairedLoss(*losses.resolve(name, chosen, of_pairs=True))

    def load(self, path: str, options: TrainOptions) -> PairedDataset:
        """Return the interactions of a file."""
        if options.pairs.labels is not None:
            raise UsageError(
                "--labels has no effect on users and items: the same item is no "
                "negative of itself already. Leave it out."
            )
        loaded = super().load(path, options)
        for side in SIDES:
            self._check_ids(path, side, loaded.side(side), options)
        # Categories of a file are not asked for.
        return dataclasses.replace(loaded, labels=None, class_names=())

    def load_side(
        self, path: str, side: Side, options: TrainOptions
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the ids of one side of a file."""
        ids, _ = super().load_side(path, side, options)
        self._check_ids(path, side, ids, options)
        return ids, None

    def searched(self, path: str, side: Side, options: TrainOptions) -> jm.data.Dataset:
        """Return the ids of one side, each once, as rows that are called by them."""
        ids = np.unique(self.load_side(path, side, options)[0])
        name = getattr(options.pairs, side)
        called = tuple(f"{name} {number}" for number in ids.tolist())
        return jm.data.Dataset(ids[:, None], None, (), Path(path).stem, texts=called)

    def embed_searched(
        self, embed: EmbedSide, side: Side, inputs: np.ndarray
    ) -> np.ndarray:
        """Return the embeddings of the ids."""
        return embed(side, inputs[:, 0])

    def measured_on(self, path: str, options: TrainOptions) -> PairedSplit:
        """Return other interactions; what was trained on is seen."""
        return make_split(self.split(options).train, self.load(path, options))

    def split(self, options: TrainOptions) -> PairedSplit:
        """Return the interactions to train on, and some of every user held out."""
        data = options.data
        loaded = self.load(data.data, options)
        if data.eval_data is not None:
            made = make_split(loaded, self.load(data.eval_data, options))
        else:
            with told_as_usage():
                rows = jm.data.hold_out_interactions(
                    loaded.query,
                    loaded.key,
                    fraction=data.eval_fraction,
                    order=options.pairs.hold_out or "random",
                    seed=data.split_seed,
                )
            made = make_split(*(loaded.take(chosen) for chosen in rows))
        digest = hashlib.sha256(made.sha256.encode())
        for side in SIDES:
            largest = max(int(x.side(side).max()) for x in (made.train, made.held_out))
            self._features[side] = features = _features(data.data, side, options)
            self._sizes[side] = largest + 1 if features is None else len(features)
            if features is not None and len(features) <= largest:
                name = getattr(options.pairs, side)
                raise UsageError(
                    f"{data.data}: `{name}_features` has {len(features)} rows, and "
                    f"`{name}` holds ids up to {largest}. Give a row for every id."
                )
            if features is not None:
                digest.update(features.tobytes())
        return made._replace(sha256=digest.hexdigest())

    def defaults(self, options: TrainOptions, train: PairedDataset) -> TrainOptions:
        """Return the options with a value in place of every "auto" of the data."""
        optimization, pairs = options.optimization, options.pairs
        if optimization.steps is None and optimization.epochs is None:
            optimization = dataclasses.replace(optimization, epochs=_EPOCHS)
        if optimization.learning_rate is None:
            rate = _LEARNING_RATE
            optimization = dataclasses.replace(optimization, learning_rate=rate)
        if pairs.batch_size is None:
            size = min(_BATCH_SIZE, len(train))
            pairs = dataclasses.replace(pairs, batch_size=size)
        loss: Any = options.loss
        if loss.name is None:
            loss = dataclasses.replace(loss, name=_LOSS)
        is_usual = loss.name.removesuffix("_loss") == _LOSS
        if is_usual and loss.temperature is None:
            loss = dataclasses.replace(loss, temperature=_TEMPERATURE)
        options = dataclasses.replace(
            options, optimization=optimization, pairs=pairs, loss=loss
        )
        return defaults.fill(options, train)

    def sections(self, options: TrainOptions, train: PairedDataset) -> dict[str, Any]:
        """Return the section `model`: a table of ids for each side."""
        model, pairs = options.model, options.pairs
        for name, value in (
            ("freeze", pairs.freeze),
            ("duplicates", pairs.duplicates),
            ("towers shared", pairs.towers == "shared"),
        ):
            if value:
                raise UsageError(
                    f"--{name} has no effect on users and items, which are ids. Leave "
                    "it out."
                )
        if model.kind == "towers":
            return check_sections(options)
        if model.kind is not None:
            raise UsageError(
                f"--model {model.kind} takes other inputs than ids, which have a "
                "learned row each. Leave it out."
            )
        has_features = any(x is not None for x in self._features.values())
        for name in ("hidden", "widths"):
            if getattr(model, name) is not None and not (
                name == "hidden" and has_features
            ):
                raise UsageError(
                    f"--{name} has no effect on ids without features. Leave it out."
                )
        if pairs.standardize is not None and not has_features:
            raise UsageError(
                "--standardize has no effect on ids without features. Leave it out."
            )
        found: dict[str, Any] = {"kind": "towers", "shared": False, "frozen": None}
        for side in SIDES:
            section: dict[str, Any] = {"kind": "ids", "input_shape": []}
            section["num_ids"] = self._sizes[side]
            features = self._features[side]
            if features is not None:
                section["num_features"] = features.shape[1]
                section["hidden"] = list(model.hidden or _HIDDEN)
            found[side] = section
        found["dim"] = model.dim or defaults.PAIRS.dim
        return found

    def start(
        self, options: TrainOptions, params: Any, model_state: Any, train: PairedDataset
    ) -> tuple[Any, Any]:
        """Return parameters and state with the features of the ids."""
        for side, branch in zip(SIDES, ("left", "right"), strict=True):
            features = self._features[side]
            if features is None:
                continue
            if options.pairs.standardize is not False:
                # Of the ids as they are, not as often as they occur.
                known = jnp.asarray(features[np.unique(train.side(side))])
                with jax.numpy_rank_promotion("allow"):
                    scale = column_statistics(known)
                mean, factor = (np.asarray(scale[name]) for name in ("mean", "scale"))
                features = (features - mean) * factor
            table = {"features": jnp.asarray(features)}
            model_state = {**model_state, branch: model_state[branch] | table}
        return params, model_state

    def rows(
        self, options: TrainOptions, train: PairedDataset
    ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return how often each item occurs, and that it is no negative of itself."""
        found = {"labels": train.key}
        if options.pairs.correction is not False:
            _, places, counts = np.unique(
                train.key, return_inverse=True, return_counts=True
            )
            frequencies = np.log(counts / len(train))[places]
            found["log_frequencies"] = frequencies.astype(np.float32)
        return found, ()

    def evaluate(self, embed: EmbedSide, split: PairedSplit) -> Metrics:
        """Return how many of the items held out are found among the unseen."""
        users, items = known_ids(split)
        return recommend(split, embed("query", users), embed("key", items))

    def baseline(self, split: PairedSplit) -> tuple[str, Metrics]:
        """Return the metrics of the list of the most popular items."""
        users, items = known_ids(split)
        counts = np.bincount(split.train.key, minlength=items.max() + 1)[items]
        ones = np.ones((len(users), 1), np.float32)
        popularity = counts.astype(np.float32)[:, None]
        return "most popular", recommend(split, ones, popularity, distance="dot")

    def title(self, split: PairedSplit) -> str:
        """Return the title of the closing table."""
        users, items = (len(ids) for ids in known_ids(split))
        return f"{items:,} items for {users:,} users, of which each has seen some"

    def report_parts(
        self, embed: EmbedSide, split: PairedSplit
    ) -> list[tuple[str, str, str]]:
        """Return sections of the report, (key, title, HTML)."""
        from jaxmetric.cli.report.interactions import parts_of

        users, items = known_ids(split)
        rows = embed("query", users), embed("key", items)
        return parts_of(split, users, items, *rows)

    def _check_ids(
        self, path: str, side: Side, ids: np.ndarray, options: TrainOptions
    ) -> None:
        """Require ids that the tables have, or that can have one."""
        section, name = getattr(options.model, side) or {}, getattr(options.pairs, side)
        if ids.ndim != 1 or ids.dtype.kind != "i":
            raise UsageError(
                f"{path}: `{name}` must hold integer ids [n], got shape {ids.shape}. "
                "Give ids of the kind that the run was trained on."
            )
        largest, most = int(ids.max()), section.get("num_ids", _MOST_IDS)
        if largest >= most and "num_ids" in section:
            raise UsageError(
                f"{path}: `{name}` holds id {largest}, and the run knows ids up to "
                f"{most - 1}. Leave out the rows of ids that it was not trained on."
            )
        if largest >= most:
            raise UsageError(
                f"{path}: `{name}` holds id {largest}, and a table of so many rows is "
                f"too large. Use np.unique({name}, return_inverse=True)[1]."
            )


def known_ids(split: PairedSplit) -> tuple[np.ndarray, np.ndarray]:
    """Return the users with something held out, and all items, ascending."""
    items = np.unique(np.concatenate([split.train.key, split.held_out.key]))
    return np.unique(split.held_out.query), items


def recommend(
    split: PairedSplit,
    user_rows: np.ndarray,
    item_rows: np.ndarray,
    **options: Any,
) -> Metrics:
    """Return Recall@k and NDCG@k of rows of `known_ids`, as Python numbers."""
    found = jm.retrieval.recommendation(
        user_rows, item_rows, *pairs_of(split), ks=KS, **options
    )
    return {name: np.asarray(value).item() for name, value in found.items()}


def pairs_of(split: PairedSplit) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs held out and those seen, as places among `known_ids`."""
    users, items = known_ids(split)
    found = []
    for data in (split.held_out, split.train):
        is_known = np.isin(data.query, users)
        places = [
            np.searchsorted(ids, side[is_known])
            for ids, side in ((users, data.query), (items, data.key))
        ]
        found.append(np.stack(places, axis=1))
    return found[0], found[1]


def are_ids(options: TrainOptions) -> bool:
    """Return whether both sides are ids: of the run's encoders, or in the file."""
    sections = [getattr(options.model, side) for side in SIDES]
    if all(isinstance(section, Mapping) for section in sections):
        return all(section.get("kind") == "ids" for section in sections)
    path = Path(options.data.data)
    if path.suffix.lower() != ".npz":
        return False
    try:
        with npz.opened(path) as (archive, size):
            there = archives.array_names(archive)
            names = [getattr(options.pairs, side) for side in SIDES]
            if not all(name in there for name in names):
                return False
            members = [archives.read_header(archive, name, size) for name in names]
    except jm.data.DataError:
        return False  # which whoever reads it will tell
    return all(len(m.shape) == 1 and m.dtype.kind in "iu" for m in members)


def _features(path: str, side: Side, options: TrainOptions) -> np.ndarray | None:
    """Return the [num_ids, d] features of the ids of a side; None without any."""
    name = f"{getattr(options.pairs, side)}_features"
    with told_as_usage(), npz.opened(Path(path)) as (archive, size):
        if name not in archives.array_names(archive):
            return None
        member = archives.read_header(archive, name, size)
        if len(member.shape) != 2 or 0 in member.shape:
            raise UsageError(
                f"{path}: `{name}` must have shape (ids, columns), got {member.shape}. "
                "Give a row of features for every id, or rename the array."
            )
        return npz.read_features(Path(path), archive, member, name, 1)
