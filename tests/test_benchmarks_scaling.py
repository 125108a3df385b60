"""The page on large batches: its tables are those of its script, and the script's
assumptions those of the compiled program.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmetric as jm
from benchmarks import scaling, scaling_measured


def test_the_page_holds_what_the_script_computes():
    page = scaling.PAGE.read_text()
    assert scaling.replaced(page, "scaling", scaling.markdown()) == page
    for name in ("measured", "chunks"):
        filled = re.search(
            f"<!-- {name}:begin -->\n\\|.*<!-- {name}:end -->", page, re.S
        )
        assert filled, name


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match=r"scaling:begin"):
        scaling.replaced("nothing", "scaling", "")


def test_costs_by_hand():
    c = scaling.cost(8)
    assert c.rows == 2**17
    assert c.sent == 2 * 7 / 8 * 2**20 * 512 * 4
    assert c.flops == 6 * 2**17 * 2**20 * 512
    assert c.gathered == 4.5 * 2**20 * 512 * 4
    assert c.block == 2 * 128 * 2**20 * 4
    # The work is shared out, what is sent is not.
    more = scaling.cost(1024)
    assert more.flops * 128 == c.flops
    assert c.sent < more.sent < 2 * 2**20 * 512 * 4


@pytest.mark.parametrize("accelerator", [scaling.PRECISE, scaling.FAST])
def test_communication_is_as_long_as_computation_at_the_balance(accelerator):
    n = scaling.balance(accelerator)
    compute = scaling.cost(64, accelerator).compute * 64 / n
    assert compute == pytest.approx(
        2 * 2**20 * 512 * accelerator.bytes_per_number / accelerator.far
    )
    at_best = max(
        (lambda c: c.together / c.ring)(scaling.cost(n, accelerator))
        for n in range(8, 1025)
    )
    assert 1.5 < at_best < 5 / 3


def compiled(loss_name: str, block_size: int, rows: int, dim: int, count: int) -> Any:
    mesh = jax.make_mesh(
        (count,),
        ("data",),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:count],
    )
    loss = jm.sharding.data_parallel(getattr(jm.losses, loss_name), mesh=mesh)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((rows, dim), jnp.float32, sharding=sharding)
    y = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=sharding)

    def call(x, y):
        return loss(x, y, block_size=block_size)

    return jax.jit(jax.value_and_grad(call)).lower(x, y).compile()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "products"),
    [("contrastive_loss", scaling.PRODUCTS), ("batch_hard_triplet_loss", 1)],
)
def test_the_program_computes_as_many_products_as_counted(name, products):
    rows, dim, count = 4096, 512, 8
    program = compiled(name, rows // count, rows, dim, count)
    flops = program.cost_analysis()["flops"]
    one = 2 * rows // count * rows * dim
    assert products <= flops / one < products + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["contrastive_loss", "batch_hard_triplet_loss"])
def test_the_program_takes_as_much_memory_as_counted(name):
    rows, dim, block = 4096, 512, 16
    program = compiled(name, block, rows, dim, 8)
    needed = program.memory_analysis().temp_size_in_bytes
    numbers = scaling.GATHERED * rows * dim + scaling.BLOCKS * block * rows
    assert 0.8 * numbers < needed / 4 < 1.05 * numbers


@pytest.mark.slow
def test_the_memory_of_chunks_is_that_of_the_page():
    page = scaling.PAGE.read_text()
    row = re.search(r"\| temporary, MB \|(.*)\|", page)
    assert row
    told = [float(cell) for cell in row[1].split("|")]
    needed = [
        scaling_measured.temporary_bytes(size) for size in scaling_measured.CHUNKS
    ]
    assert told == pytest.approx([n / 1e6 for n in needed], rel=0.1)
    assert needed == sorted(needed, reverse=True)
