"""Checkpoints are whole or not there, and come back bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from jaxmetric.training import (
    CheckpointError,
    CheckpointWarning,
    RunLock,
    TrainState,
    checkpoints,
    latest_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)

TREE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.int32(4)}


def names(folder):
    """Return what lies in a folder, the lock file apart."""
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def save_steps(folder, *steps, keep=3):
    for step in steps:
        tree = {"w": TREE["w"] + np.float32(step), "n": np.int32(step)}
        save_checkpoint(folder, step, tree, metadata={"step": step}, keep=keep)


def flip(path, position=0, bit=1):
    data = bytearray(path.read_bytes())
    data[position] ^= bit
    path.write_bytes(data)


def bits(x):
    """Return dtype, shape and bytes of a leaf."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    x = np.asarray(x)
    return x.dtype, x.shape, x.tobytes()


def full_state():
    """Return a state with every kind of leaf."""
    nan = np.array([0x7FC00123, 0x80000000], np.uint32).view(np.float32)
    params = {
        "layers": {0: {"kernel": jnp.asarray(nan)}, 1: {"kernel": jnp.ones((2, 0))}},
        "half": jnp.asarray(np.arange(5) / 3, jnp.bfloat16),
        "tiny": jnp.asarray([0.5, 1.0], jnp.float16),
    }
    state = TrainState.create(
        params,
        {"seen": jnp.array([True, False]), "bytes": jnp.array([1, 255], jnp.uint8)},
        optax.adam(0.1),
        key=jax.random.key(5),
        loss_params={"log_scale": jnp.float32(2.5)},
    )
    return {
        "state": state,
        "fast": jax.random.split(jax.random.key(1, impl="rbg"), 3),
        "host": np.arange(3, dtype=np.int64),
        "eight": np.array([0.5, 2.0], ml_dtypes.float8_e4m3fn),
        "scalars": [3, 0.1, True, np.float32(0.1)],
        "nothing": None,
    }


def test_every_kind_of_leaf_comes_back_bit_for_bit(tmp_path):
    tree = full_state()
    metadata = {"classes": ["a", "ü"], "epoch": 3, "nested": {"x": [1.5, None, True]}}
    path = save_checkpoint(
        tmp_path / "run" / "checkpoints", 12, tree, metadata=metadata
    )
    assert path == tmp_path / "run" / "checkpoints" / "step_00000012"
    like = jax.tree.map(lambda x: x * 0 if isinstance(x, np.ndarray) else x, tree)
    restored, found = restore_checkpoint(path.parent, like)
    assert found == metadata
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    for old, new in zip(jax.tree.leaves(tree), jax.tree.leaves(restored), strict=True):
        assert bits(old) == bits(new)
        assert isinstance(new, jax.Array) == isinstance(old, jax.Array)
        assert isinstance(new, type(old))
    assert restored["fast"].dtype == tree["fast"].dtype
    assert restored["scalars"][:3] == [3, 0.1, True]


def test_restored_state_is_donated_without_another_compilation(tmp_path):
    traces = []

    def advance(state):
        traces.append(None)
        return state._replace(step=state.step + 1)

    step = jax.jit(advance, donate_argnums=0)
    state = full_state()["state"]
    save_checkpoint(tmp_path, 0, state, metadata={})
    step(step(state))
    restored, _ = restore_checkpoint(tmp_path, full_state()["state"])
    step(restored)
    assert len(traces) == 1
    again, _ = restore_checkpoint(tmp_path, full_state()["state"])
    assert bits(again.params["half"]) == bits(full_state()["state"].params["half"])


def test_abstract_trees_are_restored_to_arrays(tmp_path):
    tree = {"w": jnp.ones((2, 3)), "key": jax.random.key(2)}
    save_checkpoint(tmp_path, 0, tree, metadata={})
    like = jax.eval_shape(lambda: tree)
    restored, _ = restore_checkpoint(tmp_path, like)
    assert bits(restored["w"]) == bits(tree["w"])
    assert bits(restored["key"]) == bits(tree["key"])
    assert restored["key"].dtype == tree["key"].dtype


def test_arrays_go_back_to_their_devices(tmp_path):
    mesh = jax.make_mesh((8,), ("data",))
    spec = jax.sharding.NamedSharding(mesh, jax.P("data"))
    tree = {"w": jax.device_put(jnp.arange(16.0), spec)}
    save_checkpoint(tmp_path, 0, tree, metadata={})
    restored, _ = restore_checkpoint(tmp_path, tree)
    assert restored["w"].sharding == spec
    assert bits(restored["w"]) == bits(tree["w"])


def test_trees_without_numbers_can_be_saved(tmp_path):
    save_checkpoint(tmp_path, 0, {"empty": np.zeros((0, 3))}, metadata={"a": 1})
    tree, metadata = restore_checkpoint(tmp_path, {"empty": np.zeros((0, 3))})
    assert tree["empty"].shape == (0, 3)
    assert metadata == {"a": 1}


def test_the_newest_step_is_found_and_any_step_can_be_had(tmp_path):
    assert latest_checkpoint(tmp_path / "none") is None
    assert latest_checkpoint(tmp_path) is None
    save_steps(tmp_path, 1, 5, 30)
    assert latest_checkpoint(tmp_path) == 30
    assert restore_checkpoint(tmp_path, TREE)[0]["n"] == 30
    assert restore_checkpoint(tmp_path, TREE, 5)[1] == {"step": 5}


def test_only_the_newest_stay(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 10, 11, keep=2)
    assert names(tmp_path) == ["step_00000010", "step_00000011"]
    save_steps(tmp_path, 12, keep=1)
    assert names(tmp_path) == ["step_00000012"]


def test_pruning_waits_until_the_new_checkpoint_is_verified(tmp_path, monkeypatch):
    save_steps(tmp_path, 1, 2)
    publish = checkpoints._publish

    def publish_damaged(temporary, final):
        path = publish(temporary, final)
        flip(path / "manifest.json")
        return path

    monkeypatch.setattr(checkpoints, "_publish", publish_damaged)
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        save_steps(tmp_path, 3, keep=1)
    with pytest.warns(CheckpointWarning):
        assert latest_checkpoint(tmp_path) == 2


def test_a_step_saved_again_replaces_the_old_one(tmp_path):
    save_steps(tmp_path, 3, 4)
    save_checkpoint(tmp_path, 4, TREE, metadata={"second": True})
    assert names(tmp_path) == ["step_00000003", "step_00000004"]
    assert restore_checkpoint(tmp_path, TREE)[1] == {"second": True}


def test_a_damaged_step_is_replaced_after_the_fall_back(tmp_path):
    save_steps(tmp_path, 3, 4)
    flip(tmp_path / "step_00000004" / "manifest.json")
    save_steps(tmp_path, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert latest_checkpoint(tmp_path) == 4


def test_an_intact_older_copy_outlives_a_damaged_newer_one(tmp_path, monkeypatch):
    save_steps(tmp_path, 1)
    final = tmp_path / "step_00000001"
    shutil.copytree(final, tmp_path / "step_00000001.replaced")
    flip(final / "manifest.json")
    rename = os.rename

    def no_space(source, target):
        if target == final:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(checkpoints.os, "rename", no_space)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_steps(tmp_path, 1)
    assert latest_checkpoint(tmp_path) == 1


def test_leftovers_of_crashed_saves_do_not_count_and_are_removed(tmp_path):
    save_steps(tmp_path, 1)
    leftover = tmp_path / ".unfinished-0123"
    leftover.mkdir()
    (leftover / "manifest.json").write_text("{")
    assert latest_checkpoint(tmp_path) == 1
    save_steps(tmp_path, 2)
    assert names(tmp_path) == ["step_00000001", "step_00000002"]


def test_two_hundred_damages_are_detected_named_and_fallen_back_from(tmp_path):
    save_steps(tmp_path, 1, 2)
    newest = tmp_path / "step_00000002"
    files = sorted(p for p in newest.rglob("*") if p.is_file())
    rng = np.random.default_rng(0)
    damages = [(path, "missing") for path in files]
    while len(damages) < 200:
        path = files[rng.integers(len(files))]
        kind = "flip" if rng.random() < 0.7 else "cut"
        # Empty files can neither be cut nor flipped.
        damages += [(path, kind)] if path.stat().st_size else []
    for path, kind in damages:
        data = path.read_bytes()
        if kind == "missing":
            path.unlink()
        elif kind == "cut":
            path.write_bytes(data[: rng.integers(len(data))])
        else:
            flip(path, int(rng.integers(len(data))), 1 << int(rng.integers(8)))
        with pytest.warns(CheckpointWarning) as caught:
            assert latest_checkpoint(tmp_path) == 1
        text = str(caught[0].message)
        named = path.name if path.name != "manifest.sha256" else "manifest.json"
        assert named in text or path.name in text, (path, kind, text)
        assert text.endswith("Falling back to step 1.")
        path.write_bytes(data)
    assert latest_checkpoint(tmp_path) == 2


def test_restore_falls_back_but_a_step_that_was_asked_for_does_not(tmp_path):
    save_steps(tmp_path, 1, 2)
    flip(tmp_path / "step_00000002" / "manifest.json")
    with pytest.warns(CheckpointWarning, match=r"manifest.json: does not match"):
        tree, _ = restore_checkpoint(tmp_path, TREE)
    assert tree["n"] == 1
    with pytest.raises(CheckpointError) as e:
        restore_checkpoint(tmp_path, TREE, 2)
    assert str(e.value) == (
        f"{tmp_path}/step_00000002/manifest.json: does not match its checksum in "
        "manifest.sha256. The newest intact step is 1."
    )
    with pytest.raises(CheckpointError, match="holds no checkpoint of step 7. The new"):
        restore_checkpoint(tmp_path, TREE, 7)


def test_no_intact_checkpoint_at_all_is_an_error(tmp_path):
    with pytest.raises(
        CheckpointError, match="holds no checkpoint. Give the folder of"
    ):
        restore_checkpoint(tmp_path, TREE)
    save_steps(tmp_path, 1)
    (tmp_path / "step_00000001" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="No intact checkpoint is left"):
        latest_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="No intact checkpoint is left"):
        restore_checkpoint(tmp_path, TREE, 1)


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(tmp_path):
    save_steps(tmp_path, 1)
    os.rename(tmp_path / "step_00000001", tmp_path / "step_00000002")
    with pytest.raises(CheckpointError, match="step_00000002: holds step 1"):
        latest_checkpoint(tmp_path)


def test_other_models_are_refused_with_up_to_five_differences(tmp_path):
    save_checkpoint(
        tmp_path, 0, {f"w{i}": np.zeros(3, np.float32) for i in range(8)}, metadata={}
    )
    like: dict[str, np.ndarray]
    like = {f"w{i}": np.zeros(3, np.float32) for i in range(1, 8)}
    like["w1"] = np.zeros((3, 1), np.float32)
    like["w2"] = np.zeros(3, np.int32)
    like["v"] = np.zeros(1)
    with pytest.raises(CheckpointError) as e:
        restore_checkpoint(tmp_path, like)
    assert str(e.value) == (
        f"{tmp_path}/step_00000000: is a checkpoint of another model, "
        "4 leaves differ: v is not in the checkpoint; w0 is only in the checkpoint; "
        "w1 is float32[3], expected float32[3, 1]; "
        "w2 is float32[3], expected int32[3]. "
        "Use the options that the run was made with."
    )
    like = {f"w{i}": np.zeros(4, np.float32) for i in range(8)}
    with pytest.raises(CheckpointError, match=r"8 leaves differ: .*; and 3 more\."):
        restore_checkpoint(tmp_path, like)


def test_a_key_is_no_array_of_numbers(tmp_path):
    save_checkpoint(tmp_path, 0, {"key": jax.random.key(0)}, metadata={})
    with pytest.raises(
        CheckpointError, match="1 leaf differs: key is key:threefry2x32"
    ):
        restore_checkpoint(tmp_path, {"key": jnp.zeros(2, jnp.uint32)})
    with pytest.raises(CheckpointError, match="expected key:rbg"):
        restore_checkpoint(tmp_path, {"key": jax.random.key(0, impl="rbg")})


def test_a_part_of_a_checkpoint_is_read_on_request(tmp_path):
    save_steps(tmp_path, 1)
    with pytest.raises(CheckpointError, match="n is only in the checkpoint"):
        restore_checkpoint(tmp_path, {"w": TREE["w"]})
    tree, _ = restore_checkpoint(tmp_path, {"w": TREE["w"]}, subset=True)
    np.testing.assert_array_equal(tree["w"], TREE["w"] + 1)
    with pytest.raises(CheckpointError, match="v is not in the checkpoint"):
        restore_checkpoint(tmp_path, {"v": TREE["w"]}, subset=True)


@pytest.mark.parametrize(
    ("error", "arguments", "text"),
    [
        (ValueError, {"step": -1}, "`step` must be >= 0, got -1. Count steps from 0."),
        (ValueError, {"keep": 0}, "`keep` must be >= 1, got 0. Use 1 to keep the"),
        (TypeError, {"metadata": {"a": np.ones(2)}}, "`metadata` must be JSON, got"),
        (TypeError, {"metadata": {"a": float("nan")}}, "`metadata` must be JSON, got"),
        (TypeError, {"tree": {"a": "text"}}, "`tree` must hold arrays of numbers, got"),
        (
            ValueError,
            {"tree": {"a/b": 1, "a": {"b": 1}}},
            "`tree` must give every leaf",
        ),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(
    tmp_path, error, arguments, text
):
    arguments = {"step": 0, "tree": TREE, "metadata": {}, **arguments}
    with pytest.raises(error, match="save_checkpoint: ") as e:
        save_checkpoint(tmp_path / "run", **arguments)
    assert text in str(e.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file: cannot be written"):
        save_steps(tmp_path / "file", 1)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_steps(tmp_path / "file" / "below", 1)


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    save_steps(tmp_path, 1)

    def no_space(folder, manifest):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.manifest, "write", no_space)
    with pytest.raises(CheckpointError) as e:
        save_steps(tmp_path, 2)
    assert str(e.value) == (
        f"{tmp_path}: cannot be written (No space left on device). Free space or "
        "choose another folder; earlier checkpoints are as they were."
    )
    assert names(tmp_path) == ["step_00000001"]
    assert latest_checkpoint(tmp_path) == 1


def test_a_second_writer_is_refused(tmp_path):
    save_steps(tmp_path, 1)
    with (
        RunLock(tmp_path),
        pytest.raises(
            CheckpointError, match=f"is being written by process {os.getpid()}"
        ),
    ):
        save_steps(tmp_path, 2)
    save_steps(tmp_path, 2)
    assert latest_checkpoint(tmp_path) == 2


# Each point patches what the save calls, in the process that will die there: which
# function, before or after it does its work, and at which of its calls.
CRASHES = {
    "before the arrays": "checkpoints, '_write_arrays', 'before', 1",
    "after the arrays": "checkpoints, '_write_arrays', 'after', 1",
    "before the manifest is on the disk": "manifest, 'sync', 'before', 1",
    "after the manifest": "manifest, 'write', 'after', 1",
    "after the rename": "checkpoints, '_publish', 'after', 1",
    "before pruning": "checkpoints, '_remove', 'before', 1",
    "after pruning": "checkpoints, '_prune', 'after', 1",
    "while removing": "checkpoints.shutil, 'rmtree', 'before', 1",
    # The first rename is Orbax's own, the others are ours.
    **{
        f"{when} rename {call}": f"checkpoints.os, 'rename', {when!r}, {call}"
        for when in ("before", "after")
        for call in (1, 2, 3)
    },
}
SCRIPT = """
import os, sys
import numpy as np
from jaxmetric.training import checkpoints, manifest, save_checkpoint

def patch(module, name, when, call):
    original, calls = getattr(module, name), []
    def dies(*args, **kwargs):
        calls.append(name)
        if when == "before" and len(calls) == call:
            os._exit(77)
        result = original(*args, **kwargs)
        if len(calls) == call:
            os._exit(77)
        return result
    setattr(module, name, dies)

patch({patch})
folder, step = sys.argv[1], int(sys.argv[2])
tree = dict(w=np.full((2, 3), step, np.float32), n=np.int32(step))
save_checkpoint(folder, step, tree, metadata=dict(new=True), keep=1)
"""


def run(script, *arguments):
    """Return the exit status of a script in a process of its own."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, env=environment, check=False).returncode


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(1, marks=pytest.mark.slow, id="same step"),
        pytest.param(2, id="next step"),
    ],
)
@pytest.mark.parametrize("point", CRASHES)
def test_a_crash_leaves_the_previous_or_the_new_step(tmp_path, point, step):
    save_steps(tmp_path, 1)
    assert run(SCRIPT.format(patch=CRASHES[point]), tmp_path, step) == 77
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree, metadata = restore_checkpoint(tmp_path, TREE)
    if "new" in metadata:
        assert tree["n"] == step
        np.testing.assert_array_equal(tree["w"], np.full((2, 3), step))
    else:
        assert tree["n"] == 1
        np.testing.assert_array_equal(tree["w"], TREE["w"] + 1)
    save_steps(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["step_00000003"]


KILLED = """
import sys
import numpy as np
from jaxmetric.training import save_checkpoint
for step in range(1, 10_000):
    tree = dict(w=np.full((64, 64), step, np.float32), n=np.int32(step))
    save_checkpoint(sys.argv[1], step, tree, metadata=dict(), keep=2)
    print(step, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_sigkill_at_any_moment_leaves_a_step(tmp_path, seed):
    rng = np.random.default_rng(seed)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        printed = [1, *map(int, process.stdout.read().split())]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step = latest_checkpoint(tmp_path)
        like = {"w": np.zeros((64, 64), np.float32), "n": np.int32(0)}
        tree, _ = restore_checkpoint(tmp_path, like)
    assert step in (printed[-1], printed[-1] + 1)
    np.testing.assert_array_equal(tree["w"], np.full((64, 64), step))
    save_checkpoint(tmp_path, step + 5, tree, metadata={})  # The lock died with it.


def test_the_manifest_reads_as_json_and_its_checksum_as_sha256sum(tmp_path):
    save_steps(tmp_path, 1)
    folder = tmp_path / "step_00000001"
    body = json.loads((folder / "manifest.json").read_text())
    assert body["step"] == 1
    assert body["leaves"][1] == {"path": "w", "shape": [2, 3], "dtype": "float32"}
    assert (folder / "manifest.sha256").read_text().endswith("  manifest.json\n")
