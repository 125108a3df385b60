"""One negative for each positive pair: the semi-hard one, or a drawn one."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _rows, _selection
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance, Precision
from jaxmetric._rows import Block
from jaxmetric.miners import _slots
from jaxmetric.pairs import Triplets
from jaxmetric.relations import Labels

__all__ = ["distance_weighted", "semi_hard"]


def semi_hard(
    embeddings: jax.Array,
    labels: Labels,
    *,
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
    """Return each positive pair with the nearest negative strictly beyond it.

    Where no negative is farther than the positive, the farthest negative is taken: the
    rule of TF-Addons and sentence-transformers, and of `semi_hard_triplet_loss`.

    Args:
      embeddings: [batch, dim] floating.
      labels: [batch] integer, or a `jaxmetric.Relation`.
      distance: a name or a callable; see `pairwise_distance`.
      size: how many slots to return: the first valid ones, in the order of anchor and
        positive. None returns a slot for every ordered pair of rows.
      precision, where, ids, ref_embeddings, ref_labels, ref_where, ref_ids, block_size,
        axis_name: as in `jaxmetric.losses`.

    Returns:
      `Triplets` of [batch * n] slots, or of [size].

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x n), with a `size` O(block x n + size).

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[0.0], [1.0], [3.0], [7.0]]), jnp.array([0, 0, 1, 1])
      >>> print(semi_hard(x, y, size=4).negative)
      [2 2 0 1]

    Source: Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832,
    section 3.2.
    """
    function = "semi_hard"
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
    return _semi_hard(comparison, size, block_size)


def distance_weighted(
    key: jax.Array,
    embeddings: jax.Array,
    labels: Labels,
    *,
    cutoff: ArrayLike = 0.5,
    nonzero_loss_cutoff: ArrayLike = 1.4,
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
    """Return each positive pair with a negative drawn evenly over distances.

    log w = (2 - dim) log d - (dim - 3) / 2 log(1 - d^2 / 4),   d = max(|x - y|, cutoff)

    of unit rows: one over the density of distances between random points of a sphere,
    which would otherwise nearly all be sqrt(2). Only negatives nearer than
    `nonzero_loss_cutoff` are drawn; a pair whose anchor has none is an invalid slot.
    Unlike PML, which draws as many triplets an anchor as its class has rows, every
    ordered positive pair has one negative, and weights are compared within a row, so
    that high dimensions do not underflow. The same key gives the same triplets for
    every `block_size` and number of devices.

    Args:
      key: a `jax.random` key.
      embeddings: [batch, dim] floating. Need not be normalised: d is that of the unit
        rows.
      labels: [batch] integer, or a `jaxmetric.Relation`.
      cutoff: > 0, distances below it weigh like it; a number or a scalar array.
      nonzero_loss_cutoff: only negatives nearer than it; a number or a scalar array.
      size: how many slots to return: the first valid ones. None returns a slot for
        every ordered pair of rows.
      precision, where, ids, ref_embeddings, ref_labels, ref_where, ref_ids, block_size,
        axis_name: as in `jaxmetric.losses`.

    Returns:
      `Triplets` of [batch * n] slots, or of [size].

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x n), with a `size` O(block x n + size). Time: a random number for
    every triplet of the batch.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.5], [-1.0, 0.0]])
      >>> y = jnp.array([0, 0, 1, 2])
      >>> print(distance_weighted(jax.random.key(0), x, y, size=2).negative)
      [2 2]

    Source: Wu, Manmatha, Smola, Krähenbühl. Sampling Matters in Deep Embedding
    Learning. ICCV 2017. arXiv:1706.07567, section 4.
    """
    function = "distance_weighted"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance="cosine",
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
    dtype = comparison.dtype
    limits = (
        _checks.number(function, "cutoff", cutoff, dtype, above=0),
        _checks.number(function, "nonzero_loss_cutoff", nonzero_loss_cutoff, dtype),
    )
    return _distance_weighted(comparison, key, limits, size, block_size)


@partial(jax.jit, static_argnames=("size", "block_size"))
def _semi_hard(
    comparison: Comparison, size: int | None, block_size: int | None
) -> Triplets:
    """Search by blocks; a slot for every pair of an anchor and a reference."""
    search = _rows.to_search(*_slots.measured(comparison))
    anchor, positive, negative, valid = _slots.each_pair(
        search, _semi_hard_rows, (), size, block_size, by_class=True
    )
    return _slots.triplets(anchor, positive, negative, valid)


def _semi_hard_rows(block: Block) -> tuple[jax.Array, jax.Array]:
    """Return [b, n] which references are positives, and the negative of each."""
    block = _slots.finite(block)
    return _for_each_positive(block, _selection.semi_hard(block, block.distances))


@partial(jax.jit, static_argnames=("size", "block_size"))
def _distance_weighted(
    comparison: Comparison,
    key: jax.Array,
    limits: tuple[jax.Array, jax.Array],
    size: int | None,
    block_size: int | None,
) -> Triplets:
    """Draw by blocks; a slot for every pair of an anchor and a reference."""
    search = _slots.measured(comparison)
    dim = comparison.x.shape[1]

    def body(block: Block, anchors: jax.Array) -> tuple[jax.Array, jax.Array]:
        block = _slots.finite(block)
        log_weights, is_near = _log_weights(block.distances, dim, *limits)
        eligible = block.negative & is_near
        has_negative = jnp.any(eligible, -1)
        keys = jax.vmap(partial(jax.random.fold_in, key))(anchors[:, 0])
        segments, rows = block.segments, jnp.arange(block.where.size)
        assert segments is not None

        def draw(slot: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            p, exists = segments.candidate(slot)
            exists &= block.positive[rows, p] & has_negative
            noise = jax.vmap(_noise, (0, 0, None))(keys, p, log_weights)
            # The largest of log w plus Gumbel noise is a draw in proportion to w.
            return p, _numerics.masked_argmax(log_weights + noise, eligible), exists

        return _for_each_positive(block, draw)

    per_row = (_slots.global_rows(comparison),)
    anchor, positive, negative, valid = _slots.each_pair(
        search, body, per_row, size, block_size, by_class=True
    )
    return _slots.triplets(anchor, positive, negative, valid)


def _noise(key: jax.Array, p: jax.Array, like: jax.Array) -> jax.Array:
    """Return [n] Gumbel noise for the pair of an anchor, whose key it is, and p."""
    key = jax.random.fold_in(key, p)
    return jax.random.gumbel(key, like.shape[-1:], like.dtype)


def _log_weights(
    d_cosine: jax.Array, dim: int, cutoff: jax.Array, limit: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return [b, n] log weights of unit rows, and which of them are near enough."""
    d = jnp.maximum(_numerics.safe_sqrt(2 * d_cosine), cutoff)
    # Opposite rows are at distance 2, where the density ends.
    rest = jnp.maximum(1 - d * d / 4, jnp.finfo(d.dtype).eps)
    return (2 - dim) * jnp.log(d) - (dim - 3) / 2 * jnp.log(rest), d < limit


def _for_each_positive(block: Block, select) -> tuple[jax.Array, jax.Array]:
    """Return [b, n] which references are chosen positives, and their negatives.

    `select(slot)` gives [b] positives, negatives, and whether the slot holds a pair.
    """
    shape, rows = block.distances.shape, jnp.arange(block.where.size)

    def step(slot: jax.Array, state: tuple) -> tuple:
        valid, negative = state
        p, n, exists = select(slot)
        # A row without a pair in this slot writes past the end, that is, nowhere.
        column = jnp.where(exists, p, shape[1])
        negative = negative.at[rows, column].set(n, mode="drop")
        return valid.at[rows, column].set(True, mode="drop"), negative

    start = jnp.zeros(shape, bool), jnp.zeros(shape, jnp.int32)
    valid, negative = _selection.visit_positives(step, start, block)
    return valid, negative
