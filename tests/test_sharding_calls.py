"""How the loss of a global batch may be called, and what it says where it may not."""

import contextlib
import functools
import inspect
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

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


HARD = [
    (AxisType.Explicit, False, False, False),
    (AxisType.Explicit, False, True, False),
]


@pytest.mark.parametrize(
    ("kind", "has_context", "is_sharded", "is_compiled"),
    [
        # Eagerly every operation is compiled by itself: the two hard cases will do.
        pytest.param(*way, marks=() if way[3] or way in HARD else pytest.mark.slow)
        for way in itertools.product(MESHES, *[(False, True)] * 3)
    ],
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


def shapes_seen(*args: Any, **options: Any) -> dict[str, Any]:
    """Return the shapes that a loss sees on a device, by name; nothing is compiled."""
    seen = {}

    def loss(
        embeddings,
        labels,
        proxies=None,
        *,
        margin=1.0,
        temperature=1.0,
        where=None,
        weights=None,
        ids=None,
        ref_embeddings=None,
        ref_labels=None,
        squared=True,
        axis_name=None,
    ):
        for name, value in locals().items():
            if name not in ("seen", "axis_name") and value is not None:
                is_array = isinstance(value, jax.Array | jm.Relation)
                seen[name] = jax.tree.map(jnp.shape, value) if is_array else value
        return lax.psum(jnp.sum(embeddings), axis_name)

    parallel = data_parallel(loss, mesh=MESHES[AxisType.Explicit])
    assert jax.eval_shape(functools.partial(parallel, *args, **options)).shape == ()
    return seen


def test_rows_are_spread_and_numbers_are_not():
    # Labels and masks from the host, as a data loader gives them.
    options: Any = {"where": np.arange(ROWS) % 7 > 0, "weights": np.ones(ROWS)}
    options |= {"temperature": jnp.ones(()), "squared": False, "margin": 0.2}
    assert shapes_seen(X, LABELS.tolist(), KEYS[:5], **options) == {
        "embeddings": (4, DIM),
        "labels": (4,),
        "proxies": (5, DIM),
        "margin": 0.2,
        "temperature": (),
        "where": (4,),
        "weights": (4,),
        "squared": False,
    }


def test_references_are_spread_and_relations_are_by_rows():
    relation = jm.Relation(jnp.ones((ROWS, 16), bool), jnp.ones((ROWS, 16)))
    seen = shapes_seen(X, relation, ref_embeddings=KEYS[:16], ids=range(ROWS))
    assert seen["ref_embeddings"] == (2, DIM)
    assert seen["ids"] == (4,)
    assert tuple(seen["labels"]) == ((4, 16), (4, 16))


def test_margins_are_spread_where_there_is_one_an_anchor():
    per_anchor = jnp.ones(ROWS)
    assert shapes_seen(X, LABELS, margin=per_anchor)["margin"] == (4,)
    assert shapes_seen(X, LABELS, KEYS[:5], margin=per_anchor)["margin"] == (4,)
    # One a class is the same on all devices, also where there are as many as rows.
    assert shapes_seen(X, LABELS, KEYS[:5], margin=jnp.ones(5))["margin"] == (5,)
    assert shapes_seen(X, LABELS, KEYS, margin=per_anchor)["margin"] == (ROWS,)


def test_a_relation_and_bound_references_give_what_one_device_gives():
    bank = {"ref_embeddings": KEYS[:10], "ref_labels": LABELS[:10]}
    references = functools.partial(losses.contrastive_loss, **bank)
    mesh = MESHES[AxisType.Explicit]
    is_positive = LABELS[:, None] == LABELS[None, :]
    relation = jm.Relation(is_positive, ~is_positive)

    def both(contrastive, references, labels):
        return contrastive(X, labels), references(X, LABELS)

    parallel = [
        data_parallel(f, mesh=mesh) for f in (losses.contrastive_loss, references)
    ]
    got = jax.jit(functools.partial(both, *parallel))(relation)
    want = functools.partial(both, losses.contrastive_loss, references)
    assert_same(got, jax.jit(want)(LABELS))


def test_statistics_are_spread_like_the_batch_and_other_results_are_global():
    def loss(embeddings, *, axis_name=None):
        total, ones = jnp.sum(embeddings, -1), jnp.ones(4, jnp.int32)
        stats = jm.LossStats(total, ones, ones)  # the counts are the same everywhere
        histogram = lax.psum(jnp.arange(32.0), axis_name)
        return {"loss": stats, "histogram": histogram, "rows": total}

    mesh = MESHES[AxisType.Auto]
    got = jax.jit(data_parallel(loss, mesh=mesh))(X)
    assert_same(got["loss"].total, jnp.sum(X, -1), atol=1e-5)
    assert_same(got["rows"], got["loss"].total)
    assert_same(got["histogram"], 8 * jnp.arange(32.0))
    assert_same(got["loss"].num_terms, jnp.ones(ROWS, jnp.int32))
    for rows in (*got["loss"], got["rows"]):
        assert rows.sharding.spec == BY_ROWS
    assert got["histogram"].sharding.is_fully_replicated


@pytest.mark.slow
def test_metrics_of_retrieval_are_those_of_all_rows():
    evaluate = data_parallel(jm.retrieval.evaluate, mesh=MESHES[AxisType.Explicit])
    assert_same(jax.jit(evaluate)(X, LABELS), jm.retrieval.evaluate(X, LABELS))


def test_losses_compile_with_sharded_inputs_on_auto_axes():
    loss = losses.batch_hard_triplet_loss
    rows = NamedSharding(MESHES[AxisType.Auto], BY_ROWS)
    x, y = jax.device_put((X, LABELS), rows)
    function = jax.jit(jax.value_and_grad(loss))
    assert_same(function(x, y), function(X, LABELS))


def test_on_explicit_axes_a_loss_that_is_not_told_of_them_says_what_to_write():
    mesh = MESHES[AxisType.Explicit]
    x, y = jax.device_put((X, LABELS), NamedSharding(mesh, BY_ROWS))
    alike = jax.device_put(X, NamedSharding(mesh, PartitionSpec()))
    for name, argument, arrays, named in [
        ("contrastive_loss", "embeddings", (x, y), {}),
        ("normalized_softmax_loss", "embeddings", (x, y, alike), {}),
        ("normalized_softmax_loss", "proxies", (X, LABELS, x), {}),
        ("info_nce_loss", "queries", (x, x), {}),
        ("info_nce_loss", "keys", (X, x), {}),
        (
            "contrastive_loss",
            "ref_embeddings",
            (X, LABELS),
            {"ref_embeddings": x, "ref_labels": y},
        ),
    ]:
        for loss in (getattr(losses, name), jax.jit(getattr(losses, name))):
            assert error_of(functools.partial(loss, *arrays, **named)) == (
                f"{name}: `{argument}` must not be sharded over Explicit axes of a "
                "mesh, got float32[32@data,8]. Use jm.sharding.data_parallel(loss, "
                "mesh=mesh), or a mesh of Auto axes."
            )


def test_on_explicit_axes_copies_on_all_devices_are_as_good_as_one():
    alike = NamedSharding(MESHES[AxisType.Explicit], PartitionSpec())
    x, y = jax.device_put((X, LABELS), alike)
    found = jax.jit(losses.contrastive_loss)(x, y)
    assert_same(found, losses.contrastive_loss(X, LABELS))


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
