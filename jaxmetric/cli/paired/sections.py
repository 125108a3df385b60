"""From options and data to the description of two towers."""

from collections.abc import Mapping
from typing import Any

from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.paired.defaults import PAIRS, for_pairs
from jaxmetric.data import PairedDataset
from jaxmetric.data.paired import Side
from jaxmetric.models.build import parameters_of

SIDES: tuple[Side, Side] = ("query", "key")
_OPTIONS = ("hidden", "widths", "dropout", "width", "depth", "heads", "trainable")


def make_sections(options: TrainOptions, train: PairedDataset) -> dict[str, Any]:
    """Return the section `model` of a run: an encoder for each side, by its rows.

    Raises:
      UsageError: the options do not fit the data.
    """
    frozen, shared = options.pairs.freeze, options.pairs.towers == "shared"
    if frozen is not None and shared:
        raise UsageError(
            f"--freeze {frozen} and --towers shared exclude each other: what is shared "
            "is trained on both sides. Leave out one."
        )
    if shared and train.query.shape[1:] != train.key.shape[1:]:
        raise UsageError(
            f"--towers shared takes sides of one kind, and `{options.pairs.query}` has "
            f"examples of shape {train.query.shape[1:]}, `{options.pairs.key}` of "
            f"{train.key.shape[1:]}. Use --towers separate."
        )
    found: dict[str, Any] = {"kind": "towers", "shared": shared, "frozen": frozen}
    for side in SIDES:
        found[side] = _section(options, train, side, is_frozen=side == frozen)
    found["dim"] = options.model.dim or for_pairs(train).dim
    if frozen is not None:
        (width,) = found[frozen]["input_shape"]
        if options.model.dim not in (None, width):
            raise UsageError(
                f"--dim must be {width}, the width of the frozen --{frozen} side, got "
                f"{options.model.dim}. Leave it out."
            )
        found["dim"] = width
    _check_effects(options, [found[side] for side in SIDES])
    return found


def check_sections(options: TrainOptions) -> dict[str, Any]:
    """Return the section `model` of a run that a configuration describes.

    Raises:
      UsageError: it lacks a side, or has options besides.
    """
    model = options.model
    for side in SIDES:
        if not isinstance(getattr(model, side), Mapping):
            raise UsageError(
                f"--model towers takes a configuration with a section model.{side}. "
                "Use --config, or leave --model out."
            )
    for name in ("hidden", "widths"):
        if getattr(model, name) is not None:
            raise UsageError(
                f"--{name} has no effect on encoders that a configuration describes. "
                "Leave it out, or use --model mlp to have them made anew."
            )
    found = {side: dict(getattr(model, side)) for side in SIDES}
    return {
        "kind": "towers",
        "shared": bool(model.shared),
        "frozen": model.frozen,
        "dim": model.dim or PAIRS.dim,
        **found,
    }


def _section(
    options: TrainOptions, train: PairedDataset, side: Side, *, is_frozen: bool
) -> dict[str, Any]:
    """Return the section of one side."""
    rows, model, name = train.side(side), options.model, getattr(options.pairs, side)
    shape = list(rows.shape[1:])
    if not shape:
        raise UsageError(
            f"`{name}` holds ids, and the other side does not: users and items are ids "
            f"on both, with features of theirs in {name}_features. Use {name}[:, None] "
            "if these are numbers."
        )
    is_features = len(shape) == 1 and rows.dtype.kind == "f"
    if is_frozen:
        if not is_features:
            raise UsageError(
                f"--freeze {side} takes rows of features, which are embeddings as they "
                f"are, and `{name}` has examples of shape {rows.shape[1:]}. Leave it "
                "out."
            )
        return {"kind": "identity", "input_shape": shape}
    kind = model.kind or ("conv" if len(shape) == 3 else "mlp")
    if kind not in ("conv", "mlp"):
        raise UsageError(
            f"--model {kind} takes texts in a .tsv file, and {options.data.data} is "
            "none. Leave it out: each side has the encoder that fits it."
        )
    if kind == "conv" and len(shape) != 3:
        raise UsageError(
            f"--model conv takes images, and `{name}` has rows of features. Leave it "
            "out: each side has the encoder that fits it."
        )
    auto = for_pairs(train)
    section: dict[str, Any] = {"kind": kind, "input_shape": shape}
    for option in ("hidden", "widths"):
        value = getattr(model, option)
        if value is None and option == "hidden":
            value = auto.hidden
        if value is not None and option in parameters_of(kind):
            section[option] = list(value)
    dropout = auto.dropout if model.dropout is None else model.dropout
    if section.get("hidden") and (dropout or model.dropout is not None):
        section["dropout"] = dropout
    if is_features and options.pairs.standardize is not False:
        section["standardize"] = True
    return section


def _check_effects(options: TrainOptions, sections: list[dict[str, Any]]) -> None:
    """Refuse options that no side takes."""
    for option in _OPTIONS:
        is_given = getattr(options.model, option) is not None
        if is_given and not any(option in section for section in sections):
            kinds = " and ".join(dict.fromkeys(s["kind"] for s in sections))
            raise UsageError(f"--{option} has no effect on {kinds}. Leave it out.")
    wants = options.pairs.standardize
    if wants and not any(section.get("standardize") for section in sections):
        raise UsageError(
            "--standardize has no effect: no side that is trained has rows of "
            "features. Leave it out."
        )
