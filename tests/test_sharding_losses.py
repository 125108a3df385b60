"""Every loss over a batch on many devices is the loss of that batch on one.

Losses are found as the contract battery finds them. Each is compiled once for one
device and once for many; class layouts are data that go through both.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from subjects import ADAPTERS, SUBJECTS, Subject, by_kind, fast_options

import jaxmetric as jm

ROWS, DIM, CLASSES = 32, 8, 16
AXIS = "data"
BY_ROWS, ALIKE = PartitionSpec(AXIS), PartitionSpec()

Arrays = dict[str, Any]

# Losses of ready-made triplets and pairs are sums over rows, with nothing to gather.
SHARDED = [subject for subject in SUBJECTS if subject.name not in ADAPTERS]
each_loss = pytest.mark.parametrize("subject", SHARDED, ids=[s.name for s in SHARDED])
each_kind = pytest.mark.parametrize("subject", by_kind(SHARDED))


def layouts() -> dict[str, Arrays]:
    """Return labels, `where` and ids of 32 rows, by how they lie on 8 devices."""
    rows = np.arange(ROWS)
    rng = np.random.default_rng(1)
    everywhere, some = np.ones(ROWS, bool), rng.random(ROWS) < 0.7
    uneven = np.repeat(np.arange(6), [1, 2, 3, 5, 8, 13])
    # The first device has rows without a positive, the second has none.
    lonely, missing = rows % 5, everywhere.copy()
    lonely[:4], missing[4:8] = [12, 13, 14, 15], False
    samples = rows.copy()
    samples[-3:] = samples[1], samples[9], samples[9]
    return {
        "classes spread over devices": {"labels": rng.integers(0, 6, ROWS)},
        "each class on one device": {"labels": rows // 4},
        "all positives remote": {"labels": rows % 4},
        "devices without an anchor": {"labels": lonely, "where": missing},
        "masked rows": {"labels": rng.integers(0, 5, ROWS), "where": some},
        "uneven classes": {"labels": rng.permutation(uneven), "ids": samples},
    }


LAYOUTS = layouts()


def case_of(subject: Subject, layout: Arrays) -> Arrays:
    """Return the arrays of a layout, with the same random rows whatever the layout."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    case = {
        "embeddings": normal(ROWS, DIM),
        "weights": rng.uniform(0.5, 2, ROWS).astype(np.float32),
        "where": np.ones(ROWS, bool),
        "ids": np.arange(ROWS, dtype=np.int32),
    }
    if subject.oracle.has_proxies:
        case["proxies"] = normal(*subject.oracle.proxies_shape(CLASSES, DIM))
    if subject.is_paired:
        case["ref_embeddings"] = normal(ROWS, DIM)
    case |= layout
    for name in ("labels", "ids"):
        case[name] = case[name].astype(np.int32)
    known = {*subject.parameters, "embeddings", "ref_embeddings"}
    return {name: a for name, a in case.items() if name in known}


# The default has its pole among these rows, where float32 loses half of its digits.
HYPER: dict[str, Any] = {"lossless_triplet_loss": {"max_distance": 64.0}}
# So many bins has one unit of its distance.
SCALE = {"fast_ap_loss": 10 / 4}

_MOVING = ("embeddings", "ref_embeddings", "proxies")


def value_and_grad(subject: Subject, **options: Any) -> Callable[[Arrays], Any]:
    """Return a function of a case to value and gradient by rows and proxies."""

    def function(case: Arrays) -> Any:
        moving = {name: case[name] for name in _MOVING if name in case}
        return jax.value_and_grad(
            lambda moving: subject({**case, **moving}, **options)
        )(moving)

    return function


def compiled(function: Callable[..., Any]) -> Any:
    return jax.jit(function, compiler_options=fast_options())


@functools.cache
def on_one(subject: Subject) -> Callable[[Arrays], Any]:
    """Return the compiled loss of one device."""
    return compiled(value_and_grad(subject, **HYPER.get(subject.name, {})))


@dataclass(frozen=True)
class Parallel(Subject):
    """A loss behind `data_parallel`, with the name and the signature of the loss."""

    mesh: Mesh

    @property
    def function(self) -> Callable[..., Any]:
        """The loss of the global batch."""
        return jm.sharding.data_parallel(super().function, mesh=self.mesh)


def mesh_of(num_devices: int, axis_type: AxisType) -> Mesh:
    devices = jax.devices()[:num_devices]
    return jax.make_mesh(
        (num_devices,), (AXIS,), axis_types=(axis_type,), devices=devices
    )


def spec_of(case: Mapping[str, Any]) -> dict[str, PartitionSpec]:
    return {name: ALIKE if name == "proxies" else BY_ROWS for name in case}


def inside(
    function: Callable[[Arrays], Any], mesh: Mesh, *, check_vma: bool = True
) -> Callable[[Arrays], Any]:
    """Return value and gradient that are computed inside of the mapped region."""

    def mapped(case: Arrays) -> Any:
        specs = spec_of(case)
        out = (ALIKE, {name: specs[name] for name in _MOVING if name in case})
        case = {
            name: jax.device_put(value, NamedSharding(mesh, specs[name]))
            for name, value in case.items()
        }
        return jax.shard_map(
            function, mesh=mesh, in_specs=(specs,), out_specs=out, check_vma=check_vma
        )(case)

    return mapped


def assert_like_one_device(
    subject: Subject, function: Callable[[Arrays], Any], case: Arrays
) -> None:
    """Compare value and gradient with those of one device."""
    oracle = subject.oracle
    scale = max(1.0, oracle.logit_scale(oracle.defaults()))
    scale *= SCALE.get(subject.name, 1)
    want, expected = jax.tree.map(np.asarray, on_one(subject)(case))
    value, gradient = jax.tree.map(np.asarray, function(case))
    np.testing.assert_allclose(value, want, rtol=2e-6, atol=2e-6)
    for name, grad in expected.items():
        largest = np.max(np.abs(grad))
        np.testing.assert_allclose(
            gradient[name], grad, rtol=0, atol=1e-6 * scale * largest, err_msg=name
        )


def options_of(subject: Subject) -> dict[str, Any]:
    """Return hyper-parameters, and blocks that do not divide the rows of a device."""
    has_blocks = "block_size" in subject.parameters
    return HYPER.get(subject.name, {}) | ({"block_size": 3} if has_blocks else {})


def assert_all_layouts(subject: Subject, function: Callable[[Arrays], Any]) -> None:
    """Compare every layout, in one compilation."""
    function, failed = compiled(function), []
    for name, layout in LAYOUTS.items():
        try:
            assert_like_one_device(subject, function, case_of(subject, layout))
        except AssertionError as e:
            failed.append(f"{name}: {e}")
    assert not failed, "\n".join(failed)
    assert function._cache_size() == 1
    # A row that is not finite is told, and where no row exists there is nothing.
    case = case_of(subject, LAYOUTS["classes spread over devices"])
    bad = case["embeddings"].copy()
    bad[9, 0] = np.nan
    assert np.isnan(function({**case, "embeddings": bad})[0])
    value, gradient = function({**case, "where": np.zeros(ROWS, bool)})
    assert value == 0
    assert not any(np.any(grad) for grad in gradient.values())


def outside(subject: Subject, mesh: Mesh) -> Callable[[Arrays], Any]:
    """Return value and gradient of the loss behind `data_parallel`."""
    return value_and_grad(Parallel(subject.name, mesh), **options_of(subject))


@each_kind
def test_eight_devices_equal_one(subject):
    """The gradient is taken outside, the axes of the mesh are Explicit."""
    assert_all_layouts(subject, outside(subject, mesh_of(8, AxisType.Explicit)))


@pytest.mark.slow
@each_loss
@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_devices_equal_one_on_auto_axes(subject, num_devices):
    mesh = mesh_of(num_devices, AxisType.Auto)
    with jax.set_mesh(mesh):
        assert_all_layouts(subject, outside(subject, mesh))


@pytest.mark.slow
@each_loss
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_the_gradient_may_be_taken_inside_the_mapped_region(subject, axis_type):
    local = value_and_grad(subject, axis_name=AXIS, **options_of(subject))
    mesh = mesh_of(8, axis_type)
    with jax.set_mesh(mesh):
        assert_all_layouts(subject, inside(local, mesh))


@pytest.mark.slow
@each_loss
def test_outside_a_region_whose_axes_are_not_checked(subject):
    mesh = mesh_of(8, AxisType.Auto)

    def loss(case: Arrays) -> jax.Array:
        return subject(case, axis_name=AXIS, **options_of(subject))

    def function(case: Arrays) -> Any:
        mapped = jax.shard_map(
            loss, mesh=mesh, in_specs=(spec_of(case),), out_specs=ALIKE, check_vma=False
        )
        moving = {name: case[name] for name in _MOVING if name in case}
        return jax.value_and_grad(lambda moving: mapped({**case, **moving}))(moving)

    assert_all_layouts(subject, function)


# Three mistakes, each of which the comparison above must find.


def remote_stopped(case: Arrays, *, is_stopped: bool) -> jax.Array:
    """Return the loss against gathered rows, of which only a device's own move."""
    x = case["embeddings"]
    gather = functools.partial(lax.all_gather, axis_name=AXIS, tiled=True)
    remote = gather(lax.stop_gradient(x) if is_stopped else x)
    if is_stopped:
        first = lax.axis_index(AXIS) * x.shape[0]
        remote = lax.dynamic_update_slice_in_dim(remote, x, first, 0)
    stats = jm.losses.contrastive_loss(
        x,
        case["labels"],
        weights=case["weights"],
        ids=case["ids"],
        ref_embeddings=remote,
        ref_labels=gather(case["labels"]),
        ref_ids=gather(case["ids"]),
        reduction="none",
    )
    return jm.reduce(stats, "mean", axis_name=AXIS)  # pyright: ignore (a scalar)


def mean_of_means(case: Arrays) -> jax.Array:
    """Return the mean of the losses of the devices, each within its own rows."""
    return lax.pmean(CONTRASTIVE(case), AXIS)


CONTRASTIVE = next(s for s in SHARDED if s.name == "contrastive_loss")
SPREAD = case_of(CONTRASTIVE, LAYOUTS["classes spread over devices"])


def gradient_of(local: Callable[[Arrays], Any]) -> Callable[[Arrays], Any]:
    def function(case: Arrays) -> Any:
        moving = {"embeddings": case["embeddings"]}
        return jax.value_and_grad(lambda moving: local({**case, **moving}))(moving)

    return function


@pytest.mark.parametrize(
    ("local", "check_vma", "message"),
    [
        (functools.partial(remote_stopped, is_stopped=False), True, None),
        (functools.partial(remote_stopped, is_stopped=True), True, "embeddings"),
        (mean_of_means, True, "Not equal"),
        (functools.partial(CONTRASTIVE, axis_name=AXIS), True, None),
        (functools.partial(CONTRASTIVE, axis_name=AXIS), False, "embeddings"),
    ],
    ids=["right", "remote rows stopped", "mean of means", "checked", "not checked"],
)
def test_mistakes_are_found(local, check_vma, message):
    mesh = mesh_of(8, AxisType.Auto)
    function = compiled(inside(gradient_of(local), mesh, check_vma=check_vma))
    if message is None:
        assert_like_one_device(CONTRASTIVE, function, SPREAD)
    else:
        with pytest.raises(AssertionError, match=message):
            assert_like_one_device(CONTRASTIVE, function, SPREAD)
