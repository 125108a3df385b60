"""The global batch on a mesh of devices: the same value and the same gradient.

Anchors stay where they are, references are gathered, and sums and counts are added over
all devices before anything is divided. Metric-learning losses are no sums over devices:
positives and negatives of an anchor lie on all of them, and a mean of per-device means
has another gradient. Differentiate outside of what `data_parallel` returns.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmetric import _checks, _numerics
from jaxmetric.reductions import LossStats
from jaxmetric.relations import Relation

__all__ = ["data_parallel"]

# Arguments whose leading axis is the batch, or the references; all other arrays are
# alike on all devices.
_SHARDED = frozenset(
    "embeddings labels where weights ids ref_embeddings ref_labels ref_where ref_ids "
    "queries keys log_frequencies x y predictions targets is_positive query "
    "query_labels reference reference_labels".split()
)
_INTEGERS = frozenset(
    "labels ids ref_labels ref_ids query_labels reference_labels".split()
)
# Hyper-parameters that may have one number an anchor.
_PER_ANCHOR = frozenset("margin positive_margin negative_margin alpha base m".split())


def data_parallel(
    loss_fn: Callable[..., Any], *, mesh: Mesh, axis_name: str = "data"
) -> Callable[..., Any]:
    """Return a loss over the global batch, whose rows are spread over a mesh axis.

    It has the signature of `loss_fn`, and its value and gradient are those of `loss_fn`
    on one device with the whole batch, to rounding. Batch and references (`embeddings`,
    `labels`, `where`, `weights`, `ids`, `ref_*`; `queries`, `keys`, `log_frequencies`),
    recognised by name, are sharded over their leading axis; so is a margin with one
    number an anchor, and a `Relation` by its rows. Proxies and other hyper-parameters
    are alike on all devices.

    Each device compares its rows with the gathered references, by blocks: the matrix of
    the global batch is never formed. Differentiate outside, compiled or not, with
    inputs that are sharded already or not yet. The axes of the mesh may be Auto or
    Explicit, `jax.set_mesh` may be around the call or not; without it, inputs that are
    not typed with Explicit axes are computed on Auto ones, and so is a call that is not
    compiled.

    The losses themselves, without this function, may be compiled with sharded inputs
    too where the axes are Auto: XLA then chooses the communication. With Explicit axes
    they refuse that, and name this function.

    Args:
      loss_fn: a loss of this library, or any function that takes `axis_name=` and
        returns numbers that are alike on all devices, or arrays [batch].
      mesh: of devices, such as `jax.make_mesh((8,), ("data",))`.
      axis_name: the axis of the mesh over which the batch is spread.

    Returns:
      The loss; with reduction="none" its `LossStats` are sharded like the batch.

    Raises:
      ValueError: the mesh has no such axis, `loss_fn` takes no `axis_name`, a batch
        cannot be divided among the devices, or a result is not alike on all devices.
      TypeError: host labels are no integers.

    Memory: O(n dim + block n) a device, for n references in all.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmetric as jm
      >>> mesh = jax.make_mesh((1,), ("data",))
      >>> loss = data_parallel(jm.losses.batch_hard_triplet_loss, mesh=mesh)
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> value, gradient = jax.value_and_grad(loss)(x, y, margin=2.0)
      >>> print(f"{value:.2f}")
      1.25

    Source: Radford et al. CLIP. ICML 2021. arXiv:2103.00020, for global negatives.
    """
    function = "data_parallel"
    if axis_name not in mesh.axis_names:
        must = f"be an axis of the mesh, {', '.join(map(repr, mesh.axis_names))}"
        remedy = "Name the axis over which the batch is spread."
        got = repr(axis_name)
        raise ValueError(_checks.text(function, "axis_name", must, got, remedy))
    signature = inspect.signature(loss_fn)
    if "axis_name" not in signature.parameters:
        must, got = "take `axis_name`", str(signature)
        remedy = "Pass a loss of jaxmetric, or hand `axis_name` on to one."
        raise ValueError(_checks.text(function, "loss_fn", must, got, remedy))
    by_rows, alike = PartitionSpec(axis_name), PartitionSpec()

    @functools.wraps(loss_fn)
    def loss(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        if given.pop("axis_name", None) not in (None, axis_name):
            must, got = f"be {axis_name!r} here, or left out", repr(kwargs["axis_name"])
            remedy = "It is set by data_parallel."
            raise ValueError(_checks.text(function, "axis_name", must, got, remedy))
        static, shared, sharded = _sorted_arguments(given)
        for name, value in sharded.items():
            _check_divides(name, value, mesh.shape[axis_name], axis_name)
        structure: list[Any] = []

        def local(sharded: Mapping[str, Any], shared: Mapping[str, Any]) -> Any:
            bound = signature.bind_partial()
            arguments = {**static, **shared, **sharded, "axis_name": axis_name}
            # In the order of the signature, so that positional arguments stay so.
            for name in signature.parameters:
                if name in arguments:
                    bound.arguments[name] = arguments[name]
            parts, tree = _split_result(loss_fn(*bound.args, **bound.kwargs), axis_name)
            structure.append(tree)
            return parts

        here = _with_axes_in_use(mesh, (sharded, shared))
        mapped = jax.shard_map(
            local, mesh=here, in_specs=(by_rows, alike), out_specs=(by_rows, alike)
        )
        place = lambda a, spec: jax.device_put(a, NamedSharding(here, spec))  # noqa: E731
        sharded = jax.tree.map(lambda a: place(a, by_rows), sharded)
        shared = jax.tree.map(lambda a: place(a, alike), shared)
        rows, numbers = mapped(sharded, shared)
        parts = [n if r is None else r for r, n in zip(rows, numbers, strict=True)]
        return jax.tree.unflatten(structure[-1], parts)

    return loss


def _sorted_arguments(
    given: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the arguments that are no arrays, alike on all devices, and sharded."""
    static, shared, sharded = {}, {}, {}
    for name, value in given.items():
        if name in _SHARDED and value is not None:
            sharded[name] = _rows_of(name, value)
    batch = {np.shape(a)[:1] for a in jax.tree.leaves(sharded)}
    # One number a class may be as many as the batch: then it is not one an anchor.
    classes = np.shape(given["proxies"])[:1] if "proxies" in given else ()
    for name, value in given.items():
        if name in sharded:
            continue
        leaves = jax.tree.leaves(value)
        if not leaves or not all(isinstance(a, jax.Array | np.ndarray) for a in leaves):
            static[name] = value
        elif name in _PER_ANCHOR and np.ndim(value) == 1:
            is_per_anchor = value.shape in batch and value.shape != classes
            (sharded if is_per_anchor else shared)[name] = jnp.asarray(value)
        else:
            shared[name] = jax.tree.map(jnp.asarray, value)
    return static, shared, sharded


def _rows_of(name: str, value: Any) -> Any:
    """Return an argument with one row an anchor, or reference, as arrays."""
    if isinstance(value, Relation):
        return Relation(*map(jnp.asarray, value))
    if name in _INTEGERS and not isinstance(value, jax.Array):
        # Inside of the mapped region host labels could not be looked at any more.
        return _checks.label_rows("data_parallel", name, value)
    return jnp.asarray(value)


def _check_divides(name: str, value: Any, num_devices: int, axis_name: str) -> None:
    """Require a leading axis that the devices can share alike."""
    for a in jax.tree.leaves(value):
        rows = a.shape[0] if a.ndim else 0
        if not rows or rows % num_devices:
            must = (
                f"have a leading axis divisible by the {num_devices} devices of "
                f"{axis_name!r}"
            )
            got = f"{rows} rows" if a.ndim else "a scalar"
            remedy = "Pad and pass where=."
            raise ValueError(_checks.text("data_parallel", name, must, got, remedy))


def _with_axes_in_use(mesh: Mesh, arrays: Any) -> Mesh:
    """Return the mesh with its axes of the type that the arrays at hand can have.

    Those of the mesh in context, where there is one. Else those of the arrays, if it is
    in a compiled function that their sharding is part of their type. What is left is
    Auto: the gradient of a result on Explicit axes could not be started.
    """
    context = jax.sharding.get_abstract_mesh()
    types = (AxisType.Auto,) * len(mesh.axis_names)
    if not context.empty:
        types = context.axis_types
        if context.axis_names != mesh.axis_names or AxisType.Manual in types:
            return mesh  # which JAX refuses, and says why
    else:
        for a in jax.tree.leaves(arrays):
            of_array = jax.typeof(a).sharding.mesh
            # What is differentiated but not compiled is an array behind its tracer.
            is_compiled = isinstance(lax.stop_gradient(a), Tracer)
            if is_compiled and of_array.axis_names == mesh.axis_names:
                types = of_array.axis_types
    if types == mesh.axis_types:
        return mesh
    return Mesh(mesh.devices, mesh.axis_names, axis_types=types)


def _split_result(result: Any, axis_name: str) -> tuple[tuple[list, list], Any]:
    """Return a result as its parts with one row an anchor and those that are alike.

    Each of the two lists has an entry a part, None where it is in the other.
    """
    is_stats = lambda x: isinstance(x, LossStats)  # noqa: E731
    parts, tree = jax.tree.flatten(result, is_leaf=is_stats)
    rows, numbers = [], []
    for part in parts:
        has_rows = is_stats(part)
        if not has_rows:
            part = jnp.asarray(part)
            has_rows = axis_name in _numerics.varying_axes(part)
            if has_rows and part.ndim == 0:
                must = f"return numbers that are alike on all devices of {axis_name!r}"
                got = "one a device"
                remedy = "Use jax.lax.psum of sums and counts before dividing."
                text = _checks.text("data_parallel", "loss_fn", must, got, remedy)
                raise ValueError(text)
        rows.append(part if has_rows else None)
        numbers.append(None if has_rows else part)
    return (rows, numbers), tree
