"""A trained run in Python: from its folder back to the encoder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxmetric.training.checkpoints import restore_checkpoint
from jaxmetric.training.errors import CheckpointError
from jaxmetric.training.functional import EmbedFn, as_functional

_CONFIG = "config.yaml"
_CHECKPOINTS = "checkpoints"


def load_run(path: str | os.PathLike[str]) -> tuple[EmbedFn, Any, Any, dict[str, Any]]:
    """Return the trained encoder of a run, and the run's configuration.

    The network is built from the section `model` of `config.yaml`, its parameters
    come from the newest intact checkpoint.

    Args:
      path: the folder of a run, as `jaxmetric train` makes it.

    Returns:
      (embed_fn, params, model_state, config). The embed_fn takes raw inputs: uint8
      images, which it divides by 255, float32 rows as they are, or int32 ids and
      tokens. Use `embed_fn(params, model_state, inputs, key=None, train=False)[0]`. Of
      a run of pairs, inputs are a tuple `(query, key)`, and so are the embeddings;
      `(query, None)` and `(None, key)` embed one side, with None for the other.

    Raises:
      CheckpointError: the folder, its configuration or its checkpoints are missing,
        damaged or of different models.

    Memory: the parameters.
    """
    path = Path(path)
    config = _read_config(path)
    model = config.get("model")
    try:
        if not isinstance(model, Mapping):
            raise TypeError("no section `model`")
        embed_fn, params, model_state = build_encoder(model, abstract=True)
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path / _CONFIG}: describes no model ({error}). "
            "Restore the file that the run was made with."
        ) from error
    like = {"params": params, "model_state": model_state}
    tree, _ = restore_checkpoint(path / _CHECKPOINTS, like, subset=True)
    return embed_fn, tree["params"], tree["model_state"], config


def build_encoder(
    model: Mapping[str, Any], *, seed: int = 0, abstract: bool = False
) -> tuple[EmbedFn, Any, Any]:
    """Build the encoder of a configuration, as a function of raw inputs.

    Args:
      model: the section `model` of a configuration, see `jaxmetric.models.build`.
      seed: of the initial parameters.
      abstract: whether only shapes and dtypes are wanted, without any computation.

    Returns:
      (embed_fn, params, model_state); embed_fn as in `load_run`.

    Raises:
      ValueError, TypeError: the description does not fit; see `jaxmetric.models.build`.

    Memory: the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> model = {"kind": "mlp", "input_shape": [4], "dim": 2}
      >>> embed_fn, params, model_state = build_encoder(model, seed=1)
      >>> x, _ = embed_fn(params, model_state, jnp.ones((3, 4)), key=None, train=False)
      >>> print(x.shape)
      (3, 2)
    """
    from flax import nnx

    from jaxmetric import models

    def make() -> nnx.Module:
        return models.build(model, rngs=nnx.Rngs(seed))

    module = nnx.eval_shape(make) if abstract else make()
    embed_fn, params, model_state = as_functional(module)
    return accept_raw_inputs(embed_fn), params, model_state


def accept_raw_inputs(embed_fn: EmbedFn) -> EmbedFn:
    """Return an embed_fn that takes uint8 images too: they are divided by 255.

    The conversion is part of the function, so images travel to the device as bytes.
    Floating inputs pass unchanged, and so do int32 ones: ids and tokens. Of a tuple of
    inputs (two towers) each is treated so, and None passes too.

    Args:
      embed_fn: an encoder of floating inputs, see `EmbedFn`.

    Returns:
      The encoder of uint8 images and of what `embed_fn` takes.

    Memory: the inputs once more, as float32.

    Example:
      >>> import jax.numpy as jnp
      >>> def embed_fn(params, model_state, inputs, *, key, train):
      ...     return inputs, model_state
      >>> raw_fn = accept_raw_inputs(embed_fn)
      >>> x = jnp.array([[0, 255]], jnp.uint8)
      >>> print(raw_fn({}, {}, x, key=None, train=False)[0])
      [[0. 1.]]
    """
    from jaxmetric.data import to_float

    def to_raw(inputs: Any) -> Any:
        # Ids and tokens, which stay what they are.
        return inputs if inputs.dtype == jnp.int32 else to_float(inputs)

    def embed_raw(
        params: Any,
        model_state: Any,
        inputs: Any,
        *,
        key: jax.Array | None,
        train: bool,
    ) -> tuple[Any, Any]:
        inputs = jax.tree.map(to_raw, inputs)
        return embed_fn(params, model_state, inputs, key=key, train=train)

    return embed_raw


def _read_config(path: Path) -> dict[str, Any]:
    """Return the configuration of a run as plain dictionaries."""
    try:
        import yaml
    except ImportError as error:
        raise ImportError(
            "Runs need PyYAML. Use pip install 'jaxmetric[cli]'."
        ) from error

    file = path / _CONFIG
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        reason = f"{file}: is missing" if path.is_dir() else f"{path}: is no folder"
        raise CheckpointError(f"{reason}. Give the folder of a run.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{file}: cannot be read ({reason}). "
            "Restore the file that the run was made with."
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{file}: holds no settings. Restore the file that the run was made with."
        )
    return config
