"""Triplets whose negative is as far from the positive as from the anchor."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import (
    _checks,
    _comparison,
    _geometry,
    _numerics,
    _rows,
    _selection,
    reductions,
    relations,
)
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Geometry, Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["equidistant_triplet_loss"]


def equidistant_triplet_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 0.3,
    equidistant_weight: ArrayLike = 1.0,
    equidistributed_weight: ArrayLike = 0.0,
    distance: Distance = "euclidean",
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Pull the hardest positive near, with the negative equally far from both ends.

    L = mean over i of  max(0, (d(i, p) + margin) - d(i, n))
                        + max(0, (d(i, p) + margin) - d(p, n))
                        + equidistant_weight |d(i, n) - d(p, n)|
                        + equidistributed_weight (exp(-d(i, n)) + |d(i, n) - d(n, k)|)
    p the farthest positive and n the nearest negative of i, k the nearest of n

    An anchor counts if it has at least one positive and one negative; without any such
    anchor the loss is 0. All are searched without gradient, and their distances
    computed afresh. With references, p, n and k are theirs. The last line, which
    spreads the classes evenly, is off by default: the paper's form of it could not be
    confirmed. The public code takes an anchor without a positive for its own.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      margin: in units of `distance`; a number, a scalar array or one an anchor
        [batch].
      equidistant_weight: how much the difference of the two far sides costs.
      equidistributed_weight: how much near and unevenly spread negatives cost; 0 saves
        the search for k, anything else needs classes.
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch) forward, O(batch x dim) backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> print(f"{equidistant_triplet_loss(x, y, margin=2.0):.2f}")
      5.00

    Source: Xu, Zhang, Cheng, Chu. Equidistant and Equidistributed Triplet-based Loss.
    WWW 2020.
    """
    function = "equidistant_triplet_loss"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance=distance,
        precision=precision,
        where=where,
        weights=weights,
        ids=ids,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        ref_where=ref_where,
        ref_ids=ref_ids,
        axis_name=axis_name,
    )
    number = partial(_checks.number, function, dtype=comparison.dtype)
    spread = equidistributed_weight
    is_spread = not (isinstance(spread, int | float) and spread == 0)
    if is_spread:
        # Negatives of negatives: a relation tells those of the anchors alone.
        relations.refuse(function, labels)
    hyper = (
        number("margin", margin, rows=comparison.num_rows),
        number("equidistant_weight", equidistant_weight),
        number("equidistributed_weight", spread),
    )
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    return _equidistant(comparison, hyper, (is_spread, reduction, block_size))


@partial(jax.jit, static_argnames="options")
def _equidistant(
    comparison: Comparison, hyper: tuple[jax.Array, ...], options: tuple
) -> jax.Array | LossStats:
    """Select by index without gradient, then recompute what was selected."""
    margin, equidistant_weight, equidistributed_weight = hyper
    is_spread, reduction, block_size = options
    comparison = _rows.gather(comparison)
    geometry, distance = _rows.prepare(comparison), comparison.distance
    p, n, has_both = _selection.find_hardest(comparison, geometry, block_size)
    anchors = jnp.arange(comparison.num_rows)
    d_ip = _geometry.pair_distances(geometry, distance, anchors, p)
    d_in = _geometry.pair_distances(geometry, distance, anchors, n)
    d_pn = _geometry.reference_pair_distances(geometry, distance, p, n)
    terms = _numerics.relu((d_ip + margin) - d_in)
    terms += _numerics.relu((d_ip + margin) - d_pn)
    terms += equidistant_weight * _numerics.absolute(d_in - d_pn)
    if is_spread:
        search = _rows.to_search(comparison, geometry)
        k, exists = _nearest_of_references(*search, n, block_size)
        d_nk = _geometry.reference_pair_distances(geometry, distance, n, k)
        unevenness = jnp.where(exists, _numerics.absolute(d_in - d_nk), 0)
        # Rows that do not count may be at any distance, minus infinity included.
        nearness = jnp.exp(-jnp.where(has_both, d_in, 0))
        terms += equidistributed_weight * (nearness + unevenness)
    return _rows.finish(comparison, _rows.anchor_terms(terms, has_both), reduction)


def _nearest_of_references(
    comparison: Comparison, geometry: Geometry, n: jax.Array, block_size: int | None
) -> tuple[jax.Array, jax.Array]:
    """Return the [m] references nearest to references n among those of other labels.

    The references n stand in for the anchors, so that this is one more pass of [m, n]
    distances, whatever the number of references. The flag says who has such a one.
    """
    references = comparison.references._replace(index=None)
    stand_ins = jax.tree.map(lambda a: a[n], references)
    rows = geometry._replace(
        x=geometry.y[n], x_centred=geometry.y_centred[n], x_exists=geometry.y_exists[n]
    )

    def nearest(block: Block) -> tuple[jax.Array, jax.Array]:
        k = _numerics.masked_argmin(block.distances, block.negative)
        return k, jnp.any(block.negative, -1)

    comparison = dataclasses.replace(comparison, anchors=stand_ins)
    return _rows.map_rows(comparison, rows, nearest, (), block_size)
