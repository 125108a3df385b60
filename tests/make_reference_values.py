"""Write what PyTorch's losses answer to one batch each, for tests without PyTorch.

    python tests/make_reference_values.py

needs the extra `parity`. All is float64 and drawn from a fixed seed: run twice with the
versions that it stores, it writes the same file.
"""

import sys
import warnings

import jax
import numpy as np
import pytorch_metric_learning  # pyright: ignore[reportMissingImports]
import reference_values
import torch  # pyright: ignore[reportMissingImports]
from peers import PEERS
from peers_torch import their_answers

# What the package of the tests must stay below.
_MOST_BYTES = 300_000


def versions() -> list[str]:
    """Return the versions that the values depend on."""
    modules = (np, jax, torch, pytorch_metric_learning)
    local = [module.__version__.partition("+")[0] for module in modules]
    names = [module.__name__ for module in modules]
    return [f"{name} {version}" for name, version in zip(names, local, strict=True)]


def main() -> int:
    """Write the file."""
    stored: dict[str, np.ndarray] = {"versions": np.array(versions())}
    for entry in PEERS.values():
        for side in entry.sides:
            batch = reference_values.make_batch(entry, side)
            name = reference_values.batch_name(entry, side)
            stored |= {f"{name}/{key}": array for key, array in batch.items()}
            answer = reference_values.flat(their_answers(entry, batch, "float64"))
            assert np.all(np.isfinite(answer)), entry.name
            assert answer[0] != 0, entry.name
            stored[reference_values.answer_name(entry, side)] = answer
    np.savez_compressed(reference_values.FILE, allow_pickle=False, **stored)
    size = reference_values.FILE.stat().st_size
    sys.stdout.write(f"{len(stored)} arrays, {size} bytes\n")
    return int(size > _MOST_BYTES)


if __name__ == "__main__":
    warnings.simplefilter("ignore", UserWarning)
    sys.exit(main())
