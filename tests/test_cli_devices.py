"""`jaxmetric train --devices`: what many devices come to is what one comes to."""

import shutil

import jax
import numpy as np
import pytest
from cli_runs import SMALL, read_json, read_lines, write_features

import jaxmetric as jm
from jaxmetric.cli import devices, losses, main, measure

# A batch of 12 rows, on a loss that is quick to compile; proxies before it.
OPTIONS = [*SMALL, "--loss", "contrastive", "--steps", "12", "--warmup-epochs", "1"]
OPTIONS += ["--save-every", "7"]
STEPS = 12 + 9
QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def parameters(folder):
    """Return the parameters that a run ends with."""
    checkpoints = folder / "checkpoints"
    assert jm.training.latest_checkpoint(checkpoints) == STEPS
    _, params, _, _ = jm.training.load_run(folder)
    return jax.tree.leaves(params)


def assert_same_run(folder, other):
    for a, b in zip(parameters(folder), parameters(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)
    found, expected = (read_json(path / "summary.json") for path in (folder, other))
    assert found["pixels"] == expected["pixels"]
    for block in ("untrained", "trained"):
        assert found[block] == pytest.approx(expected[block], abs=1e-6)
    records, others = (read_lines(path / "metrics.jsonl") for path in (folder, other))
    assert len(records) == len(others)
    for a, b in zip(records, others, strict=True):
        assert a.keys() == b.keys()
        assert a.get("loss") == pytest.approx(b.get("loss"), abs=1e-6, nan_ok=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def data(place):
    return write_features(place / "rows.npz")


@pytest.fixture(scope="module")
def runs(place, data):
    """Return the folders of the same run on one device and on two."""
    for count in (1, 2):
        out = ["--devices", str(count), "--out", str(place / f"on-{count}")]
        assert main(["train", data, *OPTIONS, *out]) == 0
    return place / "on-1", place / "on-2"


def test_two_devices_come_to_what_one_comes_to(runs):
    one, two = runs
    assert read_json(one / "summary.json")["devices"] == 1
    assert read_json(two / "summary.json")["devices"] == 2
    assert_same_run(two, one)


@pytest.mark.parametrize(
    ("first", "second"), [(1, 3), pytest.param(2, 1, marks=pytest.mark.slow)]
)
def test_a_run_goes_on_on_another_number_of_devices(runs, place, first, second):
    cut = place / f"from-{first}-to-{second}"
    shutil.copytree(place / f"on-{first}", cut)
    # As it was after its second checkpoint, in the phase after the proxies.
    (cut / "summary.json").unlink()
    shutil.rmtree(cut / "checkpoints" / f"step_{STEPS:08d}")
    assert jm.training.latest_checkpoint(cut / "checkpoints") == 14
    assert main(["train", "--resume", str(cut), "--devices", str(second)]) == 0
    assert read_json(cut / "summary.json")["devices"] == second
    assert_same_run(cut, runs[0])


def test_devices_are_no_setting_of_a_run(runs):
    one, two = (path / "config.yaml" for path in runs)
    assert one.read_text() == two.read_text()
    assert "devices:" not in one.read_text()


def test_every_loss_of_the_command_knows_many_devices():
    mesh = devices.choose(2).mesh
    for name in losses.loss_names():
        losses.resolve(name, {}).loss_fn(mesh)


@pytest.mark.slow
@pytest.mark.parametrize("name", losses.loss_names())
def test_each_loss_is_that_of_one_device(name):
    loss = losses.resolve(name, {})
    rng = np.random.default_rng(0)
    rows = np.asarray(rng.normal(size=(12, 4)), np.float32)
    labels = np.repeat(np.arange(4), 3).astype(np.int32)
    params = {}
    if loss.has_proxies:
        shape = (5, *([] if loss.num_centers is None else [loss.num_centers]), 4)
        params = {"proxies": np.asarray(rng.normal(size=shape), np.float32)}

    def value(mesh):
        def scalar(params, rows):
            result = loss.loss_fn(mesh)(params, rows, labels, np.arange(12))
            return result[0] if isinstance(result, tuple) else result

        lowered = jax.jit(jax.value_and_grad(scalar, (0, 1))).lower(params, rows)
        return lowered.compile(compiler_options=QUICKLY)(params, rows)

    found, expected = value(devices.choose(4).mesh), value(None)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 8])
def test_digits(count, tmp_path):
    for devices_of in (1, count):
        out = ["--devices", str(devices_of), "--out", str(tmp_path / f"{devices_of}")]
        assert main(["train", "digits", "--steps", "40", *out]) == 0
    one, many = (tmp_path / str(n) for n in (1, count))
    found, expected = (read_json(path / "summary.json") for path in (many, one))
    assert found["trained"] == pytest.approx(expected["trained"], abs=1e-3)
    _, params, _, _ = jm.training.load_run(many)
    _, others, _, _ = jm.training.load_run(one)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def embed_fn(params, model_state, inputs, *, key, train):
    return np.float32(2) * inputs @ params, model_state


def test_rows_that_do_not_fill_the_devices_are_embedded_alike():
    params = np.eye(3, dtype=np.float32)
    inputs = np.random.default_rng(0).normal(size=(700, 3)).astype(np.float32)
    embed = measure.embedder(embed_fn, devices.choose(3))
    expected = measure.embedder(embed_fn)(params, {}, inputs)
    np.testing.assert_array_equal(embed(params, {}, inputs), expected)


@pytest.mark.slow
def test_many_rows_are_ranked_by_all_devices(monkeypatch):
    monkeypatch.setattr(measure, "_SPREAD_FROM", 1)
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    labels = np.arange(50) % 7
    found = measure.evaluate_spread(devices.choose(4), rows, labels)
    expected = measure.evaluate(rows, labels)
    assert found == pytest.approx(expected, abs=1e-6)
    assert found["num_queries"] == 50


def error_of(capsys, *arguments):
    capsys.readouterr()
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.strip()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--devices", "0"], "--devices must be at least 1, got 0. Use 1."),
        (
            ["--devices", "9"],
            "--devices must be at most 8, which is how many CPU devices there are, got "
            "9. Use --devices 8.",
        ),
        (
            [*OPTIONS, "--devices", "8"],
            "--batch-classes 4 times --m-per-class 3 is 12 rows, which 8 devices "
            "cannot share alike. Use a multiple of 8 rows.",
        ),
    ],
)
def test_mistakes_are_told(capsys, tmp_path, data, options, text):
    out = tmp_path / "run"
    error = error_of(capsys, data, *options, "--out", str(out))
    assert error == f"jaxmetric: {text}"
    assert not out.exists()
