"""One writer at a time; a dead one does not count."""

import os
import subprocess
import sys

import pytest

from jaxmetric.training import CheckpointError, RunLock

HOLDER = """
import sys
from jaxmetric.training import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_until_the_holder_dies(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError) as e, RunLock(tmp_path):
            pass
        assert str(e.value) == (
            f"{tmp_path}: is being written by process {holder.pid}. "
            "Wait until it ends, or choose another folder."
        )
        holder.kill()
    with RunLock(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_lock_is_released_at_the_end_and_after_an_error(tmp_path):
    with pytest.raises(KeyError), RunLock(tmp_path):
        raise KeyError
    with RunLock(tmp_path):
        with (
            pytest.raises(CheckpointError, match="is being written"),
            RunLock(tmp_path),
        ):
            pass
    with RunLock(tmp_path):
        pass


def test_a_stale_file_of_a_dead_process_does_not_block(tmp_path):
    (tmp_path / ".lock").write_text("4194304")
    with RunLock(tmp_path):
        pass


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CheckpointError) as e, RunLock(tmp_path / "none"):
        pass
    assert str(e.value) == (
        f"{tmp_path}/none/.lock: cannot be written (No such file or directory). "
        "Make the folder writable, or choose another."
    )
