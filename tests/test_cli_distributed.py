"""`jaxmetric train --distributed`: real processes on this host, and their ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from cli_runs import SMALL, read_json, read_lines, write_features

import jaxmetric as jm
from jaxmetric.cli import distributed, main

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = [*SMALL, "--loss", "contrastive"]
# As long as JAX waits for a sign of life, and a little for this machine.
BOUND = distributed._SILENT + 30
QUICKLY = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
}


def start(
    count: int,
    *arguments: str,
    folder: Path,
    code: str = "",
    differ: Sequence[str] = (),
    variables: dict[str, str] | None = None,
) -> list[subprocess.Popen]:
    """Start so many processes of one run; the last may have other arguments."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        k: v
        for k, v in os.environ.items()
        if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    environment["PYTHONPATH"] = str(ROOT)
    environment |= variables or {}
    program = f"import sys; from jaxmetric.cli import main; {code}\nsys.exit(main())"
    processes = []
    for i in range(count):
        own = differ if differ and i == count - 1 else arguments
        place = (address, str(count), str(i))
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program, "train", "--distributed", *own],
                cwd=folder,
                env=environment | dict(zip(distributed.VARIABLES, place, strict=True)),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def end(processes, timeout: float = 400) -> list[tuple[int, str, str]]:
    """Return exit code, output and errors of each process."""
    try:
        told = [p.communicate(timeout=timeout) for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(p.returncode, *t) for p, t in zip(processes, told, strict=True)]


def lines(text: str) -> list[str]:
    """Return the lines that are ours, without those of JAX and Gloo."""
    return [line for line in text.splitlines() if line.startswith("jaxmetric")]


def wait_for_step(log: Path, step: int, processes) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and all(p.poll() is None for p in processes):
        if log.exists() and f'"step": {step},' in log.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} never came: {end(processes, 1)}")


def assert_same_run(folder: Path, other: Path, atol: float) -> None:
    (_, params, _, _), (_, others, _, _) = map(jm.training.load_run, (folder, other))
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)
    found, expected = (read_json(path / "summary.json") for path in (folder, other))
    for block in ("untrained", "pixels", "trained"):
        assert found[block] == pytest.approx(expected[block], abs=1e-3)
    steps = [
        [r["step"] for r in read_lines(p / "metrics.jsonl")] for p in (folder, other)
    ]
    assert steps[0] == steps[1]


@pytest.mark.slow
def test_two_processes_come_to_what_one_comes_to(tmp_path):
    data = write_features(tmp_path / "rows.npz")
    run = [data, *OPTIONS, "--steps", "6", "--eval-every", "3"]
    processes = start(2, *run, "--out", "two", folder=tmp_path, variables=QUICKLY)
    assert main(["train", *run, "--out", str(tmp_path / "one")]) == 0
    first, second = end(processes)
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert "everything is in two" in first[1]
    # One process tells of all.
    assert lines(second[2]) == []
    assert "step" not in second[1] + second[2]
    assert_same_run(tmp_path / "two", tmp_path / "one", 2e-6)
    assert read_json(tmp_path / "two" / "summary.json")["devices"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices"), [(2, 1), (4, 1), (2, 2)])
def test_digits(count, devices, tmp_path):
    run = ["digits", "--steps", "40", "--warmup-epochs", "1"]
    many = ["--devices", str(devices), "--out", "many"]
    results = end(start(count, *run, *many, folder=tmp_path))
    assert [code for code, *_ in results] == [0] * count, results
    assert main(["train", *run, "--out", str(tmp_path / "one")]) == 0
    assert_same_run(tmp_path / "many", tmp_path / "one", 1e-4)
    assert read_json(tmp_path / "many" / "summary.json")["devices"] == count * devices


LONG = [*OPTIONS, "--steps", "260", "--save-every", "50", "--log-every", "10"]
LONG += ["--eval-every", "400"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a place with data and a run of one process that nobody disturbs."""
    place = tmp_path_factory.mktemp("cut")
    data = write_features(place / "rows.npz")
    assert main(["train", data, *LONG, "--out", str(place / "whole")]) == 0
    return place, [data, *LONG]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "killed", "resumed"), [(2, 1, 1), (2, 0, 4), (4, 2, 2)]
)
def test_a_killed_process_ends_the_others_and_the_run_goes_on(
    whole, count, killed, resumed
):
    place, run = whole
    out = f"killed-{killed}-of-{count}"
    processes = start(count, *run, "--out", out, folder=place)
    wait_for_step(place / out / "metrics.jsonl", 111, processes)
    processes[killed].kill()
    began = time.monotonic()
    results = end(processes, timeout=2 * BOUND)
    assert time.monotonic() - began < BOUND
    for i, (code, _, error) in enumerate(results):
        if i != killed:
            assert code not in (0, None)
            # Ours where the communication fails first, JAX's own if it is faster.
            ours = f"process {i} of {count} has lost another one"
            assert ours in error or "another task died" in error, error
    assert not (place / out / "summary.json").exists()
    if resumed == 1:
        assert main(["train", "--resume", str(place / out)]) == 0
    else:
        again = end(start(resumed, "--resume", out, folder=place))
        assert [code for code, *_ in again] == [0] * resumed, again
    assert_same_run(place / out, place / "whole", 1e-4)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_one_step(whole):
    place, run = whole
    processes = start(2, *run, "--out", "stopped", folder=place)
    wait_for_step(place / "stopped" / "metrics.jsonl", 111, processes)
    processes[1].send_signal(signal.SIGTERM)
    for code, _, error in end(processes):
        assert code == 130
        step = jm.training.latest_checkpoint(place / "stopped" / "checkpoints")
        assert f"stopped after {step} of 260 steps, all saved. To go on:" in error
    # Two processes go on where both had stopped.
    assert [c for c, *_ in end(start(2, "--resume", "stopped", folder=place))] == [0, 0]
    assert_same_run(place / "stopped", place / "whole", 1e-4)


@pytest.mark.slow
def test_what_fails_in_one_process_ends_all(whole):
    place, run = whole
    other = write_features(place / "other.npz", seed=5)
    out = ["--out", "failed"]
    for last, code_of_last, texts in [
        (
            [other, *LONG, *out],
            2,
            ["process 1 differs from process 0 in its data. Give all processes"] * 2,
        ),
        (
            ["none.npz", *LONG, *out],
            2,
            ["process 1 has failed, and says why.", "none.npz: no such file"],
        ),
    ]:
        results = end(start(2, *run, *out, folder=place, differ=last))
        assert [code for code, *_ in results] == [2, code_of_last]
        for (_, _, error), text in zip(results, texts, strict=True):
            assert len(lines(error)) == 1
            assert text in error
    results = end(start(2, *run, "--out", "whole", folder=place))
    assert [code for code, *_ in results] == [2, 2]
    assert "--out whole: exists already" in results[0][2]
    assert not (place / "failed").exists()


@pytest.mark.slow
def test_a_process_that_never_comes_is_not_waited_for_without_end(whole):
    place, run = whole
    code = "from jaxmetric.cli import distributed; distributed._TO_MEET = 4"
    first, second = start(2, *run, "--out", "x", folder=place, code=code)
    second.kill()
    second.communicate()
    [(code, _, error)] = end([first])
    assert code == 2
    assert "not all processes came to 127.0.0.1:" in lines(error)[0]
    assert "within 4 s" in lines(error)[0]


def test_a_place_to_meet_must_be_told(tmp_path):
    environment = {k: v for k, v in os.environ.items() if "JAX" not in k}
    done = subprocess.run(
        [sys.executable, "-m", "jaxmetric.cli", "train", "digits", "--distributed"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "jaxmetric: --distributed: no scheduler that JAX knows has started this "
        "process, and JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID are "
        "not set. Set these three.\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            ("10.0.0.1:1234", "2", None),
            "JAX_PROCESS_ID must be set besides JAX_COORDINATOR_ADDRESS and "
            "JAX_NUM_PROCESSES. Set all three, or none under a scheduler.",
        ),
        (
            ("10.0.0.1", "2", "0"),
            "JAX_COORDINATOR_ADDRESS must be HOST:PORT of process 0, got '10.0.0.1'. "
            "Use 10.0.0.1:1234.",
        ),
        (
            ("10.0.0.1:1234", "two", "0"),
            "JAX_NUM_PROCESSES must be a whole number, got 'two'. Count processes from "
            "0.",
        ),
        (
            ("10.0.0.1:1234", "2", "2"),
            "JAX_PROCESS_ID must be below JAX_NUM_PROCESSES = 2, got 2. Count "
            "processes from 0.",
        ),
    ],
)
def test_wrong_variables_are_told(values, text, monkeypatch, capsys):
    for name, value in zip(distributed.VARIABLES, values, strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert main(["train", "digits", "--distributed"]) == 2
    assert capsys.readouterr().err == f"jaxmetric: --distributed: {text}\n"


def test_one_process_is_all():
    alone = distributed.Processes()
    assert alone.first(lambda: "x") == "x"
    assert alone.each(lambda: 7) == 7
    alone.check_alike({"data": 1})
    assert alone.arrays_of_first({"w": 1}) == {"w": 1}
