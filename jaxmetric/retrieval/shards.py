"""References spread over devices: distances are computed where the references are.

Each device has its own queries and its own references. Block by block, the queries of
all devices visit every device; what they find there travels back to their owners. So
no device ever holds the references of another: of these, only labels and the like are
gathered, an integer a reference.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _blocks, _geometry, _numerics, _rows, pairs
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Geometry


@dataclasses.dataclass(frozen=True)
class Spread:
    """A comparison whose references are spread over the devices of an axis.

    Attributes:
      comparison: with the references of this device as `y`; the `index` of the queries
        is their position among those of all devices.
      references: of all devices, in their order.
      axis_name: the mapped axis.
    """

    comparison: Comparison
    references: pairs.Side
    axis_name: str

    @property
    def first(self) -> jax.Array:
        """Position of this device's first reference among those of all, int32."""
        num_here = self.comparison.references.where.shape[0]
        return lax.axis_index(self.axis_name).astype(jnp.int32) * num_here

    def share(self, geometry: Geometry) -> Geometry:
        """Return rows with the scale and the centre of all devices, not of this one."""
        # A quotient of powers of two, so no digit changes.
        scale = lax.pmax(self._varying(geometry.scale), self.axis_name)
        factor = geometry.scale / scale
        x, y = geometry.x * factor, geometry.y * factor
        if self.comparison.distance not in ("euclidean", "sqeuclidean"):
            return geometry._replace(x=x, y=y, x_centred=x, y_centred=y, scale=scale)
        finite = jnp.where(jnp.isfinite(y), y, 0)
        sums = (jnp.sum(finite, 0), jnp.sum(geometry.y_exists, dtype=y.dtype))
        sums = lax.psum(self._varying(sums), self.axis_name)
        centre = _numerics.quotient(*sums)[None, :]
        return geometry._replace(
            x=x,
            y=y,
            x_centred=jnp.where(geometry.x_exists[:, None], x - centre, 0),
            y_centred=jnp.where(geometry.y_exists[:, None], y - centre, 0),
            scale=scale,
        )

    def map_rows(
        self,
        search: Comparison,
        geometry: Geometry,
        body: Callable[..., Any],
        per_row: tuple[jax.Array, ...],
        block_size: int | None,
    ) -> Any:
        """Return the pytree of [m, ...] arrays that `body` makes of the blocks.

        It is called as `body(block, masks, *columns)`. The block has the queries of
        all devices, [devices b, ...], against the references here; `masks` are the
        positive and negative pairs of the [b] queries here with all references, [b, n]
        each, as are the columns, [b, 1]. `to_owners` gives the queries here what was
        found of them on all devices.
        """
        mine = geometry._replace(y=None, y_centred=None, y_exists=None, scale=None)
        others = geometry._replace(x=None, x_centred=None, x_exists=None)
        rows = (mine, search.anchors, per_row)
        shared = (others, search.references, self.references)
        rows, shared = self._varying((rows, shared))
        options = (body, search.distance, search.precision)
        one_block = partial(self._one_block, options)
        n = self.references.where.shape[0]
        return _blocks.map_blocks(one_block, rows, shared, n, block_size)

    def _one_block(self, options: tuple, rows: Any, shared: Any) -> Any:
        """Return what the body makes of a block of [b] queries of every device."""
        body, distance, precision = options
        mine, anchors, columns = rows
        others, references, all_references = shared
        masks = pairs.pair_masks(anchors, all_references)
        gather = partial(lax.all_gather, axis_name=self.axis_name, tiled=True)
        mine, visitors = jax.tree.map(gather, (mine, anchors))
        if visitors.index is not None:
            visitors = visitors._replace(index=visitors.index - self.first)
        geometry = others._replace(
            x=mine.x, x_centred=mine.x_centred, x_exists=mine.x_exists
        )
        positive, negative = pairs.pair_masks(visitors, references)
        block = _rows.Block(
            distances=_geometry.block_distances(geometry, distance, precision),
            positive=positive,
            negative=negative,
            where=visitors.where,
            labels=visitors.labels,
            geometry=geometry,
            distance=distance,
            segments=None,
        )
        return body(block, masks, *(column[:, None] for column in columns))

    def _varying(self, values: Any) -> Any:
        """Mark a pytree as different from device to device."""
        return _numerics.varying_like(values, lax.axis_index(self.axis_name))


def spread(comparison: Comparison) -> Spread | None:
    """Return the comparison as one over devices; None where all references are here.

    These are here without an axis, and where they are alike on all devices.
    """
    axis_name = comparison.axis_name
    if axis_name is None:
        return None
    place = lax.axis_index(axis_name)
    y, references, anchors = comparison.y, comparison.references, comparison.anchors
    if y is None:
        y, references = comparison.x, anchors
        rows = jnp.arange(comparison.num_rows, dtype=jnp.int32)
        anchors = anchors._replace(index=place * comparison.num_rows + rows)
    # Where JAX does not track what varies, references are taken for shards.
    is_tracked = axis_name in _numerics.varying_axes(place)
    is_alike = is_tracked and axis_name not in _numerics.varying_axes(y)
    if comparison.y is not None and is_alike:
        return None
    gather = partial(_rows.gather_rows, axis_name=axis_name)
    everywhere = jax.tree.map(gather, references)
    comparison = dataclasses.replace(
        comparison, y=y, anchors=anchors, references=references
    )
    return Spread(comparison, everywhere, axis_name)


def to_owners(found: jax.Array, axis_name: str | None) -> jax.Array:
    """Return [b, devices c] of the queries here, from [devices b, c] of all found here.

    The columns come in the order of the devices.
    """
    if axis_name is None:
        return found
    return lax.all_to_all(found, axis_name, split_axis=0, concat_axis=1, tiled=True)
