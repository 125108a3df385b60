"""Signals, closed pipes, and the time that a command takes to begin."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxmetric.cli.signals import Interrupted, Interrupts


def _send(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    # The handler runs between two instructions of the main thread.
    time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_is_not_protected(number):
    with pytest.raises(Interrupted), Interrupts():
        _send(number)


def test_a_protected_region_is_finished_first():
    done = []

    def work(interrupts):
        with interrupts.held():
            with interrupts.held():
                _send()
            done.append("inner")
        done.append("outer")

    with Interrupts() as interrupts, pytest.raises(Interrupted):
        work(interrupts)
    assert done == ["inner"]


def test_work_aside_is_not_waited_for():
    release = threading.Event()
    threading.Timer(0.2, _send).start()
    with Interrupts() as interrupts, pytest.raises(Interrupted):
        interrupts.run_aside(lambda: release.wait(30))
    assert interrupts.is_busy
    release.set()


def test_work_aside_gives_its_result_or_its_error():
    with Interrupts() as interrupts:
        assert interrupts.run_aside(lambda: 7) == 7
        with pytest.raises(KeyError):
            interrupts.run_aside(lambda: {}["x"])
    assert not interrupts.is_busy


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_second_signal_leaves_at_once():
    code = (
        "import os, signal\nfrom jaxmetric.cli.signals import Interrupts\n"
        "with Interrupts() as interrupts, interrupts.held():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('held', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "held\n", "")


def test_a_closed_pipe_ends_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "jaxmetric.cli", "train", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (0, 1)
