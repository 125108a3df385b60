"""`--log`: TensorBoard and Weights & Biases beside metrics.jsonl, and what fails."""

import importlib.util
import json

import pytest
from cli_runs import SMALL, read_json, read_lines, write_features, write_images
from test_training_writers import read_events, read_scalars

import jaxmetric as jm
from jaxmetric.cli import classes, figures, folders, hooks, main

OPTIONS = [*SMALL, "--steps", "20", "--save-every", "10", "--eval-every", "10"]


def _nothing(*_, **__):
    """Write no report, which has tests of its own."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run on images that was logged for TensorBoard."""
    pytest.importorskip("tensorboardX")
    place = tmp_path_factory.mktemp("logged")
    data = write_images(place / "bars.npz")
    options = [*OPTIONS, "--model", "mlp", "--held-out", "0", "1"]
    options += ["--batch-classes", "2", "--out", str(place / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "write_report", _nothing)
        assert main(["train", data, *options, "--log", "tensorboard"]) == 0
    return place / "run"


def _expected(folder):
    """Return the scalars that the records of a run make."""
    for record in read_lines(folder / folders.METRICS):
        for key, value in record.items():
            if key not in ("step", "kind") and isinstance(value, int | float):
                tag = f"{record['kind']}/{key}"
                yield record["step"], tag, pytest.approx(float(value))


def test_tensorboard_has_what_the_log_has(run):
    found = read_scalars(run / "tensorboard")
    assert found == list(_expected(run))
    tags = {tag for _, tag, _ in found}
    assert {"train/loss", "eval/recall_at_1", "pixels/recall_at_1"} <= tags


def test_tensorboard_has_the_pictures(run):
    images = {
        value.tag: value.image.encoded_image_string
        for event in read_events(run / "tensorboard")
        for value in event.summary.value
        if value.WhichOneof("value") == "image"
    }
    assert images["curves"] == (run / "curves.png").read_bytes()
    assert images["gallery"] == (run / "gallery.png").read_bytes()


def test_the_projector_has_the_held_out_rows(run):
    folder = run / "tensorboard"
    assert "sprite" in (folder / "projector_config.pbtxt").read_text()
    assert (folder / "metadata.tsv").read_text().split() == ["0"] * 5 + ["1"] * 5
    rows = (folder / "tensors.tsv").read_text().splitlines()
    assert [len(row.split("\t")) for row in rows] == [4] * 10


def test_a_run_that_is_cut_logs_no_step_twice(run, capsys, monkeypatch):
    """It was cut after step 20 and before its summary, the checkpoint of 20 is lost.

    Where the metrics go is no setting: it may go on with one more writer, which gets
    all of the run.
    """
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(classes, "write_report", _nothing)
    before = read_scalars(run / "tensorboard")
    (run / folders.SUMMARY).unlink()
    checkpoints = run / folders.CHECKPOINTS
    for path in checkpoints.glob("*20*"):
        path.rename(run / path.name)
    assert jm.training.latest_checkpoint(checkpoints) == 10
    logs = ["--log", "tensorboard", "--log", "wandb"]
    assert main(["train", "--resume", str(run), *logs]) == 0
    assert "warning" not in capsys.readouterr().err
    after = read_scalars(run / "tensorboard")
    assert after == list(_expected(run))
    # The clock alone is another.
    kept = [[s for s in x if s[1] != "train/seconds"] for x in (before, after)]
    assert kept[0] == kept[1]
    assert read_json(run / "wandb.json")["step"] == 20
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    for text in (b"train/loss", b"eval/recall_at_1", b"learning_rate", b"step"):
        assert text in file.read_bytes()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_missing_package_is_told_before_anything(
    name, command, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.chdir(tmp_path)
    assert main([command, "digits", "--log", name]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"--log {name}: the package" in line
    assert f"pip install 'jaxmetric[{name}]'" in line
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_does_not_exist_is_a_mistake(capsys):
    assert main(["train", "digits", "--log", "tensorbord"]) == 2
    assert "Did you mean tensorboard?" in capsys.readouterr().err


class Broken:
    """A writer that fails at its third call."""

    def __init__(self, *_, **__):
        self.calls = 0

    def write(self, record):
        self.calls += 1
        assert self.calls <= 3, "it was closed"
        if self.calls == 3:
            raise OSError("the disk is full\nand more")

    def close(self):
        self.calls = 4


def _unlucky(*_, **__):
    raise ConnectionError("no login")


def test_what_fails_beside_a_run_is_one_line_and_the_run_goes_on(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(hooks, "TensorBoardWriter", Broken)
    monkeypatch.setattr(hooks, "WandbWriter", _unlucky)
    monkeypatch.setattr(figures, "write_curves", _unlucky)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    data, run = write_features(tmp_path / "rows.npz"), tmp_path / "run"
    logs = ["--log", "tensorboard", "wandb"]
    assert main(["train", data, *OPTIONS, "--out", str(run), *logs]) == 0
    lines = [x for x in capsys.readouterr().err.splitlines() if "warning" in x]
    assert lines == [
        "jaxmetric: warning: --log wandb cannot be opened (ConnectionError: no login); "
        "metrics.jsonl has all.",
        "jaxmetric: warning: --log tensorboard gets no more of this run (OSError: the "
        "disk is full); metrics.jsonl has all.",
        f"jaxmetric: warning: {run}: not all pictures were written (ConnectionError: "
        "no login)",
    ]
    assert read_json(run / "summary.json")["status"] == "finished"
    assert read_lines(run / folders.METRICS)[-1]["step"] == 20


@pytest.mark.slow
def test_a_sweep_logs_its_best_model(tmp_path):
    pytest.importorskip("tensorboardX")
    data, out = write_features(tmp_path / "rows.npz"), tmp_path / "out"
    options = [*SMALL, "--steps", "8", "--margins", "0.2", "--out", str(out)]
    assert main(["sweep", data, *options, "--log", "tensorboard"]) == 0
    best = out / "best"
    assert read_scalars(best / "tensorboard") == list(_expected(best))
    assert json.loads((best / "summary.json").read_text())["status"] == "finished"
