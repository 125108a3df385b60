"""Runs that are cut: by a signal, by kill -9, by numbers that are not finite."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_runs import SMALL, read_json, read_lines, write_features

import jaxmetric as jm
from jaxmetric.cli import main

PROGRAM = [sys.executable, "-m", "jaxmetric.cli", "train"]


def _start(*arguments, folder):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_step(log: Path, step: int, process) -> None:
    """Return when a step is on record."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and f'"step": {step},' in log.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} never came: {process.communicate()}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return data, options, and the summary of the run that nobody disturbs."""
    place = tmp_path_factory.mktemp("cut")
    data = write_features(place / "rows.npz")
    options = [data, *SMALL, "--warmup-epochs", "10", "--steps", "1500"]
    options += ["--save-every", "150", "--eval-every", "4000", "--log-every", "10"]
    assert main(["train", *options, "--out", str(place / "whole")]) == 0
    return place, options, read_json(place / "whole" / "summary.json")


def _check_equal(folder: Path, whole: dict) -> None:
    """Require that a run has come to the same as the undisturbed one."""
    summary = read_json(folder / "summary.json")
    for key in ("parameters_sha256", "untrained", "pixels", "trained"):
        assert summary[key] == whole[key]
    steps = [r["step"] for r in read_lines(folder / "metrics.jsonl")]
    assert steps == sorted(steps)


def test_a_killed_run_goes_on_to_the_same_parameters(whole):
    place, options, summary = whole
    process = _start(*options, "--out", "killed", folder=place)
    _wait_for_step(place / "killed" / "metrics.jsonl", 201, process)
    process.kill()
    process.communicate()
    assert not (place / "killed" / "summary.json").exists()
    assert main(["train", "--resume", str(place / "killed")]) == 0
    _check_equal(place / "killed", summary)


def test_an_interrupted_run_saves_and_tells_how_to_go_on(whole):
    place, options, summary = whole
    process = _start(*options, "--out", "stopped", folder=place)
    log = place / "stopped" / "metrics.jsonl"
    _wait_for_step(log, 201, process)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert process.returncode == 130
    last = error.splitlines()[-1]
    assert "To go on: jaxmetric train --resume stopped" in last
    step = jm.training.latest_checkpoint(place / "stopped" / "checkpoints")
    assert f"stopped after {step:,} of 1,590 steps" in last
    assert main(["train", "--resume", str(place / "stopped")]) == 0
    _check_equal(place / "stopped", summary)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(10))
def test_digits_killed_at_a_random_moment(trial, tmp_path_factory):
    place = tmp_path_factory.getbasetemp() / "digits"
    place.mkdir(exist_ok=True)
    options = ["digits", "--steps", "1500", "--save-every", "50"]
    if not (place / "whole").exists():
        assert main(["train", *options, "--out", str(place / "whole")]) == 0
    folder = f"killed-{trial}"
    process = _start(*options, "--out", folder, folder=place)
    while process.poll() is None and not (place / folder).exists():
        time.sleep(0.02)
    # From before the first step to after the last one.
    time.sleep(random.Random(trial).uniform(0, 8))
    process.kill()
    process.communicate()
    assert main(["train", "--resume", str(place / folder)]) == 0
    _check_equal(place / folder, read_json(place / "whole" / "summary.json"))


def test_ten_steps_that_are_not_finite_end_the_run(tmp_path, capsys, monkeypatch):
    data = write_features(tmp_path / "rows.npz")
    monkeypatch.chdir(tmp_path)
    options = ["--learning-rate", "1e38", "--optimizer", "sgd", "--steps", "100"]
    assert main(["train", data, *SMALL, *options]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "not finite in 10 steps in a row; the last good step is" in last
    assert "runs/rows-1/metrics.jsonl" in last
    records = read_lines(tmp_path / "runs" / "rows-1" / "metrics.jsonl")
    bad = [r for r in records if r.get("skipped")]
    assert len(bad) >= 10
    for record in bad:
        assert record["not_finite"] == [k for k, v in record.items() if v is None]
    assert not (tmp_path / "runs" / "rows-1" / "summary.json").exists()


@pytest.mark.slow
def test_collapse_is_told_once(tmp_path, capsys):
    labels = np.repeat(np.arange(6), 4)
    np.savez(tmp_path / "same.npz", features=np.ones((24, 3)), labels=labels)
    options = ["--hidden", "4", "--dim", "4", "--m-per-class", "2", "--steps", "120"]
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "same.npz"), *options, *out]) == 0
    assert capsys.readouterr().err.count("has collapsed") == 1
    records = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "warning"] == [50]
