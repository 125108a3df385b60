"""Kinds of pairs: what a run does with each, and which kind its data is of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmetric as jm
from jaxmetric.cli import configs
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.measure import Metrics
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.paired import defaults, groups
from jaxmetric.cli.paired.correlation import canonical_correlation
from jaxmetric.cli.paired.losses import PairedLoss, resolve_paired
from jaxmetric.cli.paired.measure import ARROWS, EmbedSide, evaluate_pairs
from jaxmetric.cli.paired.program import PairedProgram
from jaxmetric.cli.paired.sections import SIDES, check_sections, make_sections
from jaxmetric.cli.paired.split import PairedSplit, hold_out, make_split
from jaxmetric.cli.split import told_as_usage
from jaxmetric.data import PairedDataset, npz
from jaxmetric.data.paired import Side, load_sides
from jaxmetric.data.texts import has_scores, is_text_file
from jaxmetric.models.frozen import column_statistics


class Task:
    """Pairs of an .npz file; other kinds of pairs change what differs.

    Attributes:
      name: of the kind.
      columns: headings of the closing table, by metric.
      program_class: what is computed.
    """

    name = "pairs"
    columns: Mapping[str, str] = {
        f"{direction}_{metric}": f"{arrow} {word}"
        for metric, word in (
            ("mean_average_precision", "mAP"),
            ("recall_at_10", "R@10"),
            ("recall_at_1", "R@1"),
        )
        for direction, arrow in ARROWS.items()
    }

    program_class: type[PairedProgram] = PairedProgram

    def resolve(self, name: str, chosen: Mapping[str, Any]) -> PairedLoss:
        """Return the loss of a name.

        Raises:
          UsageError: see `jaxmetric.cli.losses.resolve`.
        """
        return resolve_paired(name, chosen)

    def load(self, path: str, options: TrainOptions) -> PairedDataset:
        """Return the pairs of a file.

        Raises:
          UsageError, DataError: it cannot be used.
        """
        pairs = options.pairs
        assert pairs.query is not None
        assert pairs.key is not None
        if Path(path).suffix.lower() != ".npz":
            raise UsageError(
                f"{path}: --query and --key name arrays of an .npz file, which this is "
                "not. Save both sides with np.savez_compressed."
            )
        shapes = shapes_of(options)
        size: Any = options.data.image_size
        with told_as_usage():
            loaded = jm.data.load_pairs(
                path,
                query=pairs.query,
                key=pairs.key,
                labels=pairs.labels,
                image_size=sizes_of(shapes) if shapes else size,
                channels=channels_of(shapes),
            )
        for side, shape in shapes.items():
            check_shape(path, getattr(pairs, side), loaded.side(side), shape)
        return loaded

    def load_side(
        self, path: str, side: Side, options: TrainOptions
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows of one side of a file for a run that is there; their labels.

        The file needs no other side.

        Raises:
          UsageError, DataError: it cannot be used.
        """
        return self._named_side(path, side, options)[:2]

    def _named_side(
        self, path: str, side: Side, options: TrainOptions
    ) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
        """Return the rows of one side, their labels, and what these are called."""
        name, shapes = getattr(options.pairs, side), shapes_of(options)
        with told_as_usage():
            found, labels, names = load_sides(
                path,
                {side: name},
                labels=options.pairs.labels,
                require_labels=False,
                image_size=sizes_of(shapes),
                channels=channels_of(shapes),
            )
        check_shape(path, name, found[side], shapes[side])
        return found[side], labels, names

    def searched(self, path: str, side: Side, options: TrainOptions) -> jm.data.Dataset:
        """Return one side of a file as what is searched, or searches.

        Raises:
          UsageError, DataError: it cannot be used.
        """
        rows, labels, given = self._named_side(path, side, options)
        if labels is None:
            return jm.data.Dataset(rows, None, (), Path(path).stem)
        numbers, names = npz.numbered(labels)
        names = given if len(set(given)) == len(names) else names
        return jm.data.Dataset(rows, numbers, names, Path(path).stem)

    def embed_searched(
        self, embed: EmbedSide, side: Side, inputs: np.ndarray
    ) -> np.ndarray:
        """Return the embeddings of the inputs of `searched`."""
        return embed(side, inputs)

    def measured_on(self, path: str, options: TrainOptions) -> PairedSplit:
        """Return another data set as what a run that is there is measured on.

        Raises:
          UsageError, DataError: it cannot be used.
        """
        loaded = self.load(path, options)
        return make_split(loaded, loaded)

    def split(self, options: TrainOptions) -> PairedSplit:
        """Return what is trained on and what is held out.

        Raises:
          UsageError, DataError: the data cannot be used or split in this way.
        """
        data = options.data
        loaded = self.load(data.data, options)
        if data.eval_data is not None:
            return make_split(loaded, self.load(data.eval_data, options))
        rows = hold_out(data, len(loaded))
        return make_split(*(loaded.take(chosen) for chosen in rows))

    def defaults(self, options: TrainOptions, train: PairedDataset) -> TrainOptions:
        """Return the options with a value in place of every "auto" of the data."""
        return defaults.fill(options, train)

    def sections(self, options: TrainOptions, train: PairedDataset) -> dict[str, Any]:
        """Return the section `model` of the run, of the kind "towers".

        Raises:
          UsageError: the options do not fit the data.
        """
        if options.model.kind == "towers":
            return check_sections(options)
        return make_sections(options, train)

    def start(
        self, options: TrainOptions, params: Any, model_state: Any, train: PairedDataset
    ) -> tuple[Any, Any]:
        """Return parameters and state with which training begins.

        Here the statistics of the features are taken from the training rows.
        """
        model = options.model
        for side, branch in zip(SIDES, ("left", "right"), strict=True):
            section = getattr(model, side) or {}
            if section.get("standardize"):
                rows = train.side(side)
                if model.shared:
                    branch, rows = "encoder", np.concatenate([train.query, train.key])
                with jax.numpy_dtype_promotion("standard"):
                    statistics = column_statistics(jnp.asarray(rows))
                model_state = {**model_state, branch: model_state[branch] | statistics}
        return params, model_state

    def rows(
        self, options: TrainOptions, train: PairedDataset
    ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return [n, ...] arrays that reach the loss by name, and notes on them.

        Raises:
          UsageError: the options do not fit the data.
        """
        found: dict[str, np.ndarray] = {}
        notes: tuple[str, ...] = ()
        for name in ("correction", "hold_out"):
            if getattr(options.pairs, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} takes users and items, two arrays of "
                    "integer ids. Leave it out."
                )
        if train.labels is not None:
            found["labels"] = train.labels
        if options.pairs.duplicates is not None:
            if train.labels is not None:
                raise UsageError(
                    "--duplicates and categories exclude each other: pairs of one "
                    "category are no negatives of each other already. Leave it out."
                )
            found["labels"], notes = groups.of_duplicates(
                train.key, options.pairs.duplicates
            )
        return found, notes

    def evaluate(self, embed: EmbedSide, split: PairedSplit) -> Metrics:
        """Return the metrics of an encoder on the pairs that are held out."""
        data = split.held_out
        queries, keys = embed("query", data.query), embed("key", data.key)
        return evaluate_pairs(queries, keys, data.labels)

    def baseline(self, split: PairedSplit) -> tuple[str, Metrics] | None:
        """Return the name of what is to be beaten, and its metrics; None without one.

        Here: canonical correlation of the training rows, the best linear map.
        """
        train = split.train
        if train.query.dtype == np.int32 or train.key.dtype == np.int32:
            return None
        maps = canonical_correlation(train.query, train.key, dim=10)
        if maps is None:
            return None
        rows = (split.held_out.query, split.held_out.key)
        queries, keys = (unit_rows(f(x)) for f, x in zip(maps, rows, strict=True))
        return "CCA", evaluate_pairs(queries, keys, split.held_out.labels)

    def title(self, split: PairedSplit) -> str:
        """Return the title of the closing table."""
        told = f"Retrieval among {len(split.held_out):,} pairs never seen"
        if split.held_out.labels is not None:
            told += f", of {split.held_out.num_classes:,} categories"
        return told

    def report_parts(
        self, embed: EmbedSide, split: PairedSplit
    ) -> list[tuple[str, str, str]]:
        """Return sections of the report, (key, title, HTML); "metrics" comes first."""
        from jaxmetric.cli.report.paired import parts_of

        data = split.held_out
        return parts_of(data, embed("query", data.query), embed("key", data.key))

    def files(self, split: PairedSplit) -> dict[str, str | bytes]:
        """Return what is kept with the run, contents by file name."""
        del split
        return {}

    def reload(self, folder: Path, options: TrainOptions) -> None:
        """Read what `files` has kept, before data is loaded for a run that is there."""


def shapes_of(options: TrainOptions) -> dict[Side, tuple[int, ...]]:
    """Return the shape of an example of each side, empty before the run has one."""
    if options.model.kind != "towers":
        return {}
    found: dict[Side, tuple[int, ...]] = {}
    for side in SIDES:
        section = getattr(options.model, side) or {}
        if "input_shape" in section:
            found[side] = tuple(section["input_shape"])
    return found


def sizes_of(shapes: Mapping[Side, tuple[int, ...]]) -> dict[Side, Any]:
    """Return (height, width) of the sides that are images."""
    return {side: shape[:2] for side, shape in shapes.items() if len(shape) == 3}


def channels_of(shapes: Mapping[Side, tuple[int, ...]]) -> dict[Side, int | None]:
    """Return the channels of the sides that are grey or colour images."""
    return {s: v[2] for s, v in shapes.items() if len(v) == 3 and v[2] in (1, 3)}


def check_shape(path: str, name: str, rows: np.ndarray, shape: tuple[int, ...]) -> None:
    """Require examples of the shape that an encoder takes.

    Raises:
      UsageError: they have another.
    """
    if rows.shape[1:] != shape:
        raise UsageError(
            f"{path}: `{name}` has examples of shape {rows.shape[1:]}, the model takes "
            f"{shape}. Give data of the kind that the run was trained on."
        )


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1; a zero row stays zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def task_of(options: TrainOptions) -> Task | None:
    """Return the kind of pairs that a run is of, None where its data is of classes.

    Raises:
      UsageError: one of two arrays is not named.
    """
    pairs = options.pairs
    if (pairs.query is None) != (pairs.key is None):
        given, other = ("query", "key")[:: 1 if pairs.query else -1]
        raise UsageError(f"--{given} needs --{other} as well, the other side.")
    if pairs.query is not None:
        from jaxmetric.cli.paired.interactions import Interactions, are_ids

        return Interactions() if are_ids(options) else Task()
    if is_text_file(options.data.data):
        return _of_texts(options)
    for name in configs.to_mapping(options)["pairs"]:
        raise UsageError(
            f"--{name.replace('_', '-')} takes pairs: name the two sides with --query "
            "and --key, or leave it out."
        )
    return None


def _of_texts(options: TrainOptions) -> Task | None:
    """Return the kind of pairs of a file of texts, None where they have labels."""
    from jaxmetric.cli.paired.scored_texts import ScoredTextPairs

    with told_as_usage():
        return ScoredTextPairs() if has_scores(options.data.data) else None
