"""How the loss of a global batch may be called, and what its program communicates."""

import contextlib
import functools
import inspect
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxmetric as jm
from jaxmetric.sharding import data_parallel

losses: Any = jm.losses
ROWS, DIM = 32, 8
BY_ROWS = PartitionSpec("data")
MESHES = {
    kind: jax.make_mesh((8,), ("data",), axis_types=(kind,))
    for kind in (AxisType.Auto, AxisType.Explicit)
}
RNG = np.random.default_rng(0)
X, KEYS = (jnp.asarray(RNG.normal(size=(ROWS, DIM)), jnp.float32) for _ in range(2))
LABELS = jnp.asarray(RNG.integers(0, 5, ROWS), jnp.int32)


def dots(embeddings, scale, *, reduction="mean", axis_name=None):
    """A loss that is quick to compile: the mean over all pairs of their product."""
    y = embeddings
    if axis_name is not None:
        y = lax.all_gather(y, axis_name, tiled=True)
    total = scale * jnp.sum(jnp.tanh(embeddings @ y.T), -1)
    if reduction == "none":
        return total
    total = jnp.sum(total)
    if axis_name is not None:
        total = lax.psum(total, axis_name)
    return total / y.shape[0] ** 2


def assert_same(got: Any, want: Any, atol: float = 1e-6) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-6, atol=atol)


@functools.cache
def expected() -> Any:
    return jax.value_and_grad(dots, (0, 1))(X, jnp.float32(2))


@pytest.mark.parametrize(
    ("kind", "has_context", "is_sharded", "is_compiled"),
    list(itertools.product(MESHES, *[(False, True)] * 3)),
)
def test_eagerly_or_compiled_on_any_mesh(kind, has_context, is_sharded, is_compiled):
    mesh = MESHES[kind]
    place = lambda a, *spec: jax.device_put(  # noqa: E731
        a, NamedSharding(mesh, PartitionSpec(*spec))
    )
    x, scale = X, jnp.float32(2)
    if is_sharded:
        x, scale = place(x, "data"), place(scale)
    function = jax.value_and_grad(data_parallel(dots, mesh=mesh), (0, 1))
    function = jax.jit(function) if is_compiled else function
    with jax.set_mesh(mesh) if has_context else contextlib.nullcontext():
        assert_same(function(x, scale), expected())


def test_the_loss_is_part_of_a_compiled_step_whose_arrays_have_explicit_types():
    mesh = MESHES[AxisType.Explicit]
    loss = data_parallel(dots, mesh=mesh)
    x = jax.device_put(X, NamedSharding(mesh, BY_ROWS))
    w = jax.device_put(jnp.eye(DIM), NamedSharding(mesh, PartitionSpec()))

    def step(loss, w, x):
        return loss(x @ w, 2.0) + jnp.sum(w**2)

    got = jax.jit(jax.value_and_grad(functools.partial(step, loss)))(w, x)
    assert_same(got, jax.value_and_grad(functools.partial(step, dots))(jnp.eye(8), X))


def test_another_mesh_of_the_same_axes_in_context_decides_their_type():
    loss = data_parallel(dots, mesh=MESHES[AxisType.Explicit])
    with jax.set_mesh(MESHES[AxisType.Auto]):
        assert_same(jax.jit(loss)(X, jnp.float32(2)), expected()[0])


def test_rows_are_spread_over_one_axis_of_several():
    mesh = jax.make_mesh((2, 4), ("model", "data"))
    got = jax.value_and_grad(data_parallel(dots, mesh=mesh), (0, 1))(X, jnp.float32(2))
    assert_same(got, expected())


def test_the_signature_and_the_name_are_those_of_the_loss():
    loss = data_parallel(losses.contrastive_loss, mesh=MESHES[AxisType.Auto])
    assert inspect.signature(loss) == inspect.signature(losses.contrastive_loss)
    assert loss.__name__ == "contrastive_loss"


def both(loss: Any, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Return value and gradient by the first argument, on many devices and on one."""
    parallel = data_parallel(loss, mesh=MESHES[AxisType.Explicit])

    def run(loss: Any) -> Any:
        # Lists and Python numbers stay what they are.
        def of(x: Any, arrays: Any) -> Any:
            return loss(x, *args[1:], **options, **arrays)

        return jax.jit(jax.value_and_grad(of))(args[0], {})

    return run(parallel), run(loss)


def test_margins_of_each_anchor_are_spread_like_the_anchors():
    margin = jnp.linspace(0.5, 3.0, ROWS)
    options: Any = {"margin": margin, "weights": np.linspace(0, 1, ROWS)}
    # Labels and masks from the host, as a data loader gives them.
    labels, where = LABELS.tolist(), np.arange(ROWS) % 7 > 0
    got, want = both(losses.contrastive_loss, X, labels, where=where, **options)
    assert_same(got, want)


def test_one_margin_a_class_is_alike_on_all_devices():
    proxies = jnp.asarray(RNG.normal(size=(ROWS, DIM)), jnp.float32)
    options = {"margin": jnp.linspace(0, 0.2, ROWS), "alpha": 4.0}
    got, want = both(losses.proxy_anchor_loss, X, LABELS, proxies, **options)
    assert_same(got, want)


def test_a_relation_is_spread_by_its_rows():
    is_positive = LABELS[:, None] == LABELS[None, :]
    relation = jm.Relation(is_positive, ~is_positive)
    loss = data_parallel(losses.contrastive_loss, mesh=MESHES[AxisType.Explicit])
    want = jax.jit(losses.contrastive_loss)(X, LABELS)
    assert_same(jax.jit(loss)(X, relation), want)


def test_statistics_are_spread_like_the_batch_and_other_results_are_global():
    def call(loss, x):
        return loss(x, LABELS, reduction="none", return_histogram=True, num_bins=ROWS)

    dynamic, mesh = losses.dynamic_soft_margin_loss, MESHES[AxisType.Auto]
    loss = data_parallel(dynamic, mesh=mesh)
    stats, histogram = jax.jit(functools.partial(call, loss))(X)
    assert isinstance(stats, jm.LossStats)
    assert stats.total.sharding.spec == BY_ROWS
    assert histogram.sharding.is_fully_replicated
    want = jax.jit(functools.partial(call, dynamic))(X)
    assert_same((stats, histogram), want, atol=1e-5)
    # So are arrays that a function of one's own returns.
    rows = data_parallel(dots, mesh=mesh)(X, 2.0, reduction="none")
    assert_same(rows, dots(X, 2.0, reduction="none"))
    assert rows.sharding.spec == BY_ROWS


def test_numbers_that_are_learned_get_the_gradient_of_all_devices():
    def loss(function, x, y, temperature):
        return function(x, y, temperature=temperature)

    info_nce = losses.info_nce_loss
    parallel = data_parallel(info_nce, mesh=MESHES[AxisType.Explicit])
    arguments = X, KEYS, jnp.float32(0.5)
    got, want = (
        jax.jit(jax.value_and_grad(functools.partial(loss, f), (0, 1, 2)))(*arguments)
        for f in (parallel, info_nce)
    )
    assert_same(got, want)


@pytest.mark.parametrize("is_given", [True, False])
def test_references_are_spread_where_given_and_whole_where_bound(is_given):
    references = {"ref_embeddings": KEYS[:16], "ref_labels": LABELS[:16]}
    loss = losses.contrastive_loss
    bound = functools.partial(loss, **references)
    got, want = (
        both(loss, X, LABELS, **references) if is_given else both(bound, X, LABELS)
    )
    assert_same(got, want)


def test_metrics_of_retrieval_are_those_of_all_rows():
    evaluate = data_parallel(jm.retrieval.evaluate, mesh=MESHES[AxisType.Explicit])
    assert_same(jax.jit(evaluate)(X, LABELS), jm.retrieval.evaluate(X, LABELS))


def test_losses_compile_with_sharded_inputs_on_auto_axes():
    loss = losses.batch_hard_triplet_loss
    rows = NamedSharding(MESHES[AxisType.Auto], BY_ROWS)
    x, y = jax.device_put((X, LABELS), rows)
    function = jax.jit(jax.value_and_grad(loss))
    assert_same(function(x, y), function(X, LABELS))


def test_on_explicit_axes_jax_refuses_a_loss_that_is_not_told_of_them():
    rows = NamedSharding(MESHES[AxisType.Explicit], BY_ROWS)
    x, y = jax.device_put((X, LABELS), rows)
    with pytest.raises((TypeError, ValueError), match=r"(?i)shard"):
        jax.jit(losses.contrastive_loss)(x, y)


COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (all-gather|reduce-scatter|all-reduce|all-to-all|collective-permute)"
    r"(?:-start)?\("
)


@pytest.mark.parametrize("name", ["contrastive_loss", "batch_hard_triplet_loss"])
def test_each_operand_is_gathered_once_and_one_gradient_comes_back(name):
    rows, dim, block = 512, 64, 16
    mesh: Mesh = MESHES[AxisType.Explicit]
    loss = data_parallel(getattr(losses, name), mesh=mesh)
    sharding = NamedSharding(mesh, BY_ROWS)
    x = jax.ShapeDtypeStruct((rows, dim), jnp.float32, sharding=sharding)
    y = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=sharding)

    def call(x, y):
        return loss(x, y, block_size=block)

    text = jax.jit(jax.value_and_grad(call)).lower(x, y).compile().as_text()
    found = sorted(
        (kind, shape.split("{")[0]) for shape, kind in COLLECTIVE.findall(text)
    )
    gathered = [shape for kind, shape in found if kind == "all-gather"]
    assert gathered == [f"f32[{rows},{dim}]", f"s32[{rows}]"]
    scattered = [shape for kind, shape in found if kind == "reduce-scatter"]
    assert scattered == [f"f32[{rows // 8},{dim}]"]
    # What is left adds up numbers.
    others = {kind for kind, _ in found} - {"all-gather", "reduce-scatter"}
    assert others == {"all-reduce"}
    reduced = [
        shape for shape, kind in COLLECTIVE.findall(text) if kind == "all-reduce"
    ]
    assert not any(re.search(r"\[\d", shape) for shape in reduced)
    # Nothing is larger than the gathered rows, and the distances of one block.
    shapes = re.findall(r"\b[fsu]32\[([\d,]+)\]", text)
    largest = max(np.prod([int(n) for n in shape.split(",")]) for shape in shapes)
    assert largest <= max(rows * dim, block * rows)


def error_of(call: Any) -> str:
    with pytest.raises((ValueError, TypeError)) as e:
        call()
    return str(e.value)


def test_mistakes_are_told():
    mesh = MESHES[AxisType.Auto]
    loss = data_parallel(losses.contrastive_loss, mesh=mesh)
    assert error_of(lambda: loss(X[:10], LABELS[:10])) == (
        "data_parallel: `embeddings` must have a leading axis divisible by the 8 "
        "devices of 'data', got 10 rows. Pad and pass where=."
    )
    assert error_of(lambda: loss(X, LABELS, weights=1.0)) == (
        "data_parallel: `weights` must have a leading axis divisible by the 8 devices "
        "of 'data', got a scalar. Pad and pass where=."
    )
    assert error_of(lambda: loss(X, LABELS, axis_name="model")) == (
        "data_parallel: `axis_name` must be 'data' here, or left out, got 'model'. It "
        "is set by data_parallel."
    )
    assert error_of(
        lambda: data_parallel(losses.contrastive_loss, mesh=mesh, axis_name="rows")
    ) == (
        "data_parallel: `axis_name` must be an axis of the mesh, 'data', got 'rows'. "
        "Name the axis over which the batch is spread."
    )
    assert error_of(lambda: data_parallel(lambda x: x, mesh=mesh)) == (
        "data_parallel: `loss_fn` must take `axis_name`, got (x). Pass a loss of "
        "jaxmetric, or hand `axis_name` on to one."
    )
    assert "data_parallel: `labels` must be integer or bool, got float64" in error_of(
        lambda: loss(X, np.zeros(ROWS))
    )
    assert "data_parallel: `labels` must fit int32" in error_of(
        lambda: loss(X, np.full(ROWS, 2**40))
    )

    def local(embeddings, *, axis_name=None):
        return jnp.sum(embeddings)

    assert error_of(lambda: data_parallel(local, mesh=mesh)(X)) == (
        "data_parallel: `loss_fn` must return numbers that are alike on all devices of "
        "'data', got one a device. Use jax.lax.psum of sums and counts before dividing."
    )
