"""What the program of a global batch communicates and holds, counted as compiled."""

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmetric as jm
from jaxmetric.sharding import data_parallel

losses: Any = jm.losses
ROWS, DIM, BLOCK, DEVICES, CLASSES = 512, 64, 16, 8, 24
KINDS = "all-gather|reduce-scatter|all-reduce|all-to-all|collective-permute"
COLLECTIVE = re.compile(rf"= (\(.*?\)|\S+) ({KINDS})(?:-start)?\(")
# What is communicated is settled before these have a say.
QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
EMBEDDINGS, SHARD = f"f32[{ROWS},{DIM}]", f"f32[{ROWS // DEVICES},{DIM}]"
LABELS = f"s32[{ROWS}]"


def names(*arrays: str) -> list[str]:
    """Return the losses that take these arrays first."""
    found = []
    for name in losses.__all__:
        parameters = inspect.signature(getattr(losses, name)).parameters.values()
        first = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        if first == list(arrays):
            found.append(name)
    return found


def program(name: str, *arrays: Any, is_varied: tuple[int, ...] = (0,)) -> str:
    """Return the compiled text of value and gradient on eight devices."""
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Explicit,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    loss = getattr(losses, name)
    takes_blocks = "block_size" in inspect.signature(loss).parameters
    named = {"block_size": BLOCK} if takes_blocks else {}
    parallel = data_parallel(loss, mesh=mesh)
    arguments = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)
        if len(a) == ROWS
        else a
        for a in arrays
    ]

    def call(*arguments: Any) -> jax.Array:
        return parallel(*arguments, **named)

    lowered = jax.jit(jax.value_and_grad(call, is_varied)).lower(*arguments)
    text = lowered.compile(compiler_options=QUICKLY).as_text()
    assert text is not None
    return text


def communicated(text: str) -> dict[str, list[str]]:
    """Return the shapes of all collectives, by kind."""
    found: dict[str, list[str]] = {kind: [] for kind in KINDS.split("|")}
    for shape, kind in COLLECTIVE.findall(text):
        found[kind].append(shape.split("{")[0])
    return found


def largest(text: str) -> int:
    """Return the numbers of the largest array."""
    shapes = re.findall(r"\b[fsu]32\[([\d,]+)\]", text)
    return max(int(np.prod([int(n) for n in s.split(",")])) for s in shapes)


X = jax.ShapeDtypeStruct((ROWS, DIM), jnp.float32)
Y = jax.ShapeDtypeStruct((ROWS,), jnp.int32)
# What a loss must know of all rows besides: one number or flag a row.
BESIDES = {
    "lifted_structure_loss": (["f32[512]", "pred[512]"], ["f32[64]"]),
    "n_pairs_loss": (["pred[512]", "s32[512]"], []),
}
# Histograms and sums over the devices, of a fixed size.
SUMS = {"dynamic_soft_margin_loss": ["f32[10]"], "histogram_loss": ["f32[2,101]"]}
USUAL = ("contrastive_loss", "batch_hard_triplet_loss")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in USUAL else pytest.mark.slow)
        for name in names("embeddings", "labels")
    ],
)
def test_each_operand_is_gathered_once_and_one_gradient_comes_back(name):
    text = program(name, X, Y)
    found = communicated(text)
    numbers = [s for s in found.pop("all-reduce") if re.search(r"\[\d", s)]
    assert numbers == SUMS.get(name, [])
    gathered, scattered = BESIDES.get(name, ([], []))
    assert sorted(found.pop("all-gather")) == sorted([EMBEDDINGS, LABELS, *gathered])
    assert sorted(found.pop("reduce-scatter")) == sorted([SHARD, *scattered])
    assert not any(found.values())
    # Nothing is larger than the gathered rows, and the distances of one block.
    assert largest(text) <= max(ROWS * DIM, BLOCK * ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("name", names("embeddings", "labels", "proxies"))
def test_proxies_are_on_all_devices_and_no_row_is_gathered(name):
    if name == "manifold_loss":
        pytest.skip("its graph is one over all rows and proxies")
    has_centers = name in ("soft_triple_loss", "subcenter_arcface_loss")
    centers = (3,) if has_centers else ()
    proxies = jnp.ones((CLASSES, *centers, DIM))
    text = program(name, X, Y, proxies, is_varied=(0, 2))
    found = communicated(text)
    # The gradient of the proxies is a sum over the devices, that of the rows is not.
    assert found.pop("all-reduce")
    assert not any(found.values())
    assert largest(text) <= ROWS // DEVICES * max(DIM, 3 * CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["info_nce_loss", "sigmoid_contrastive_loss"])
def test_of_two_sides_the_other_is_gathered(name):
    found = communicated(program(name, X, X, is_varied=(0, 1)))
    assert not any(re.search(r"\[\d", s) for s in found.pop("all-reduce"))
    assert set(found.pop("all-gather")) == {EMBEDDINGS}
    assert set(found.pop("reduce-scatter")) == {SHARD}
    assert not any(found.values())
