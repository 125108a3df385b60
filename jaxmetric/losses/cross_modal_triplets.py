"""Triplets between two towers: rows that belong together are to rank first.

Row i of the queries belongs to row i of the keys. Each query ranks the keys, and each
key the queries, with the roles swapped: no direction needs the whole matrix.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _geometry, _numerics, _paired, _rows, reductions
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._paired import PairedRows
from jaxmetric._rows import Block
from jaxmetric.losses.triplets import triplet_terms
from jaxmetric.reductions import LossStats, Reduction

__all__ = ["cross_modal_triplet_loss"]


def cross_modal_triplet_loss(
    queries: jax.Array,
    keys: jax.Array,
    *,
    margin: ArrayLike = 0.2,
    hardest: bool = True,
    distance: Distance = "cosine",
    precision: Precision = "highest",
    labels: ArrayLike | None = None,
    ref_labels: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Rank each query's own key, and each key's own query, above the others.

    L = mean over i of max(0, margin + max_{j != i} s_ij - s_ii)
                   and max(0, margin + max_{j != i} s_ji - s_ii)

    Without `hardest` every j is a term of its own. A direction counts where it has a
    negative; without any the loss is 0. Equally hard ones: the lowest index gets the
    gradient. The authors' code returns the sum (`reduction="sum"`), and has the
    maximum behind an option.

    Args:
      queries: [batch, dim] floating. Need not be normalised.
      keys: [n, dim] floating, row i belonging to query i; further keys (n > batch) are
        negatives of every query and rank nothing themselves.
      margin: in units of `distance`; a number, a scalar array or one a pair [batch].
      hardest: the hardest negative of each row only, not all of them.
      distance: similarities are s = 1 - d for "cosine", -d for any other.
      labels: [batch] integer; rows of the same label are no negatives of each other.
      ref_labels: [n] integer labels of the keys; those of the queries by default.
      where: [batch] bool, which queries exist.
      ref_where: [n] bool, which keys exist; by default those whose queries do, and
        all further ones. A pair needs both.
      weights: [batch], how much a pair counts.
      precision, reduction, block_size, axis_name: as in `jaxmetric.losses`. With
        `axis_name` pairs are rows of the global arrays.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x n) forward; backward O(n x dim) with `hardest`, else O(block x n).

    Example:
      >>> import jax.numpy as jnp
      >>> u, v = [1.0, 0.0], [0.0, 1.0]
      >>> print(f"{cross_modal_triplet_loss(jnp.array([u, v]), jnp.array([u, u])):.4f}")
      0.4000

    Source: Faghri, Fleet, Kiros, Fidler. VSE++: Improving Visual-Semantic Embeddings
    with Hard Negatives. BMVC 2018. arXiv:1707.05612, equation 6; all negatives: Kiros,
    Salakhutdinov, Zemel. Unifying Visual-Semantic Embeddings with Multimodal Neural
    Language Models. 2014. arXiv:1411.2539.
    """
    function = "cross_modal_triplet_loss"
    comparison, given = _paired.compare(
        function,
        queries,
        keys,
        distance=distance,
        precision=precision,
        labels=labels,
        ref_labels=ref_labels,
        where=where,
        ref_where=ref_where,
        weights=weights,
        axis_name=axis_name,
    )
    rows, dtype = comparison.num_rows, comparison.dtype
    margin = _checks.number(function, "margin", margin, dtype, rows=rows)
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    options = (given, hardest, reduction, block_size)
    return _cross_modal_triplet(comparison, margin, options)


@partial(jax.jit, static_argnames="options")
def _cross_modal_triplet(
    comparison: Comparison, margin: jax.Array, options: tuple
) -> jax.Array | LossStats:
    """Rank keys for the queries, and queries for the keys."""
    given, hardest, reduction, block_size = options
    queries = _paired.of_queries("cross_modal_triplet_loss", comparison, given)
    terms = _hardest_terms if hardest else _all_terms
    margin = jnp.broadcast_to(margin, (comparison.num_rows,))
    stats = jax.tree.map(
        jnp.add,
        terms(queries, margin, block_size),
        terms(_paired.of_keys(queries), margin, block_size),
    )
    return _rows.finish(queries.comparison, stats, reduction)


def _hardest_terms(
    rows: PairedRows, margin: jax.Array, block_size: int | None
) -> LossStats:
    """Select the nearest other of each row without gradient, then measure it."""
    comparison = rows.comparison
    geometry = _rows.prepare(comparison)
    search = _rows.to_search(comparison, geometry)
    nearest, has_negative = _rows.map_rows(*search, _nearest_other, (), block_size)
    anchors = jnp.arange(comparison.num_rows)
    d_other = _geometry.pair_distances(geometry, comparison.distance, anchors, nearest)
    is_term = rows.exists & has_negative
    return triplet_terms(rows.own_distances(geometry), d_other, margin, is_term, False)


def _nearest_other(block: Block) -> tuple[jax.Array, jax.Array]:
    """Return [b] the nearest row that belongs to somebody else, and who has one."""
    nearest = _numerics.masked_argmin(block.distances, block.negative)
    return nearest, jnp.any(block.negative, -1)


def _all_terms(
    rows: PairedRows, margin: jax.Array, block_size: int | None
) -> LossStats:
    """Every row that belongs to somebody else is a term."""
    geometry = _rows.prepare(rows.comparison)
    per_row = (rows.own_distances(geometry), margin, rows.exists)
    return _rows.map_rows(
        rows.comparison, geometry, _hinges_of_others, per_row, block_size
    )


def _hinges_of_others(
    block: Block, own: jax.Array, margin: jax.Array, exists: jax.Array
) -> LossStats:
    """max(0, (d_ii + margin) - d_ij) over the others j, for [b, n] distances."""
    terms = _numerics.relu((own + margin) - block.distances)
    return _rows.pair_terms(terms, block.negative & exists)
