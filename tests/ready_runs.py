"""Runs as `jaxmetric train` leaves them, with random parameters: no training."""

from pathlib import Path

import jax
import numpy as np

from jaxmetric.cli import configs, folders
from jaxmetric.cli.options import DataOptions, ModelOptions, TrainOptions
from jaxmetric.training import build_encoder, load_run, save_checkpoint


def write_run(folder: Path, data: str, *, shape, held_out=(), seed=0) -> Path:
    """Write a run on a data set that a small perceptron embeds; return its folder."""
    options = TrainOptions(
        data=DataOptions(data=data, held_out=tuple(held_out)),
        model=ModelOptions(kind="mlp", dim=4, hidden=(8,), input_shape=tuple(shape)),
    )
    config = configs.to_mapping(options)
    folder.mkdir()
    configs.write_config(folder / folders.CONFIG, config)
    write_parameters(folder, config["model"], step=1, seed=seed)
    return folder


def write_parameters(folder: Path, model: dict, *, step: int, seed: int) -> None:
    """Write a checkpoint of random parameters."""
    _, params, model_state = build_encoder(model, abstract=True)
    random = np.random.default_rng(seed)
    draw = lambda a: random.normal(size=a.shape).astype(a.dtype)  # noqa: E731
    tree = {"params": jax.tree.map(draw, params), "model_state": model_state}
    save_checkpoint(folder / folders.CHECKPOINTS, step, tree, metadata={})


def embed(folder: Path, inputs: np.ndarray) -> np.ndarray:
    """Return the embeddings of inputs, straight from the library."""
    embed_fn, params, model_state, _ = load_run(folder)
    rows, _ = embed_fn(params, model_state, inputs, key=None, train=False)
    return np.asarray(rows)
