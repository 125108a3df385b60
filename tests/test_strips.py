"""Strips of a batch against itself, against whole rows of the same formula."""

import itertools
import os
import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxmetric as jm
from jaxmetric import _comparison, _rows, _strips
from jaxmetric.reductions import LossStats


def batch(rows: int, dim: int) -> dict[str, Any]:
    """Return rows with duplicates, masked rows, repeated samples and a lone class."""
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, dim)).astype(np.float32)
    x[5], x[rows - 1] = x[rows // 2], x[3]
    ids = np.arange(rows)
    ids[rows - 2] = ids[1]
    labels = rng.integers(0, 4, rows)
    labels[7] = 1000
    where = rng.random(rows) < 0.8
    x[~where] = np.nan
    weights = rng.uniform(0.5, 2, rows).astype(np.float32)
    return {
        "embeddings": x,
        "labels": labels,
        "where": where,
        "ids": ids,
        "weights": weights,
    }


def pair_of(block, width, depth):
    """Return terms with a kink and a curve, and whom they belong to."""
    bump = depth * jnp.sin(width * block.distances) ** 2
    pushed = jnp.where(block.negative & (bump > 0.2), bump - 0.2, 0)
    return pushed, jnp.where(block.positive, bump, 0), block.negative


def row_of(sums, width, depth):
    """Return statistics that are not linear in the sums."""
    pushed, pulled, count = sums
    total = jnp.log1p(pushed) * (1 + pulled) / (1 + depth)
    total = jnp.where(count > 0, total, 0)
    return LossStats(total, count.astype(jnp.int32), (pushed > 0).astype(jnp.int32))


def whole_row_of(block, *hyper):
    """The same formula, for the engine of rows."""
    terms = pair_of(block, *hyper)
    return row_of(tuple(jnp.sum(a, -1, dtype=jnp.float32) for a in terms), *hyper)


def strips_of(distance: Any = "euclidean", reduction: Any = "mean_per_anchor", **case):
    """Return the loss by strips of (x, weights, width, depth)."""
    # An object of its own: nothing that other tests have compiled is taken.
    formula = (partial(pair_of), row_of)

    def loss(x, weights, *hyper):
        rows = {**case, "embeddings": x, "weights": weights}
        comparison = _comparison.compare("f", **rows, distance=distance)
        hyper = tuple(map(jnp.asarray, hyper))
        return _strips.pair_sum_loss(comparison, *formula, hyper, reduction=reduction)

    return loss


def rows_of(distance: Any = "euclidean", reduction: Any = "mean_per_anchor", **case):
    """Return the loss by whole rows, all as one block."""

    def loss(x, weights, *hyper):
        rows = {**case, "embeddings": x, "weights": weights}
        comparison = _comparison.compare("f", **rows, distance=distance)
        return _rows.row_loss(
            comparison,
            whole_row_of,
            tuple(map(jnp.asarray, hyper)),
            reduction=reduction,
            block_size=1000,
            function="f",
        )

    return loss


@pytest.fixture(params=[2, 5, 100], ids=["7", "3", "1"])
def blocks(request, monkeypatch):
    """Set the rows of a block, for 7 blocks of 11 rows (one of padding), 3 or 1."""
    set_blocks(monkeypatch, request.param)


def set_blocks(monkeypatch, rows=2):
    monkeypatch.setattr(_strips, "_CPU", (1, rows, 1))


def take(case: dict) -> tuple:
    """Return what is differentiated, and the rest."""
    rest = dict(case)
    return (rest.pop("embeddings"), rest.pop("weights"), 1.5, 0.75), rest


def assert_same(got, want, **tolerances):
    tolerances = {"rtol": 1e-5, "atol": 1e-6, **tolerances}
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, **tolerances)


def both(operands, distance, reduction, rest):
    """Return value and gradients by all operands, of strips and of rows."""
    everything = (0, 1, 2, 3)
    makers = (strips_of, rows_of)
    return [
        jax.jit(jax.value_and_grad(make(distance, reduction, **rest), everything))(
            *operands
        )
        for make in makers
    ]


def test_value_and_gradients_are_those_of_rows(blocks):
    operands, rest = take(batch(11, 3))
    got, want = both(operands, "euclidean", "mean_per_anchor", rest)
    assert_same(got, want)


@pytest.mark.parametrize("distance", ["cosine", "sqeuclidean", "dot", "manhattan"])
def test_every_distance_may_go_by_strips(monkeypatch, distance):
    set_blocks(monkeypatch)
    operands, rest = take(batch(13, 40))
    got, want = both(operands, distance, "mean_per_anchor", rest)
    assert_same(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "mean_active", "sum"])
def test_every_reduction_to_a_scalar(monkeypatch, reduction):
    set_blocks(monkeypatch)
    operands, rest = take(batch(11, 40))
    got, want = both(operands, "euclidean", reduction, rest)
    assert_same(got, want)


def test_the_value_is_unchanged_under_differentiation(monkeypatch):
    set_blocks(monkeypatch)
    operands, rest = take(batch(12, 3))
    loss = strips_of(**rest)
    value, _ = jax.jit(jax.value_and_grad(loss))(*operands)
    assert float(value) != 0
    assert value == jax.jit(loss)(*operands)


def test_forward_mode_and_second_order_are_those_of_rows(monkeypatch):
    set_blocks(monkeypatch)
    (x, weights, width, depth), rest = take(batch(9, 3))
    direction = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)

    def everything(loss):
        def f(x, width):
            return loss(x, weights, width, depth)

        by_x = jax.grad(f)
        start, ahead = (x, jnp.float32(width)), (direction, jnp.float32(0.5))
        return {
            "jvp": jax.jvp(f, start, ahead),
            "hvp": jax.jvp(by_x, start, ahead),
            "reverse over reverse": jax.grad(
                lambda x: jnp.vdot(by_x(x, jnp.float32(width)), direction)
            )(x),
            "hessian": jax.hessian(f, 1)(*start),
            "mapped": jax.vmap(jax.grad(f, 1), (None, 0))(x, jnp.array([0.5, 1.5])),
        }

    got, want = (
        jax.jit(partial(everything, make(**rest)))() for make in (strips_of, rows_of)
    )
    assert_same(got, want, rtol=1e-4, atol=1e-5)


def test_each_device_may_have_a_batch_of_its_own(monkeypatch):
    set_blocks(monkeypatch)
    operands, rest = take(batch(11, 3))
    x = jnp.stack([operands[0], 2 * operands[0]])
    loss = strips_of(**rest)

    def one(x):
        value, grad = jax.value_and_grad(loss)(x[0], *operands[1:])
        return value[None], grad[None]

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    specs = {"mesh": mesh, "in_specs": P("data"), "out_specs": P("data")}
    got = jax.jit(jax.shard_map(one, **specs))(x)
    want = [one(x[i : i + 1]) for i in range(2)]
    assert_same(got, jax.tree.map(lambda *a: jnp.concatenate(a), *want))


@pytest.mark.parametrize("rows", [1, 2, 5, 724, 725, 1024, 32_769])
def test_the_number_of_blocks_is_odd_and_they_hold_all_rows(rows):
    for elements, minimum in itertools.product((1, 2**10, 2**18, 2**24), (1, 128, 256)):
        number = _strips._number(rows, elements, minimum, elements)
        assert number % 2 == 1
        b = -(-rows // number)
        # Never by tiny blocks: at most one of three is lost to make the number odd.
        assert b >= min(minimum, rows) // 3


_MEMORY = """
import jax, jax.numpy as jnp, jaxmetric as jm
for n in (2048, 8192):
    labels, x = jnp.arange(n) // 4, jax.ShapeDtypeStruct((n, 16), jnp.float32)
    grad = jax.grad(lambda x: jm.losses.supervised_contrastive_loss(x, labels))
    for program in (
        lambda x, v: jax.jvp(grad, (x,), (v,))[1],
        lambda x, v: jax.grad(lambda x: jnp.vdot(grad(x), v))(x),
    ):
        compiled = jax.jit(program).lower(x, x).compile()
        print(compiled.memory_analysis().temp_size_in_bytes)
"""


@pytest.mark.slow
def test_second_order_takes_memory_of_a_strip():
    flags = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type="}
    environment = {**os.environ, **flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _MEMORY]
    told = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    )
    small, large = np.array(told.stdout.split(), float).reshape(2, 2)
    # Four times the rows have sixteen times the pairs.
    assert (large < 6 * small).all()


NAMED: dict[str, Any] = {
    "contrastive": partial(jm.losses.contrastive_loss, margin=9.0),
    "cosine embedding": partial(jm.losses.cosine_embedding_loss, margin=0.1),
    "supervised contrastive": partial(
        jm.losses.supervised_contrastive_loss, temperature=0.05
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_losses_by_strips_are_those_by_blocks(name):
    case = batch(1030, 40)
    if name != "contrastive":
        # Ids keep a row from itself as well: without them the index must do it.
        del case["ids"]
    x = case.pop("embeddings")

    @jax.jit
    def both(x):
        loss = lambda x, size: NAMED[name](x, block_size=size, **case)  # noqa: E731
        return [jax.value_and_grad(loss)(x, size) for size in (None, 515)]

    got, want = both(x)
    assert_same(got, want, rtol=1e-6, atol=1e-7)


def test_logits_of_any_size_have_a_loss():
    case = batch(1030, 8)
    x = case.pop("embeddings")
    loss = partial(jm.losses.supervised_contrastive_loss, x, **case)
    # 1 / temperature is 10,000: exp(z) alone would overflow.
    got, want = (loss(temperature=1e-4, block_size=size) for size in (None, 515))
    assert_same(got, want)
    traced = jax.jit(lambda t: loss(temperature=t))(1e-4)
    assert_same(traced, want)


def test_what_is_no_sum_over_symmetric_pairs_goes_by_rows():
    case = batch(1024, 3)

    def is_by_strips(hyper: Any = 0.5, reduction: Any = "mean", size=None, **more):
        comparison = _comparison.compare("f", **{"distance": "dot", **case, **more})
        hyper = (jnp.asarray(hyper),)
        return _strips.are_fewer(comparison, hyper, reduction, size)

    assert is_by_strips()
    assert not is_by_strips(hyper=np.ones(1024))
    assert not is_by_strips(reduction="none")
    assert not is_by_strips(size=128)
    assert not is_by_strips(distance=lambda x, y: x[:, :1] - y[:, :1].T)
    x, labels, ids = (case[key] for key in ("embeddings", "labels", "ids"))
    refs = {"ref_embeddings": x, "ref_labels": labels, "ref_ids": ids}
    assert not is_by_strips(**refs)
    equal = labels[:, None] == labels[None]
    relation = jm.Relation(jnp.asarray(equal), jnp.asarray(~equal))
    assert not is_by_strips(labels=relation)
    assert not is_by_strips(**batch(700, 3))


@pytest.mark.parametrize("name", NAMED)
def test_an_unknown_reduction_is_refused(name):
    case = batch(1030, 40)
    x = case.pop("embeddings")
    with pytest.raises(ValueError, match="`reduction` must be one of"):
        NAMED[name](x, reduction="average", **case)
