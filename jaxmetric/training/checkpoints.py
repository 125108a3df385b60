"""Checkpoints that are whole or not there: save, find and restore.

A checkpoint is the folder `step_00000123`:

    arrays/           the numbers, one numbered array a leaf, written by Orbax
    manifest.json     paths, shapes and dtypes of the leaves, size and sha256 of every
                      file under arrays/, and the caller's metadata
    manifest.sha256   of the manifest

It is written under another name, brought to the disk and renamed last, so that a
process killed at any moment leaves the previous checkpoint or the new one. Nothing is
read before all checksums have been compared.
"""

import contextlib
import json
import operator
import os
import re
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmetric import _checks
from jaxmetric.training import leaves, manifest
from jaxmetric.training.errors import CheckpointError, CheckpointWarning
from jaxmetric.training.lock import RunLock
from jaxmetric.training.manifest import ARRAYS, Manifest

__all__ = ["latest_checkpoint", "restore_checkpoint", "save_checkpoint"]

_STEP = re.compile(r"step_(\d{8,})(\.replaced)?")
_TEMPORARY = ".unfinished-"

PathLike = str | os.PathLike[str]


def save_checkpoint(
    folder: PathLike, step: int, tree: Any, *, metadata: dict[str, Any], keep: int = 3
) -> Path:
    """Write a tree as the checkpoint of a step, and drop the oldest ones.

    Older checkpoints are dropped only after the new one has been read back whole. What
    crashed saves left behind is removed. A checkpoint of the same step is replaced.

    Args:
      folder: the checkpoints of one run; made if it does not exist.
      step: not negative.
      tree: pytree of arrays, PRNG keys and Python numbers; any float, integer or bool
        dtype. The parameters belong under the keys (or fields) "params" and
        "model_state" if `load_run` is to find them.
      metadata: JSON values, such as the position in the data and the class names.
        They come back as JSON gives them: tuples as lists.
      keep: how many checkpoints stay, the new one included; at least 1.

    Returns:
      The folder of the new checkpoint.

    Raises:
      CheckpointError: the disk is full, the folder not writable or being written by
        another process. Earlier checkpoints are then as they were.
      TypeError: a leaf is no number, or `metadata` is not JSON.
      ValueError: `step` or `keep` is out of range, or two leaves have one path.

    Memory: a copy of the tree on the host.

    Example:
      >>> import tempfile, numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = save_checkpoint(folder, 7, {"w": np.ones(2)}, metadata={})
      ...     tree, _ = restore_checkpoint(folder, {"w": np.zeros(2)})
      >>> print(path.name, tree["w"])
      step_00000007 [1. 1.]
    """
    function = "save_checkpoint"
    step, keep = operator.index(step), operator.index(keep)
    if step < 0:
        remedy = "Count steps from 0."
        raise ValueError(_checks.text(function, "step", "be >= 0", f"{step}", remedy))
    if keep < 1:
        remedy = "Use 1 to keep the newest only."
        raise ValueError(_checks.text(function, "keep", "be >= 1", f"{keep}", remedy))
    try:
        metadata = json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError) as error:
        remedy = "Use str, int, float, bool, None, lists and dicts."
        raise TypeError(
            _checks.text(function, "metadata", "be JSON", str(error), remedy)
        ) from error
    described, arrays = leaves.flatten(tree)
    folder = Path(folder).absolute()
    temporary = folder / f"{_TEMPORARY}{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with RunLock(folder):
            _remove_leftovers(folder)
            try:
                temporary.mkdir()
                _write_arrays(temporary / ARRAYS, arrays)
                manifest.write(temporary, Manifest(step, metadata, described))
                path = _publish(temporary, folder / f"step_{step:08d}")
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            _prune(folder, path, step, keep)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be written ({error.strerror or error}). Free space or "
            "choose another folder; earlier checkpoints are as they were."
        ) from error
    return path


def latest_checkpoint(folder: PathLike) -> int | None:
    """Return the step of the newest intact checkpoint on the disk.

    Args:
      folder: the checkpoints of one run.

    Returns:
      The step; None if the folder holds no checkpoint or does not exist.

    Raises:
      CheckpointError: there are checkpoints, and all of them are damaged.

    Warns:
      CheckpointWarning: newer checkpoints are damaged; names the file and the reason.

    Memory: O(1); time to read the newest checkpoint once.

    Example:
      >>> import tempfile, numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = save_checkpoint(folder, 7, {"w": np.ones(2)}, metadata={})
      ...     print(latest_checkpoint(folder))
      7
    """
    found = _newest_intact(Path(folder))
    return None if found is None else found[1].step


def restore_checkpoint(
    folder: PathLike, like_tree: Any, step: int | None = None, *, subset: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Read a checkpoint back, bit for bit, into the form of a given tree.

    Args:
      folder: the checkpoints of one run.
      like_tree: a tree of the same paths, shapes and dtypes; its arrays may be
        abstract (`jax.ShapeDtypeStruct`), their numbers are not used.
      step: which one; None takes the newest intact one.
      subset: whether the checkpoint may hold more leaves than `like_tree`.

    Returns:
      (tree, metadata): leaves become what they are in `like_tree`, JAX arrays on the
      same devices, NumPy arrays or Python numbers.

    Raises:
      CheckpointError: there is none, it is damaged, or it holds another tree; up to
        five leaves that differ are listed.

    Warns:
      CheckpointWarning: with `step=None`, newer checkpoints are damaged.

    Memory: the checkpoint on the host and the result.

    Example:
      >>> import tempfile, numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = save_checkpoint(folder, 7, {"w": np.ones(2)}, metadata={"at": 3})
      ...     tree, metadata = restore_checkpoint(folder, {"w": np.zeros(2)})
      >>> print(tree["w"], metadata["at"])
      [1. 1.] 3
    """
    folder = Path(folder).absolute()
    if step is None:
        found = _newest_intact(folder)
        if found is None:
            raise CheckpointError(
                f"{folder}: holds no checkpoint. Give the folder of a run that has one."
            )
        path, described = found
    else:
        path, described = _of_step(folder, operator.index(step))
    difference = leaves.differences(like_tree, described.leaves, subset=subset)
    if difference is not None:
        raise CheckpointError(
            f"{path}: is a checkpoint of another model, {difference}. "
            "Use the options that the run was made with."
        )
    arrays = _read_arrays(path / ARRAYS, described.leaves)
    named = {leaf.path: a for leaf, a in zip(described.leaves, arrays, strict=True)}
    return leaves.rebuild(like_tree, named), described.metadata


def _write_arrays(folder: Path, arrays: list[np.ndarray]) -> None:
    """Write numbered arrays with Orbax; complete when it returns."""
    # Orbax refuses arrays without elements; their shape is in the manifest.
    item = {f"{i:05d}": a for i, a in enumerate(arrays) if a.size > 0}
    if not item:
        folder.mkdir()
        return
    ocp = _orbax()
    with _checkpointer(ocp) as checkpointer:
        try:
            checkpointer.save(folder, args=ocp.args.PyTreeSave(item))
        except (ValueError, RuntimeError) as error:
            # TensorStore tells a full or read-only disk with these.
            raise CheckpointError(
                f"{folder}: cannot be written ({_first_line(error)}). Free space or "
                "choose another folder; earlier checkpoints are as they were."
            ) from error


def _read_arrays(folder: Path, stored: list[leaves.Leaf]) -> list[np.ndarray]:
    """Return the numbered arrays as they were given to `_write_arrays`."""
    item = {f"{i:05d}": 0 for i, leaf in enumerate(stored) if 0 not in leaf.shape}
    arrays = {}
    if item:
        ocp = _orbax()
        kinds = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in item}
        args = ocp.args.PyTreeRestore(item, restore_args=kinds)
        with _checkpointer(ocp) as checkpointer:
            try:
                arrays = checkpointer.restore(folder, args=args)
            except (ValueError, RuntimeError, KeyError, OSError) as error:
                raise CheckpointError(
                    f"{folder}: cannot be read ({_first_line(error)}). "
                    "Use the version of Orbax that wrote it, or an earlier checkpoint."
                ) from error
    return [
        np.asarray(arrays[f"{i:05d}"])
        if f"{i:05d}" in arrays
        else np.zeros(leaf.shape, leaf.dtype)
        for i, leaf in enumerate(stored)
    ]


def _orbax() -> Any:
    """Return the module orbax.checkpoint, which loads only for those who save."""
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError(
            "Checkpoints need Orbax. Use pip install 'jaxmetric[cli]'."
        ) from error
    return ocp


def _checkpointer(ocp: Any) -> Any:
    """Return a checkpointer of this process alone, whatever others JAX knows."""
    if not jax.distributed.is_initialized():
        return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    # By default, Orbax would wait for the others to save the same.
    index = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=index,
        active_processes={index},
        barrier_sync_key_prefix=f"process_{index}",
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _publish(temporary: Path, final: Path) -> Path:
    """Give the finished folder its name; an older one of that name goes after it."""
    replaced = final.with_name(final.name + ".replaced")
    if final.exists() and replaced.exists():
        _remove(replaced if _is_intact(final) else final)
    if final.exists():
        # One of the two is there under a name that readers know, at every moment.
        os.rename(final, replaced)
    os.rename(temporary, final)
    manifest.sync(final.parent)
    if replaced.exists():
        manifest.verify(final)
        _remove(replaced)
    return final


def _prune(folder: Path, newest: Path, step: int, keep: int) -> None:
    """Remove all but `keep` checkpoints up to `step`, once the newest is verified."""
    older = [path for path in _candidates(folder) if _step_of(path) < step]
    doomed = older[keep - 1 :]
    if doomed:
        manifest.verify(newest)
        for path in doomed:
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a checkpoint; while half of it is gone it has no name that counts."""
    trash = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    os.rename(path, trash)
    shutil.rmtree(trash, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove what crashed saves and removals have left; the caller holds the lock."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def _candidates(folder: Path) -> list[Path]:
    """Return the checkpoint folders, damaged ones included, newest first."""
    try:
        paths = [p for p in folder.iterdir() if _STEP.fullmatch(p.name) and p.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be read ({error.strerror}). Make the folder readable."
        ) from error
    # Of one step, the one that was being replaced comes second.
    return sorted(paths, key=lambda p: (-_step_of(p), p.suffix))


def _step_of(path: Path) -> int:
    """Return the step that a checkpoint folder is named for."""
    match = _STEP.fullmatch(path.name)
    return int(match[1]) if match else -1


def _verify(path: Path) -> Manifest:
    """Return the manifest of an intact checkpoint of the step in its name."""
    found = manifest.verify(path)
    if found.step != _step_of(path):
        raise CheckpointError(f"{path}: holds step {found.step}")
    return found


def _is_intact(path: Path) -> bool:
    """Return whether a checkpoint folder is as it was written."""
    with contextlib.suppress(CheckpointError):
        manifest.verify(path)
        return True
    return False


def _newest_intact(folder: Path) -> tuple[Path, Manifest] | None:
    """Return the newest intact checkpoint, with a warning if newer ones are damaged."""
    faults = []
    for path in _candidates(folder):
        try:
            found = _verify(path)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        if faults:
            text = f"{'; '.join(faults)}. Falling back to step {found.step}."
            warnings.warn(text, CheckpointWarning, stacklevel=3)
        return path, found
    if faults:
        raise CheckpointError(
            f"{'; '.join(faults)}. No intact checkpoint is left: train again."
        )
    return None


def _of_step(folder: Path, step: int) -> tuple[Path, Manifest]:
    """Return the checkpoint of one step, or say which step could be had instead."""
    candidates = _candidates(folder)
    faults = [] if candidates else [f"{folder}: holds no checkpoint"]
    for path in (p for p in candidates if _step_of(p) == step):
        try:
            return path, _verify(path)
        except CheckpointError as error:
            faults.append(str(error))
    if not faults:
        faults = [f"{folder}: holds no checkpoint of step {step}"]
    remedy = "No intact checkpoint is left: train again."
    for path in (p for p in candidates if _step_of(p) != step):
        with contextlib.suppress(CheckpointError):
            remedy = f"The newest intact step is {_verify(path).step}."
            break
    raise CheckpointError(f"{'; '.join(faults)}. {remedy}")


def _first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0]
