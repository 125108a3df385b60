"""All triplets that violate a margin of distances, or of angles."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _geometry
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.miners import _slots
from jaxmetric.pairs import Triplets
from jaxmetric.relations import Labels

__all__ = ["angular", "triplet_margin"]

_KINDS = ("all", "hard", "semihard", "easy")


def angular(
    embeddings: jax.Array,
    labels: Labels,
    *,
    angle: ArrayLike = 20.0,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    size: int | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Triplets:
    """Return the triplets whose negative sees the positive pair at a wide angle.

    kept if  atan(|a - p| / (2 |n - c|)) > angle,   c = (a + p) / 2

    90 degrees where the negative is at the centre of the pair, else 0 for a duplicate
    positive. Rows as given, Euclidean distances.

    Args:
      embeddings: [batch, dim] floating.
      labels: [batch] integer, or a `jaxmetric.Relation`.
      angle: in degrees, 0 to 90; a number, a scalar array or one an anchor [batch].
      size: how many slots to return: the first valid ones. None returns a slot for
        every triplet of rows.
      precision, where, ids, ref_embeddings, ref_labels, ref_where, ref_ids, block_size,
        axis_name: as in `jaxmetric.losses`.

    Returns:
      `Triplets` of [batch * n * n] slots, or of [size].

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x n^2), with a `size` O(block x n + size). Time: O(batch x n x dim)
    for each positive of an anchor.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 9.0]])
      >>> found = angular(x, jnp.array([0, 0, 1, 2]), size=3)
      >>> print(found.negative, found.valid)
      [2 2 0] [ True  True False]

    Source: Wang, Zhou, Wen, Liu, Lin. Deep Metric Learning with Angular Loss. ICCV
    2017. arXiv:1708.01682.
    """
    function = "angular"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance="euclidean",
        precision=precision,
        where=where,
        ids=ids,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        ref_ids=ref_ids,
        axis_name=axis_name,
    )
    _checks.block_size(function, block_size)
    _slots.check_size(function, size)
    rows, dtype = comparison.num_rows, comparison.dtype
    angle = _checks.number(function, "angle", angle, dtype, at_least=0, rows=rows)
    return _angular(comparison, jnp.deg2rad(angle), size, block_size)


def triplet_margin(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 0.2,
    kind: str = "all",
    distance: Distance = "euclidean",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    size: int | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Triplets:
    """Return all triplets of a kind, by how much farther the negative is.

    g = d(a, n) - d(a, p)
    "all" g <= margin,  "hard" g <= 0,  "semihard" 0 < g <= margin,  "easy" g > margin

    Args:
      embeddings: [batch, dim] floating.
      labels: [batch] integer, or a `jaxmetric.Relation`.
      margin: in units of `distance`; a number, a scalar array or one an anchor
        [batch].
      kind: "all", "hard", "semihard" or "easy". PML's "semihard"; for the one of
        TF-Addons and sentence-transformers see `semi_hard`.
      distance: a name or a callable; see `pairwise_distance`.
      size: how many slots to return: the first valid ones. None returns a slot for
        every triplet of rows.
      precision, where, ids, ref_embeddings, ref_labels, ref_where, ref_ids, block_size,
        axis_name: as in `jaxmetric.losses`.

    Returns:
      `Triplets` of [batch * n * n] slots, or of [size].

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x n^2), with a `size` O(block x n + size).

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> found = triplet_margin(x, y, margin=1.5, size=4)
      >>> print(found.anchor, found.negative, found.valid)
      [1 2 2 0] [2 0 1 0] [ True  True  True False]
    """
    function = "triplet_margin"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance=distance,
        precision=precision,
        where=where,
        ids=ids,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        ref_ids=ref_ids,
        axis_name=axis_name,
    )
    _checks.block_size(function, block_size)
    _slots.check_size(function, size)
    _checks.choice(function, "kind", kind, _KINDS, usual="all")
    rows, dtype = comparison.num_rows, comparison.dtype
    margin = _checks.number(function, "margin", margin, dtype, rows=rows)
    return _triplet_margin(comparison, margin, (kind, size, block_size))


@partial(jax.jit, static_argnames="options")
def _triplet_margin(
    comparison: Comparison, margin: jax.Array, options: tuple
) -> Triplets:
    """Compare every negative with every positive of its row."""
    kind, size, block_size = options

    def opposed_of(block: Block, margin: jax.Array) -> _slots.Opposed:
        d, rows = block.distances, jnp.arange(block.where.size)

        def opposed(p: jax.Array, exists: jax.Array) -> jax.Array:
            del exists
            g = d - d[rows, p][:, None]
            if kind == "hard":
                return g <= 0
            if kind == "semihard":
                return (g > 0) & (g <= margin)
            return g > margin if kind == "easy" else g <= margin

        return opposed

    margin = jnp.broadcast_to(margin, (comparison.num_rows,))
    search = _slots.measured(comparison)
    return _slots.each_triplet(search, opposed_of, (margin,), size, block_size)


@partial(jax.jit, static_argnames=("size", "block_size"))
def _angular(
    comparison: Comparison, angle: jax.Array, size: int | None, block_size: int | None
) -> Triplets:
    """Measure every reference from the centre of each positive pair."""
    precision, right = comparison.precision, math.pi / 2

    def opposed_of(block: Block, angle: jax.Array) -> _slots.Opposed:
        geometry, rows = block.geometry, jnp.arange(block.where.size)

        def opposed(p: jax.Array, exists: jax.Array) -> jax.Array:
            # Rows without a positive here stay where they are.
            x = jnp.where(exists[:, None], geometry.y[p], geometry.x)
            y = jnp.where(exists[:, None], geometry.y_centred[p], geometry.x_centred)
            centres = geometry._replace(
                x=(geometry.x + x) / 2, x_centred=(geometry.x_centred + y) / 2
            )
            to_centre = _geometry.block_distances(centres, "euclidean", precision)
            d_ap = _geometry.pair_distances(geometry, "euclidean", rows, p)[:, None]
            # A duplicate positive, too, is seen at 90 degrees from where it is.
            seen = jnp.where(to_centre > 0, jnp.arctan2(d_ap, 2 * to_centre), right)
            return seen > angle

        return opposed

    angle = jnp.broadcast_to(angle, (comparison.num_rows,))
    search = _slots.measured(comparison)
    return _slots.each_triplet(search, opposed_of, (angle,), size, block_size)
