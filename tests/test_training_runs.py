"""From the folder of a run back to the encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import yaml
from flax import nnx

import jaxmetric as jm
from jaxmetric.training import (
    CheckpointError,
    CheckpointWarning,
    TrainState,
    accept_raw_inputs,
    build_encoder,
    load_run,
    save_checkpoint,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)
MODEL = {"kind": "small", "input_shape": [4, 4, 1], "dim": 3}


class Small(nnx.Module):
    """Batch normalisation, so that there is a state besides the parameters."""

    def __init__(self, shape, dim, rngs):
        self.linear = nnx.Linear(int(np.prod(shape)), dim, rngs=rngs)
        self.norm = nnx.BatchNorm(dim, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        x = x.reshape(x.shape[0], -1)
        return self.dropout(self.norm(self.linear(x)))


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    def build(model, rngs):
        if model["kind"] != "small":
            raise ValueError(f"build: `kind` must be 'small', got {model['kind']!r}.")
        return Small(model["input_shape"], model["dim"], rngs)

    monkeypatch.setattr(jm.models, "build", build)


@pytest.fixture
def run(tmp_path):
    """Return the folder of a run of two checkpoints, and the newest parameters."""
    _, params, model_state = build_encoder(MODEL, seed=1)
    model_state = jax.tree.map(lambda x: x + 0.5, model_state)
    config = {"loss": {"name": "triplet"}, "model": MODEL}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    for step in (1, 2):
        params = jax.tree.map(lambda x: x + 0.25, params)
        state = TrainState.create(
            params, model_state, optax.adam(0.1), key=jax.random.key(0)
        )
        save_checkpoint(tmp_path / "checkpoints", step, state, metadata={})
    return tmp_path, params, model_state


def test_load_run_gives_the_newest_parameters_and_the_configuration(run):
    folder, params, model_state = run
    _, found, found_state, config = load_run(folder)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    jax.tree.map(np.testing.assert_array_equal, found_state, model_state)
    assert config == {"loss": {"name": "triplet"}, "model": MODEL}
    load_run(str(folder))


def test_the_loaded_encoder_takes_raw_images(run):
    embed_fn, params, model_state, _ = load_run(run[0])
    embed = jax.jit(
        lambda x: embed_fn(params, model_state, x, key=None, train=False)[0]
    )
    as_bytes = embed(IMAGES)
    assert as_bytes.shape == (5, 3)
    as_floats = embed(np.float32(IMAGES) / np.float32(255))
    np.testing.assert_allclose(as_bytes, as_floats, rtol=1e-5, atol=1e-6)
    encoder = Small([4, 4, 1], 3, nnx.Rngs(0))
    nnx.update(encoder, params)
    nnx.update(encoder, model_state)
    encoder.eval()
    expected = encoder(jnp.asarray(np.float32(IMAGES) / np.float32(255)))
    np.testing.assert_allclose(as_floats, expected, rtol=1e-5, atol=1e-6)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(run):
    folder, params, _ = run
    (folder / "checkpoints" / "step_00000002" / "manifest.json").unlink()
    with pytest.warns(CheckpointWarning, match="Falling back to step 1."):
        _, found, _, _ = load_run(folder)
    difference = params["linear"]["kernel"] - found["linear"]["kernel"]
    np.testing.assert_allclose(difference, 0.25, rtol=1e-5)


def test_building_twice_from_one_seed_gives_the_same_numbers():
    _, first, _ = build_encoder(MODEL, seed=3)
    _, second, _ = build_encoder(MODEL, seed=3)
    _, third, _ = build_encoder(MODEL, seed=4)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert not np.array_equal(first["linear"]["kernel"], third["linear"]["kernel"])


def test_bytes_become_floats_inside_the_function():
    def embed_fn(params, model_state, inputs, *, key, train):
        return inputs, model_state

    raw = accept_raw_inputs(embed_fn)
    embeddings, _ = raw({}, {}, jnp.array([[0, 255]], jnp.uint8), key=None, train=False)
    np.testing.assert_array_equal(embeddings, np.array([[0.0, 1.0]], np.float32))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (None, "config.yaml: is missing. Give the folder of a run."),
        ("model: [", "config.yaml: cannot be read (while parsing"),
        ("\x00", "config.yaml: cannot be read ("),
        ("- 1", "config.yaml: holds no settings. Restore the file"),
        ("a: 1", "config.yaml: describes no model (no section `model`). Restore"),
        ("model: {kind: other}", "describes no model (build: `kind` must be 'small'"),
        ("model: {kind: small}", "describes no model ('input_shape')"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_named(run, config, text):
    folder = run[0]
    (folder / "config.yaml").unlink()
    if config is not None:
        (folder / "config.yaml").write_text(config)
    with pytest.raises(CheckpointError) as e:
        load_run(folder)
    assert text in str(e.value)
    assert "\n" not in str(e.value)


def test_a_checkpoint_of_another_model_is_refused(run):
    folder = run[0]
    config = {"model": MODEL | {"dim": 4}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(CheckpointError, match=r"of another model, \d+ leaves differ"):
        load_run(folder)


def test_folders_that_are_no_runs_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="none: is no folder. Give the folder of"):
        load_run(tmp_path / "none")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": MODEL}))
    with pytest.raises(CheckpointError, match="checkpoints: holds no checkpoint"):
        load_run(tmp_path)
