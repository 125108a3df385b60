"""Semi-hard triplets: for each positive pair, the nearest negative beyond it.

Selected by index without gradient, then computed afresh, like the hardest triplets; a
row has as many of them as it has positives, which is data and not a shape.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import (
    _checks,
    _comparison,
    _geometry,
    _numerics,
    _rows,
    _selection,
    reductions,
)
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.losses.triplets import triplet_terms
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["semi_hard_triplet_loss"]

# Positives of an anchor that the semi-hard loss keeps as indices, K - 1 of P x K.
_KEPT_POSITIVES = 8


def semi_hard_triplet_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 0.2,
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
    """For each positive pair, push away the nearest negative beyond the positive.

    L = mean over positive pairs of max(0, d(a, p) + margin - d*)
    d* = min of d(a, n) over negatives with d(a, n) > d(a, p), else max_n d(a, n)

    "Beyond" is strict. A pair counts if its anchor has a negative; without any such
    pair the loss is 0. This is the rule of TF-Addons and sentence-transformers; the
    text of FaceNet asks in addition that the negative lies within the margin.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      margin: in units of `distance`; a number, a scalar array or one an anchor
        [batch].
      distance: a name or a callable; see `pairwise_distance`.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward. Time: O(batch^2 (dim + largest
    class)).

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> print(f"{semi_hard_triplet_loss(x, y, margin=2.0):.2f}")
      1.00

    Source: Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832,
    section 3.2.
    """
    function = "semi_hard_triplet_loss"
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
    rows, dtype = comparison.num_rows, comparison.dtype
    margin = _checks.number(function, "margin", margin, dtype, rows=rows)
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    return _semi_hard(comparison, margin, (reduction, block_size))


@partial(jax.jit, static_argnames="options")
def _semi_hard(
    comparison: Comparison, margin: jax.Array, options: tuple
) -> jax.Array | LossStats:
    """Select by index without gradient, then recompute what was selected.

    The first positives of an anchor are kept as indices. Classes with more of them are
    rare, and how many more is data: their terms are found block by block again.
    """
    reduction, block_size = options
    comparison = _rows.gather(comparison)
    geometry = _rows.prepare(comparison)
    margin = jnp.broadcast_to(margin, (comparison.num_rows,))
    search = _rows.to_search(comparison, geometry)
    *selected, num_positives = _rows.map_rows(
        *search, _first_semi_hard, (), block_size, by_class=True
    )
    anchors = jnp.arange(comparison.num_rows)
    measure = partial(_geometry.pair_distances, geometry, comparison.distance, anchors)

    def terms_of(p: jax.Array, n: jax.Array, exists: jax.Array) -> LossStats:
        return triplet_terms(measure(p), measure(n), margin, exists, False)

    # Around the choice, not within: what a branch keeps, the references among it, the
    # loop would keep once a slot.
    @partial(jax.checkpoint, prevent_cse=False)
    def slot_terms(*slot: jax.Array) -> LossStats:
        return lax.cond(jnp.any(slot[2]), terms_of, lambda *_: nothing, *slot)

    def add(stats: LossStats, slot: tuple) -> tuple[LossStats, None]:
        return jax.tree.map(jnp.add, stats, slot_terms(*slot)), None

    zero = jnp.zeros(comparison.num_rows, comparison.dtype)
    none = zero.astype(jnp.int32)
    nothing = _numerics.varying_like(LossStats(zero, none, none), num_positives, margin)
    stats, _ = lax.scan(add, nothing, tuple(a.T for a in selected))
    if geometry.y.shape[0] > _KEPT_POSITIVES:
        rest = partial(
            _rows.map_rows,
            comparison,
            geometry,
            _further_semi_hard,
            (margin,),
            block_size,
            by_class=True,
        )
        is_needed = jnp.max(num_positives) > _KEPT_POSITIVES
        further = lax.cond(is_needed, rest, lambda: nothing)
        stats = jax.tree.map(jnp.add, stats, further)
    return _rows.finish(comparison, stats, reduction)


def _first_semi_hard(block: Block) -> tuple[jax.Array, ...]:
    """Return [b, k] first positives, their negatives, who has them; [b] how many."""
    select, rows = _selection.semi_hard(block, block.distances), block.where.size

    def step(slot: jax.Array, state: tuple) -> tuple:
        kept = zip(state, select(slot), strict=True)
        return tuple(a.at[:, slot].set(found) for a, found in kept)

    none = jnp.zeros((rows, min(_KEPT_POSITIVES, block.distances.shape[1])), jnp.int32)
    start = (none, none, none.astype(bool))
    state = _selection.visit_positives(step, start, block, stop=none.shape[1])
    assert block.segments is not None
    return *state, block.segments.size


def _further_semi_hard(block: Block, margin: jax.Array) -> LossStats:
    """Sum over the further p of max(0, (d_p + margin) - d_n*), for [b, n] distances."""
    d, margin_of = lax.stop_gradient((block.distances, margin[:, 0]))
    geometry, rows = lax.stop_gradient(block.geometry), jnp.arange(d.shape[0])
    select = _selection.semi_hard(block, d)
    measure = partial(_geometry.pair_distances, geometry, block.distance, rows)

    def count(slot: jax.Array, state: tuple) -> tuple:
        total, num_terms, num_active, slope = state
        p, n, exists = select(slot)
        # Chosen distances afresh, in difference form: no digit is lost to cancellation.
        violation = (measure(p) + margin_of) - measure(n)
        is_active = exists & (violation > 0)
        total += jnp.where(is_active, violation, 0)
        step = is_active.astype(d.dtype)
        slope = slope.at[rows, p].add(step).at[rows, n].add(-step)
        num_terms += exists.astype(jnp.int32)
        num_active += is_active.astype(jnp.int32)
        return total, num_terms, num_active, slope

    zero = jnp.zeros(d.shape[0], d.dtype)
    none = zero.astype(jnp.int32)
    start = (zero, none, none, jnp.zeros_like(d))
    total, num_terms, num_active, slope = _selection.visit_positives(
        count, start, block, first=_KEPT_POSITIVES
    )
    total = _rows.piecewise_linear(total, slope, num_active, block, margin)
    return LossStats(total, num_terms, num_active)
