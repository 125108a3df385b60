"""From the description of an encoder in a configuration to the encoder."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import nnx

from jaxmetric import _checks
from jaxmetric.models.encoders import ConvEncoder, MLPEncoder
from jaxmetric.models.frozen import IdentityEncoder, Standardized
from jaxmetric.models.identifiers import IdEncoder
from jaxmetric.models.texts import TransformerEncoder, WordVectorEncoder
from jaxmetric.models.towers import SharedTowers, TwoTowers


class Kind(NamedTuple):
    """A kind of encoder.

    Attributes:
      make: its class; the options are keyword parameters of it, `rngs` one of them.
      ranks: how many axes an example may have.
      first: from the shape of an example to the first argument of the class; None for
        a class that has none.
    """

    make: Callable[..., nnx.Module]
    ranks: tuple[int, ...]
    first: Callable[[tuple[int, ...]], Any] | None


KINDS = {
    "mlp": Kind(MLPEncoder, (1, 3), math.prod),
    "conv": Kind(ConvEncoder, (3,), tuple),
    "identity": Kind(IdentityEncoder, (1,), math.prod),
    "words": Kind(WordVectorEncoder, (1,), math.prod),
    "transformer": Kind(TransformerEncoder, (1,), math.prod),
    "ids": Kind(IdEncoder, (0,), None),
}
_SHAPES = {0: "[]", 1: "[d]", 3: "[h, w, c]"}


def build(model: Mapping[str, Any], rngs: nnx.Rngs) -> nnx.Module:
    """Build the encoder that a configuration describes.

    Args:
      model: the section `model`: `kind` ("mlp", "conv", ...), `input_shape` ([h, w, c]
        for images, [d] for rows of features), and the options of the encoder's class
        by their names, `dim` among them; options left out have their defaults. With
        `standardize` true, the encoder is in a `Standardized`. Of the kind "towers": a
        section `query` and one `key`, of the encoders of both sides; `dim` of both;
        `shared`, whether the first serves for both.
      rngs: its stream `params` draws the initial parameters.

    Returns:
      An encoder of [batch, *input_shape] inputs; of the kind "towers", `TwoTowers` or
      `SharedTowers` of two such inputs.

    Raises:
      ValueError: an unknown kind or option, or a shape that the kind cannot take.

    Memory: the parameters.

    Example:
      >>> from flax import nnx
      >>> encoder = build({"kind": "mlp", "input_shape": [4], "dim": 2}, nnx.Rngs(0))
      >>> print(type(encoder).__name__)
      MLPEncoder
    """
    if model.get("kind") == "towers":
        return _towers(model, rngs)
    options = dict(model)
    name = options.pop("kind", None)
    _checks.choice("build", "kind", name, tuple(KINDS), usual="conv")
    kind = KINDS[name]
    shape = _input_shape(options.pop("input_shape", None), kind)
    is_standardized = options.pop("standardize", False)
    allowed = parameters_of(name)
    for option in options:
        _checks.choice("build", "model", option, allowed, usual="dim")
    # YAML has lists where the encoders have tuples, which are compared and hashed.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    first = () if kind.first is None else (kind.first(shape),)
    encoder = kind.make(*first, **options, rngs=rngs)
    return Standardized(encoder, *shape) if is_standardized else encoder


def parameters_of(kind: str) -> list[str]:
    """Return the names of the options of a kind of encoder."""
    made: Any = KINDS[kind].make
    # `self` comes first, and then what comes from `input_shape`, if anything does.
    first = 1 if KINDS[kind].first is None else 2
    names = list(inspect.signature(made.__init__).parameters)[first:]
    return [name for name in names if name != "rngs"]


def _towers(model: Mapping[str, Any], rngs: nnx.Rngs) -> nnx.Module:
    """Return the encoders of two sides."""
    allowed = ("kind", "shared", "frozen", "dim", "query", "key")
    for option in model:
        _checks.choice("build", "model", option, allowed, usual="dim")
    sections = []
    for side in ("query", "key"):
        section = model.get(side)
        if not isinstance(section, Mapping):
            must, remedy = "hold the section of an encoder", "Describe both sides."
            raise ValueError(_checks.text("build", side, must, repr(section), remedy))
        section = dict(section)
        if section.get("kind") in KINDS and "dim" in parameters_of(section["kind"]):
            section.setdefault("dim", model.get("dim", 64))
        sections.append(section)
    if model.get("shared"):
        if sections[0] != sections[1]:
            must, got = "be like `query` where they are shared", repr(sections[1])
            remedy = "Use shared: false."
            raise ValueError(_checks.text("build", "key", must, got, remedy))
        return SharedTowers(build(sections[0], rngs))
    return TwoTowers(build(sections[0], rngs), build(sections[1], rngs))


def _input_shape(value: Any, kind: Kind) -> tuple[int, ...]:
    """Return the shape of one example, [d] or [h, w, c]."""
    sizes = value if isinstance(value, list | tuple) else (0,)
    is_good = all(type(size) is int and size > 0 for size in sizes)
    if not is_good or len(sizes) not in kind.ranks:
        must = "be " + " or ".join(_SHAPES[rank] for rank in kind.ranks)
        remedy = "Give the shape of one example, in positive integers."
        raise ValueError(
            _checks.text("build", "input_shape", must, repr(value), remedy)
        )
    return tuple(sizes)
