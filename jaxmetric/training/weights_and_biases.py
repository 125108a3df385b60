"""Metrics and pictures for Weights & Biases; a run that goes on stays one run there."""

import io
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxmetric.training.writers import scalars

__all__ = ["WandbWriter"]

_STATE = "wandb.json"
# Seconds to wait for the network: to be let in, and to send what is left.
_BEGINNING, _END = 30.0, 120.0


class WandbWriter:
    """Write to a run at Weights & Biases; WANDB_MODE=offline keeps it in the folder.

    wandb.json in the folder names the run and how far it has been told: whoever writes
    to the folder again goes on with that run, and no step comes twice. Records that it
    has not got yet are sent first. The project is that of WANDB_PROJECT, or jaxmetric;
    everything else follows the variables of wandb too.

    Args:
      folder: of the run; made if it is not there.
      records: of the steps that were taken before.
      config: settings of the run, shown beside it.
      name: of the run; that of the folder by default.

    Raises:
      ModuleNotFoundError: the package wandb is missing.
      Exception: whatever wandb raises, if there is no login or no network.

    Memory: one record.

    Example:
      >>> folder = getfixture("tmp_path")
      >>> getfixture("monkeypatch").setenv("WANDB_MODE", "offline")
      >>> with WandbWriter(folder, config={"margin": 0.2}) as log:
      ...     log.write({"step": 1, "kind": "train", "loss": 0.25})
      >>> print((folder / "wandb.json").exists())
      True
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        records: Iterable[Mapping[str, Any]] = (),
        config: Mapping[str, Any] | None = None,
        name: str | None = None,
    ):
        try:
            import wandb
        except ImportError as error:
            raise ModuleNotFoundError(
                "WandbWriter: needs wandb. Use pip install 'jaxmetric[wandb]'.",
                name="wandb",
            ) from error
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._image = folder / _STATE, wandb.Image
        told = _read_state(self._path)
        self._step, self._kinds = told.get("step", -1), told.get("kinds", [])
        settings: dict[str, Any] = {"silent": True, "console": "off"}
        if "WANDB_INIT_TIMEOUT" not in os.environ:
            settings["init_timeout"] = _BEGINNING
        if "WANDB_FINISH_TIMEOUT" not in os.environ:
            settings |= {"finish_timeout": _END, "finish_timeout_raises": True}
        self._id = told.get("id") or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "jaxmetric",
            name=name or folder.absolute().name,
            id=self._id,
            # The offline mode has nobody to ask, and says so when it is asked.
            resume="allow" if told and not _is_offline() else None,
            dir=str(folder),
            config=dict(config or {}),
            settings=wandb.Settings(**settings),
        )
        # Each record is a row of its own, with the step among its numbers: the counter
        # of wandb would refuse a step that it has passed.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._keep_state()
        for record in records:
            self.write(record)

    def __enter__(self) -> "WandbWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str | None:
        """Page of the run; None where it has none."""
        return None if self._run.offline else self._run.url

    def write(self, record: Mapping[str, Any]) -> None:
        """Send the numbers of a record under "kind/name", unless they were sent."""
        step, kind = int(record["step"]), str(record.get("kind", "train"))
        numbers = scalars(record)
        if not numbers or step < self._step:
            return
        if step > self._step:
            self._step, self._kinds = step, []
        if kind in self._kinds:
            return
        self._kinds.append(kind)
        self._run.log({"step": step, **numbers})
        self._keep_state()

    def write_image(self, name: str, png: bytes, *, step: int) -> None:
        """Send a picture, the content of a PNG file."""
        from PIL import Image

        picture = Image.open(io.BytesIO(png))
        self._run.log({"step": step, name: self._image(picture)})

    def close(self) -> None:
        """Wait until everything is sent, two minutes at most, and end.

        Raises:
          TimeoutError: not all is sent; `wandb sync` sends it later.
        """
        self._run.finish()

    def _keep_state(self) -> None:
        """Note how far the run has been told, at one stroke."""
        told = {"id": self._id, "step": self._step, "kinds": self._kinds}
        temporary = self._path.with_suffix(".unfinished")
        temporary.write_text(json.dumps(told) + "\n", encoding="utf-8")
        os.replace(temporary, self._path)


def _read_state(path: Path) -> dict[str, Any]:
    """Return what a writer before has noted; empty if there was none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) and isinstance(told.get("id"), str) else {}


def _is_offline() -> bool:
    return os.environ.get("WANDB_MODE", "") in ("offline", "dryrun", "disabled")
