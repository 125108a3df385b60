"""Mistakes: one line that names the thing and the remedy, exit code 2, nothing made."""

import os
import re
import sys

import numpy as np
import pytest
from cli_runs import SMALL, write_features
from PIL import Image

from jaxmetric.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with good and bad data, and with a run."""
    place = tmp_path_factory.mktemp("mistakes")
    rows = write_features(place / "rows.npz")
    with np.load(rows) as file:
        features, labels = file["features"], file["labels"]
    bad = {
        "no_arrays": {"x": features},
        "no_labels": {"features": features},
        "objects": {"features": features, "labels": np.array(["a"] * 120, object)},
        "float_labels": {"features": features, "labels": labels.astype(float)},
        "text_labels": {"features": features, "labels": labels.astype(str)},
        "one_hot": {"features": features, "labels": np.eye(12, dtype=int)[labels]},
        "short": {"features": features, "labels": labels[:-1]},
        "nan": {"features": np.full_like(features, np.nan), "labels": labels},
        "two_classes": {"features": features, "labels": labels % 2},
        "all_alone": {"features": features, "labels": np.arange(120)},
        "one_alone": {"features": features[:111], "labels": labels[:111]},
        "wide": {"features": np.tile(features, 2), "labels": labels},
        "images": {
            "images": np.zeros((8, 4, 4), np.uint8),
            "labels": np.arange(8) // 2,
        },
    }
    for name, arrays in bad.items():
        np.savez(place / f"{name}.npz", **arrays)
    (place / "cut.npz").write_bytes((place / "rows.npz").read_bytes()[:300])
    (place / "text.npz").write_text("no archive")
    for name in ("empty", "bare/a", "broken/a", "broken/b", "broken/c", "huge/a"):
        (place / name).mkdir(parents=True)
    Image.new("L", (9, 9)).save(place / "bare" / "1.png")
    for label in "abc":
        for i in range(3):
            Image.new("L", (9, 9), i).save(place / "broken" / label / f"{i}.png")
    (place / "broken" / "b" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    Image.new("1", (20_000, 9_000)).save(place / "huge" / "a" / "1.png")
    configs = {
        "unknown": "loss: {nmae: batch_hard}\n",
        "section": "losses: {}\n",
        "twice": "run:\n  seed: 1\n  seed: 2\n",
        "kind": "optimization: {steps: many}\n",
        "broken": "run: [1\n",
        "list": "- 1\n",
        "nested": "run: {seed: {a: 1}}\n",
    }
    for name, text in configs.items():
        (place / f"{name}.yaml").write_text(text)
    (place / "norun").mkdir()
    out = ["--out", str(place / "run")]
    assert main(["train", rows, *SMALL, "--steps", "1", *out]) == 0
    return place


def _rows(*arguments):
    return ("train", "rows.npz", *arguments)


MISTAKES = {
    # The command and its arguments.
    "no command": ((), "a command is missing"),
    "command": (("trian",), "Did you mean train?"),
    "option": (_rows("--margni", "1"), "--margni is no option. Did you mean --margin?"),
    "positional": (_rows("digits"), "digits"),
    "no value": (_rows("--margin"), "--margin"),
    "text for a number": (_rows("--margin", "wide"), "must be a number, got 'wide'"),
    "float for an int": (_rows("--steps", "1.5"), "must be an integer, got '1.5'"),
    "choice": (_rows("--optimizer", "adm"), "Did you mean adam?"),
    "no run": (("eval",), "RUN"),
    "no output": (("embed", "run", "rows.npz"), "--output"),
    # Numbers out of range.
    "steps": (_rows("--steps", "0"), "--steps must be at least 1, got 0"),
    "steps and epochs": (_rows("--steps", "1", "--epochs", "1"), "exclude each other"),
    "seed": (_rows("--seed", "-1"), "--seed must be at least 0"),
    "rate": (_rows("--learning-rate", "0"), "--learning-rate must be a finite number"),
    "rate nan": (_rows("--learning-rate", "nan"), "--learning-rate must be a finite"),
    "fraction": (_rows("--eval-fraction", "1"), "--eval-fraction must be above 0"),
    "hidden": (_rows("--hidden", "0"), "hidden"),
    # Losses.
    "loss": (_rows("--loss", "batch_herd"), "Did you mean batch_hard?"),
    "pair loss": (_rows("--loss", "pair_loss"), "takes (x, y, is_positive)"),
    "foreign option": (
        _rows("--loss", "batch_hard", "--temperature", "0.1"),
        "--temperature is no option of the loss batch_hard. It takes --margin",
    ),
    "margin nan": (
        _rows("--margin", "nan"),
        "--margin must be a finite number, got nan",
    ),
    "margin inf": (
        _rows("--margin", "inf"),
        "--margin must be a finite number, got inf",
    ),
    "margin negative": (_rows("--margin", "-0.1"), "--margin must not be negative"),
    "margin cosine": (
        _rows("--margin", "2.5", "--distance", "cosine"),
        "--margin must be at most 2 for the cosine distance",
    ),
    "margin inert": (_rows("--margin", "0.3", "--soft"), "has no effect with --soft"),
    "temperature": (
        _rows("--loss", "nt_xent", "--temperature", "0"),
        "--temperature must be > 0, got 0",
    ),
    # P x K.
    "P": (_rows("--batch-classes", "11"), "at most the 10 classes"),
    "P zero": (_rows("--batch-classes", "0"), "--batch-classes must be at least"),
    "P one": (_rows("--batch-classes", "1"), "--batch-classes must be at least 2"),
    "K": (
        _rows("--m-per-class", "11"),
        "--m-per-class must be at most the 10 examples",
    ),
    "K one": (_rows("--m-per-class", "1"), "--m-per-class must be at least 2"),
    # Options without effect.
    "conv on rows": (_rows("--model", "conv"), "Use --model mlp"),
    "widths": (_rows("--widths", "3"), "--widths has no effect on --model mlp"),
    "augment rows": (_rows("--augment-shift", "0.1"), "rows of features"),
    "image size": (_rows("--image-size", "9"), "no image size"),
    "held out": (_rows("--held-out", "99"), "has no class '99'"),
    "augment": (
        ("train", "digits", "--no-augment", "--augment-shift", "0.1"),
        "--augment-shift has no effect with --no-augment",
    ),
    "augment range": (("train", "digits", "--augment-scale", "2"), "scale"),
    # Data.
    "nowhere": (("train", "nowhere"), "nowhere: no such file or folder"),
    "suffix": (("train", "twice.yaml"), "neither a folder nor an .npz file"),
    "no arrays": (("train", "no_arrays.npz"), "no_arrays.npz"),
    "no labels": (("train", "no_labels.npz"), "labels"),
    "objects": (("train", "objects.npz"), "labels"),
    "float labels": (("train", "float_labels.npz"), "must be integer or bool"),
    "text labels": (("train", "text_labels.npz"), "np.unique"),
    "one hot": (("train", "one_hot.npz"), "labels"),
    "short labels": (("train", "short.npz"), "120 rows but `labels` has 119"),
    "nan rows": (("train", "nan.npz"), "row 0"),
    "cut": (("train", "cut.npz"), "cut.npz"),
    "text": (("train", "text.npz"), "text.npz"),
    "two classes": (("train", "two_classes.npz"), "at least 3 are needed"),
    "all alone": (("train", "all_alone.npz"), "single example"),
    "one alone": (("train", "one_alone.npz"), "class '11' has a single example"),
    "empty folder": (("train", "empty"), "holds no class folders"),
    "bare folder": (("train", "bare"), "into a folder of its own"),
    "broken image": (("train", "broken"), "1.png"),
    "huge image": (("train", "huge"), "1.png"),
    "other eval data": (
        _rows("--eval-data", "wide.npz"),
        "has examples of shape (12,)",
    ),
    "two ways": (_rows("--eval-data", "rows.npz", "--held-out", "1"), "exclude each"),
    # Files and folders.
    "out exists": (_rows("--out", "run"), "--out run: exists already"),
    "out in a file": (_rows("--steps", "1", "--out", "rows.npz/run"), "--out"),
    "config missing": (_rows("--config", "none.yaml"), "none.yaml: cannot be read"),
    "config key": (_rows("--config", "unknown.yaml"), "Did you mean name?"),
    "config section": (_rows("--config", "section.yaml"), "Did you mean loss?"),
    "config twice": (_rows("--config", "twice.yaml"), "the key 'seed' comes twice"),
    "config value": (_rows("--config", "kind.yaml"), "steps must be an integer"),
    "config broken": (_rows("--config", "broken.yaml"), "is no YAML"),
    "config list": (_rows("--config", "list.yaml"), "must hold `key: value` lines"),
    "config nested": (_rows("--config", "nested.yaml"), "seed must be a value"),
    # Runs.
    "resume nowhere": (("train", "--resume", "nowhere"), "does not exist"),
    "resume norun": (("train", "--resume", "norun"), "is no run"),
    "resume out": (("train", "--resume", "run", "--out", "x"), "exclude each other"),
    "eval nowhere": (("eval", "nowhere"), "nowhere: does not exist"),
    "eval wide": (("eval", "run", "wide.npz"), "the model takes (6,)"),
    "eval images": (("eval", "run", "images.npz"), "the model takes (6,)"),
    "eval query": (("eval", "run", "--query", "rows.npz"), "--query needs --gallery"),
    "eval three": (
        ("eval", "run", "rows.npz", "--query", "rows.npz", "--gallery", "rows.npz"),
        "has no place beside --query",
    ),
    "eval alone": (("eval", "run", "all_alone.npz"), "no query has another row"),
    "embed suffix": (("embed", "run", "rows.npz", "-o", "x.npy"), "must end in .npz"),
    "embed nowhere": (("embed", "run", "rows.npz", "-o", "no/x.npz"), "does not exist"),
    "embed itself": (("embed", "run", "rows.npz", "-o", "rows.npz"), "the data itself"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(name, place, monkeypatch, capsys):
    arguments, expected = MISTAKES[name]
    monkeypatch.chdir(place)
    before = sorted(os.listdir(place))
    assert main(list(arguments)) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"jaxmetric[^\n]*\n", error), error
    assert expected in error
    assert sorted(os.listdir(place)) == before


def test_a_damaged_image_may_be_skipped(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    arguments = ["embed", "run", "broken", "-o", "x.npz", "--on-error", "skip"]
    assert main(arguments) == 2
    # Beyond the damaged image, it is the other kind of data that is the mistake.
    assert "has examples of shape (9, 9, 1)" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    config = place / "run" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("dim: 4", "dim: 5"))
    try:
        assert main(["eval", "run"]) == 2
    finally:
        config.write_text(text)
    assert "is a checkpoint of another model" in capsys.readouterr().err


def test_a_run_that_is_being_written_is_refused(place, monkeypatch, capsys):
    from jaxmetric.training import RunLock

    monkeypatch.chdir(place)
    with RunLock(place / "run"):
        assert main(["train", "--resume", "run"]) == 2
    assert "is being written by process" in capsys.readouterr().err


def test_an_unforeseen_error_names_the_file_of_its_traceback(monkeypatch, capsys):
    import jaxmetric.data

    def fail(*_, **__):
        raise RuntimeError("out of luck\nand more")

    monkeypatch.setattr(jaxmetric.data, "load", fail)
    assert main(["train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "unforeseen: RuntimeError: out of luck. The traceback is in " in line
    file = line.rpartition(" in ")[2]
    with open(file) as log:
        assert "Traceback" in log.read()
    os.unlink(file)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["-h"]])
def test_help_goes_to_standard_output(arguments, capsys):
    assert main(arguments) == 0
    out, error = capsys.readouterr()
    assert "jaxmetric" in out
    assert error == ""


def test_help_loads_neither_flax_nor_optax():
    import subprocess

    code = (
        "import sys; from jaxmetric.cli import main; main(['--help']);"
        "main(['train', '--help']);"
        "assert not {'flax', 'optax', 'orbax', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
