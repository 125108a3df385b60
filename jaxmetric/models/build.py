"""From the description of an encoder in a configuration to the encoder."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

from flax import nnx

from jaxmetric import _checks
from jaxmetric.models.encoders import ConvEncoder, MLPEncoder

_KINDS = ("conv", "mlp")


def build(model: Mapping[str, Any], rngs: nnx.Rngs) -> nnx.Module:
    """Build the encoder that a configuration describes.

    Args:
      model: the section `model`: `kind` ("mlp" or "conv"), `input_shape` ([h, w, c]
        for images, [d] for rows of features), and the options of the encoder's class
        by their names, `dim` among them; options left out have their defaults.
      rngs: its stream `params` draws the initial parameters.

    Returns:
      An `MLPEncoder` or `ConvEncoder`; it takes [batch, *input_shape] floating inputs.

    Raises:
      ValueError: an unknown kind or option, or a shape that the kind cannot take.

    Memory: the parameters.

    Example:
      >>> from flax import nnx
      >>> encoder = build({"kind": "mlp", "input_shape": [4], "dim": 2}, nnx.Rngs(0))
      >>> print(type(encoder).__name__)
      MLPEncoder
    """
    options = dict(model)
    kind = options.pop("kind", None)
    _checks.choice("build", "kind", kind, _KINDS, usual="conv")
    shape = _input_shape(options.pop("input_shape", None), kind)
    encoder: Any
    if kind == "mlp":
        encoder, first = MLPEncoder, math.prod(shape)
    else:
        encoder, first = ConvEncoder, shape
    # After `self`, the first parameter comes from `input_shape`.
    _, _, *names = inspect.signature(encoder.__init__).parameters
    allowed = [name for name in names if name != "rngs"]
    for name in options:
        _checks.choice("build", "model", name, allowed, usual="dim")
    # YAML has lists where the encoders have tuples, which are compared and hashed.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return encoder(first, **options, rngs=rngs)


def _input_shape(value: Any, kind: str) -> tuple[int, ...]:
    """Return the shape of one example, [d] or [h, w, c]."""
    sizes = value if isinstance(value, list | tuple) else ()
    is_good = all(type(size) is int and size > 0 for size in sizes)
    ranks = (1, 3) if kind == "mlp" else (3,)
    if not is_good or len(sizes) not in ranks:
        must = "be [d] or [h, w, c]" if kind == "mlp" else "be [h, w, c]"
        remedy = "Give the shape of one example, in positive integers."
        raise ValueError(
            _checks.text("build", "input_shape", must, repr(value), remedy)
        )
    return tuple(sizes)
