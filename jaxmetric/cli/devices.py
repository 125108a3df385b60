"""The devices that a run computes on: each batch is spread over them, all else copied.

A program for several devices is the program for one, compiled for a mesh: XLA keeps its
value, whatever the number of devices and the processes that they belong to.
"""

import contextlib
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmetric.cli.errors import UsageError

_AXIS = "data"


class Devices:
    """One device or many, and how arrays lie on them.

    Args:
      mesh: of one axis, over the devices of all processes; None for one device.

    Attributes:
      mesh: as given.
      count: how many devices there are.
    """

    def __init__(self, mesh: Mesh | None = None):
        self.mesh = mesh
        self.count = 1 if mesh is None else mesh.size

    def by_rows(self) -> NamedSharding:
        """Return how the rows of a batch are spread."""
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec(_AXIS))

    def alike(self) -> NamedSharding:
        """Return how that lies which is the same on all devices."""
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec())

    def spread(self, rows: np.ndarray) -> jax.Array:
        """Return rows shared out among the devices.

        Each process hands its own devices their rows and no others.
        """
        return _placed(rows, self.by_rows())

    def copied(self, tree: Any) -> Any:
        """Return a tree on all devices; on one device, as it is.

        The tree is the same in every process.
        """
        if self.mesh is None:
            return tree

        def copy(leaf: Any) -> jax.Array:
            if _is_key(leaf):
                data = _placed(np.asarray(jax.random.key_data(leaf)), self.alike())
                return jax.random.wrap_key_data(data)
            return _placed(np.asarray(leaf), self.alike())

        return jax.tree.map(copy, tree)

    def local(self, tree: Any) -> Any:
        """Return a tree that was copied as one of this process alone."""
        if self.mesh is None:
            return tree

        def first(leaf: Any) -> jax.Array:
            if _is_key(leaf):
                data = jax.random.key_data(leaf).addressable_data(0)
                return jax.random.wrap_key_data(jnp.asarray(np.asarray(data)))
            return jnp.asarray(np.asarray(leaf.addressable_data(0)))

        return jax.tree.map(first, tree)

    def check_batch(self, classes: int, m_per_class: int) -> None:
        """Require a batch that the devices can share alike.

        Raises:
          UsageError: they cannot.
        """
        rows = classes * m_per_class
        if rows % self.count:
            raise UsageError(
                f"--batch-classes {classes} times --m-per-class {m_per_class} is "
                f"{rows} rows, which {self.count} devices cannot share alike. Use a "
                f"multiple of {self.count} rows."
            )


ONE = Devices()


def ask_for(count: int | None) -> None:
    """Ask JAX for as many devices, before it has started: a CPU is made so many.

    Raises:
      UsageError: the number is no number of devices.
    """
    if count is None:
        return
    if count < 1:
        raise UsageError(f"--devices must be at least 1, got {count}. Use 1.")
    is_chosen = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if count > 1 and not is_chosen and "JAX_NUM_CPU_DEVICES" not in os.environ:
        # Once JAX has started, it has the devices that it has.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", count)


def choose(count: int | None, *, num_processes: int = 1) -> Devices:
    """Return the devices of a run.

    Args:
      count: how many of each process; None for all of them where there are several
        processes, else for one.
      num_processes: how many processes there are.

    Raises:
      UsageError: this process has fewer.
    """
    here = jax.local_devices()
    if count is None and num_processes == 1:
        return ONE
    if count is not None and count > len(here):
        kind = here[0].platform.upper()
        raise UsageError(
            f"--devices must be at most {len(here)}, which is how many {kind} devices "
            f"there are, got {count}. Use --devices {len(here)}."
        )
    chosen = []
    for process in range(num_processes):
        chosen += [d for d in jax.devices() if d.process_index == process][:count]
    if len(chosen) == 1:
        return ONE
    return Devices(Mesh(np.array(chosen), (_AXIS,), axis_types=(AxisType.Auto,)))


def _placed(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Return an array of the host on its devices; nothing is communicated."""
    array = np.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))
    return jax.make_array_from_callback(array.shape, sharding, lambda i: array[i])


def _is_key(leaf: Any) -> bool:
    """Return whether a leaf is a typed PRNG key."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )
