"""The hardest positive and negative of each row of a batch against itself.

The distances of a batch to itself are symmetric: tiles on and above the diagonal hold
every pair, and each gives its rows and its columns a candidate. That is half of the
products that rows by blocks need.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmetric import _blocks, _geometry, _numerics, pairs
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Geometry

# Rows of a tile: it stays in a CPU core's cache, and fills an accelerator.
_CPU_TILE, _ACCELERATOR_TILE = 512, 4096


class Best(NamedTuple):
    """The best candidate so far of some rows; `index` is n where there is none."""

    value: jax.Array
    index: jax.Array


def are_fewer(comparison: Comparison, block_size: int | None) -> bool:
    """Return whether tiles may take the place of rows by blocks, and pay."""
    return (
        comparison.y is None
        and comparison.axis_name is None
        and comparison.anchors.relation is None
        and not callable(comparison.distance)
        and block_size is None
        and comparison.num_rows >= 2 * _CPU_TILE
    )


def hardest(
    comparison: Comparison, geometry: Geometry
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return [m] farthest positives and nearest negatives, and who has both.

    The lowest index among equals; 0 where there is none. Memory: O(tile^2 + m dim).
    """
    search = partial(_hardest, comparison.distance, comparison.precision)
    operands = (geometry, comparison.anchors)
    if comparison.num_rows < 2 * _ACCELERATOR_TILE:
        return search(_CPU_TILE, *operands)
    return lax.platform_dependent(
        *operands,
        cpu=partial(search, _CPU_TILE),
        default=partial(search, _ACCELERATOR_TILE),
    )


def _hardest(
    distance: Any, precision: Any, tile: int, geometry: Geometry, rows: pairs.Side
) -> tuple[jax.Array, jax.Array, jax.Array]:
    m = geometry.x.shape[0]
    # Padded rows have where=False, and so are nobody's candidates.
    rows = _blocks.split(rows, tile)
    parts = (geometry.x, geometry.x_centred, geometry.x_exists)
    x, x_centred, x_exists = _blocks.split(parts, tile)
    norms = _blocks.split(_geometry.squared_norms(geometry)[0], tile)
    number = rows.where.shape[0]
    place = lax.broadcasted_iota(jnp.int32, (number, tile), 0) * tile
    place += lax.broadcasted_iota(jnp.int32, (number, tile), 1)

    def take(i: jax.Array, j: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return distances and masks of a tile."""
        of_tile = geometry._replace(
            x=x[i],
            x_centred=x_centred[i],
            x_exists=x_exists[i],
            y=x[j],
            y_centred=x_centred[j],
            y_exists=x_exists[j],
        )
        of_both = (norms[i], norms[j])
        d = _geometry.block_distances(of_tile, distance, precision, of_both)
        anchors = jax.tree.map(lambda a: a[i], rows)
        anchors = anchors._replace(index=place[i] - j * tile)
        return d, *pairs.pair_masks(anchors, jax.tree.map(lambda a: a[j], rows))

    def step(best: tuple[Best, ...], corner: jax.Array) -> tuple:
        i, j = corner
        d, positive, negative = take(i, j)
        for axis, mine, others in ((1, i, j), (0, j, i)):
            columns = place[others]
            found = (
                _best(-d, positive, columns, axis),
                _best(d, negative, columns, axis),
            )
            best = tuple(
                _merge(old, mine, new) for old, new in zip(best, found, strict=True)
            )
        return best, None

    nobody = Best(
        jnp.full((number, tile), jnp.inf, geometry.x.dtype),
        jnp.full((number, tile), number * tile, jnp.int32),
    )
    start = _numerics.varying_like((nobody, nobody), geometry.x, rows.where)
    corners = np.stack(np.triu_indices(number), axis=1).astype(np.int32)
    best, _ = lax.scan(step, start, jnp.asarray(corners))
    p, n = (b.index.reshape(-1)[:m] for b in best)
    has_p, has_n = p < m, n < m
    return jnp.where(has_p, p, 0), jnp.where(has_n, n, 0), has_p & has_n


def _best(d: jax.Array, mask: jax.Array, columns: jax.Array, axis: int) -> Best:
    """Return the least number under the mask along an axis, and its lowest column."""
    d = jnp.where(mask, d, jnp.inf)
    value = jnp.min(d, axis)
    columns = jnp.expand_dims(columns, 1 - axis)
    is_least = mask & (d == jnp.expand_dims(value, axis))
    largest = jnp.iinfo(jnp.int32).max
    return Best(value, jnp.min(jnp.where(is_least, columns, largest), axis))


def _merge(best: Best, tile: jax.Array, found: Best) -> Best:
    """Let the candidates of a tile take the place of worse ones."""
    old = Best(best.value[tile], best.index[tile])
    is_better = (found.value < old.value) | (
        (found.value == old.value) & (found.index < old.index)
    )
    new = (jnp.where(is_better, a, b) for a, b in zip(found, old, strict=True))
    return Best(*(a.at[tile].set(b) for a, b in zip(best, new, strict=True)))
