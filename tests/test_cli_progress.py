"""The progress of a run: a display on a terminal, lines elsewhere, errors nowhere."""

import io
import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from jaxmetric.cli import progress
from jaxmetric.cli.progress import Progress

METRICS = {
    "loss": 0.12345,
    "active_fraction": 0.25,
    "positive_distance": 0.5,
    "negative_distance": 1.25,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


class BrokenPipe(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "_clock", clock)
    return clock


@pytest.fixture(autouse=True)
def _person_at_a_terminal(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")


def stderr(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_plain_lines_come_at_most_every_five_seconds(monkeypatch, clock):
    stream = stderr(monkeypatch, io.StringIO())
    with Progress(total_steps=100) as bar:
        assert bar.plain
        for step in range(1, 101):
            clock.now += 0.25
            bar.update(step, METRICS, 1234.5)
    lines = stream.getvalue().splitlines()
    # 25 seconds: the first step, one line each 5 seconds, the last step.
    steps = [line.split("  ")[0] for line in lines]
    assert steps == [f"step {n}/100" for n in (1, 21, 41, 61, 81, 100)]


def test_a_plain_line_has_all_the_numbers(monkeypatch, clock):
    stream = stderr(monkeypatch, io.StringIO())
    with Progress(total_steps=4000, total_examples=256_000) as bar:
        bar.update(1000, METRICS, 1234.5)
        clock.now += 10
        bar.update(1100, METRICS, 1234.5)
    # 100 steps took 10 seconds, so 2,900 take 290.
    assert stream.getvalue().splitlines()[-1] == (
        "step 1,100/4,000 (70,400/256,000 examples)  loss 0.1235  active 25%  "
        "positive 0.500  negative 1.250  examples/s 1,234  left 4:50"
    )


def test_time_left_forgets_a_pause(monkeypatch, clock):
    stream = stderr(monkeypatch, io.StringIO())
    with Progress(total_steps=1000) as bar:
        bar.update(0, METRICS)
        clock.now += 600
        for step in range(1, 101):
            clock.now += 1
            bar.update(step, METRICS)
    assert stream.getvalue().splitlines()[-1].endswith("left 15:00")


def test_hours_are_told(monkeypatch, clock):
    stream = stderr(monkeypatch, io.StringIO())
    with Progress(total_steps=3726) as bar:
        bar.update(0, {})
        clock.now += 5
        bar.update(5, {})
    assert stream.getvalue().splitlines()[-1].endswith("left 1:02:01")


@pytest.mark.parametrize(
    "value", [None, float("nan"), float("inf"), jnp.float32(jnp.nan)]
)
def test_a_number_that_is_missing_is_a_dash(monkeypatch, value):
    stream = stderr(monkeypatch, io.StringIO())
    with Progress(total_steps=10) as bar:
        bar.update(1, {"loss": jnp.float32(0.5), "active_fraction": value}, value)
    assert stream.getvalue() == (
        "step 1/10  loss 0.5000  active –  positive –  negative –  "
        "examples/s –  left –\n"
    )


def test_the_last_step_seen_is_printed_when_the_block_ends_early(monkeypatch, clock):
    stream = stderr(monkeypatch, io.StringIO())

    def run():
        with Progress(total_steps=100) as bar:
            bar.update(1, METRICS)
            bar.update(7, METRICS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert "step 7/100" in stream.getvalue()


@pytest.mark.parametrize(
    ("name", "value"), [("CI", "true"), ("TERM", "dumb"), ("TERM", "unknown")]
)
def test_a_terminal_that_keeps_a_log_gets_lines(monkeypatch, name, value):
    stream = stderr(monkeypatch, Terminal())
    monkeypatch.setenv(name, value)
    with Progress(total_steps=2) as bar:
        bar.update(1, METRICS)
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().startswith("step 1/2")


def test_a_terminal_gets_a_display(monkeypatch):
    stream = stderr(monkeypatch, Terminal())
    with Progress(total_steps=200) as bar:
        assert not bar.plain
        bar.update(100, METRICS, 98765.4)
        bar.message("switching to [bold] :smile: 3 losses")
    text = stream.getvalue()
    assert "\x1b[?25l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("examples/s")
    for shown in ("100/200", "50%", "0.1235", "25%", "0.500", "1.250", "98,765"):
        assert shown in text
    # Neither markup nor emoji nor colours are made of what a user may have named.
    assert "switching to [bold] :smile: 3 losses" in text


def test_the_streams_are_given_back(monkeypatch):
    stream = stderr(monkeypatch, Terminal())
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    with Progress(total_steps=2) as bar:
        bar.update(1, METRICS)
        sys.stdout.write("a result\n")
        sys.stderr.write("a warning\n")
    assert sys.stderr is stream
    assert sys.stdout is output
    # Standard output is no terminal here, so its lines are its own.
    assert output.getvalue() == "a result\n"
    assert "a warning" in stream.getvalue()


@pytest.mark.parametrize("plain", [True, False])
def test_a_closed_pipe_ends_the_display_and_nothing_else(monkeypatch, plain):
    stderr(monkeypatch, BrokenPipe())
    with Progress(total_steps=3, plain=plain) as bar:
        for step in (1, 2, 3):
            bar.update(step, METRICS)
            bar.message("still here")


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("stream", [None, "closed"])
def test_without_standard_error_nothing_is_shown(monkeypatch, plain, stream):
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    stderr(monkeypatch, stream)
    with Progress(total_steps=1, plain=plain) as bar:
        bar.update(1, METRICS)
        bar.message("nobody reads this")


@pytest.mark.parametrize("plain", [True, False])
def test_numbers_that_cannot_be_shown_end_no_run(monkeypatch, plain):
    stderr(monkeypatch, Terminal())
    with Progress(total_steps=3, plain=plain) as bar:
        bar.update(1, {"loss": "no number"})
        bar.update("no step", METRICS)  # pyright: ignore[reportArgumentType]
        bar.update(2, None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("plain", [True, False])
def test_a_terminal_without_unicode_shows_what_it_can(monkeypatch, plain):
    raw = io.BytesIO()
    stderr(monkeypatch, io.TextIOWrapper(raw, encoding="ascii"))
    with Progress(total_steps=1, plain=plain) as bar:
        bar.message("文字 and letters")
        bar.update(1, {"loss": 0.5})
    assert b"?? and letters" in raw.getvalue()
    assert b"0.5000" in raw.getvalue()


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_a_real_terminal_gets_a_display():
    import pty

    script = (
        "from jaxmetric.cli.progress import Progress\n"
        "with Progress(total_steps=2) as bar:\n"
        "    bar.update(2, {'loss': 0.5}, 10.0)\n"
    )
    leader, follower = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "CI"}
    run = subprocess.run(
        [sys.executable, "-c", script],
        stderr=follower,
        stdout=subprocess.PIPE,
        env=environment | {"TERM": "xterm"},
        timeout=60,
    )
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert run.returncode == 0
    assert run.stdout == b""
    assert "\x1b[?25l" in shown
    assert "2/2" in shown
    assert "0.5000" in shown


def test_a_closed_pipe_leaves_the_exit_code_alone():
    script = (
        "import os, sys\n"
        "from jaxmetric.cli.progress import Progress\n"
        "reader, writer = os.pipe()\n"
        "os.dup2(writer, 2); os.close(writer); os.close(reader)\n"
        "with Progress(total_steps=2) as bar:\n"
        "    bar.update(1, {}); bar.message('x' * 100000); bar.update(2, {})\n"
        "print('finished')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=60, check=True
    )
    assert run.stdout == b"finished\n"
