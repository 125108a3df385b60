"""What pytorch-metric-learning says to the rows of the migration page.

python tests/migration_peers.py       where it is installed: writes the stored numbers
"""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import migration

STORED = Path(__file__).parent / "migration_values.json"
LIBRARY = "pytorch-metric-learning 2.9"


def values() -> dict[str, float]:
    """Return the value of each of its rows, run in float64."""
    torch = importlib.import_module("torch")
    arrays = migration.arrays()
    names: dict[str, Any] = {k: torch.from_numpy(v.copy()) for k, v in arrays.items()}
    num_classes, dim = arrays["w"].shape
    library = "pytorch_metric_learning"
    modules = {
        name: importlib.import_module(f"{library}.{name}")
        for name in ("distances", "miners", "reducers")
    }
    accuracy = importlib.import_module(f"{library}.utils.accuracy_calculator")
    inference = importlib.import_module(f"{library}.utils.inference")
    losses = importlib.import_module(f"{library}.losses")
    names |= modules
    names |= {
        "losses": _with_proxies(losses, arrays, torch),
        "C": num_classes,
        "dim": dim,
        "AccuracyCalculator": accuracy.AccuracyCalculator,
        "CustomKNN": inference.CustomKNN,
    }
    rows = migration.rows(LIBRARY)
    return {row.theirs: float(eval(row.theirs, names)) for row in rows}


def _with_proxies(losses: Any, arrays: dict[str, Any], torch: Any) -> SimpleNamespace:
    """Return the classes of losses, made in float64 and with the page's proxies.

    Weights are [C, dim] or, as often, its transpose, with K columns a class.
    """
    flat = arrays["w2"].reshape(-1, arrays["w2"].shape[-1])
    known = [arrays["w"], arrays["w"].T, flat.T]

    def made(kind: Any) -> Any:
        def make(*options: Any, **keywords: Any) -> Any:
            loss = kind(*options, **keywords).double()
            for name in ("W", "fc", "proxies", "weight"):
                weight = getattr(loss, name, None)
                for array in known:
                    if weight is not None and tuple(weight.shape) == array.shape:
                        weight.data = torch.from_numpy(array.copy())
            return loss

        return make

    names = [name for name in dir(losses) if name.endswith("Loss")]
    return SimpleNamespace(**{name: made(getattr(losses, name)) for name in names})


def stored() -> dict[str, float]:
    """Return the stored values."""
    return json.loads(STORED.read_text(encoding="utf-8"))


if __name__ == "__main__":
    STORED.write_text(json.dumps(values(), indent=1) + "\n", encoding="utf-8")
