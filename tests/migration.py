"""The migration page as code: its rows, the arrays they are of, our side's numbers."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from subjects import fast_options

import jaxmetric as jm

PAGE = Path(__file__).parents[1] / "jaxmetric" / "losses" / "MIGRATION.md"
LIBRARIES = (
    "pytorch-metric-learning 2.9",
    "sentence-transformers",
    "TensorFlow Addons",
    "Optax",
)
_EXACT = 1e-9
_ROW = re.compile(r"^\| `(.+?)` \| `(.+?)` \| (.*?) ?\|$")


class Row(NamedTuple):
    """A row of the page: a call of theirs, one of ours, how far apart they may be."""

    theirs: str
    ours: str
    tolerance: float


def rows(library: str) -> list[Row]:
    """Return the rows below the heading of a library."""
    text = PAGE.read_text(encoding="utf-8")
    part = text.split(f"\n## {library}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| `")]
    found = []
    for line in lines:
        match = _ROW.match(line)
        assert match, f"not a row of `theirs`, `ours` and words: {line}"
        apart = re.search(r"\bto (1e-\d+)", match[3])
        found.append(Row(match[1], match[2], float(apart[1]) if apart else _EXACT))
    return found


def arrays() -> dict[str, np.ndarray]:
    """Return what the names of the page stand for, in float64.

    Four classes of four rows in order: the one case in which SmoothAP of PML is right.
    """
    rng = np.random.default_rng(20)
    y = np.repeat(np.arange(4), 4)
    centres = rng.normal(size=(4, 5))
    x, r = (centres[y] + rng.normal(size=(16, 5)) for _ in range(2))
    order = rng.permutation(16)
    return {
        "x": x,
        "y": y,
        "u": x / np.linalg.norm(x, axis=1, keepdims=True),
        "r": r,
        "ry": y[order],
        "i": np.arange(16),
        "a": x[:12],
        "p": r[:12] * 1.5,
        "n": x[4:] * 0.8,
        "s": rng.random(16) < 0.5,
        "d": np.linalg.norm(x - r, axis=1),
        "w": rng.normal(size=(4, 5)),
        "w2": rng.normal(size=(4, 2, 5)),
    }


def ours(library: str) -> dict[str, np.ndarray]:
    """Return the values of our side of a library's rows, by the code of theirs."""

    def all_rows(values: dict[str, jax.Array]) -> dict[str, Any]:
        names = {"jm": jm, "jnp": jnp, **values}
        return {row.theirs: eval(row.ours, names) for row in rows(library)}

    with jax.enable_x64(True):
        values = {name: jnp.asarray(value) for name, value in arrays().items()}
        # One program for all of them: compiling each would take most of the time.
        found = jax.jit(all_rows, compiler_options=fast_options())(values)
        return {theirs: np.asarray(value) for theirs, value in found.items()}
