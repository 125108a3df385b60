"""Classification by the votes of the nearest references."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _numerics, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Distance
from jaxmetric.retrieval import fixed_point, scores, sides

__all__ = ["knn_accuracy"]


def knn_accuracy(
    query: ArrayLike,
    query_labels: ArrayLike,
    reference: ArrayLike | None = None,
    reference_labels: ArrayLike | None = None,
    *,
    k: int,
    distance: Distance = "euclidean",
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    reduction: scores.Reduction = "mean",
    block_size: int | None = None,
) -> jax.Array:
    """Return the share of queries whose k nearest references vote for their label.

    The label with the most votes wins; of labels with equally many, the one with the
    nearest voter. Among equal distances other labels than the query's come first, and
    of these the smallest label, so the order of the references plays no part. Where
    fewer than k references exist, all of them vote.

    Queries without a reference of their label are left out. Without any other query
    the share is NaN, and also when an existing row is not finite.

    Args:
      query: [q, dim] floating.
      query_labels: [q] integer.
      k: how many vote; at most the number of references, the query itself left out.
      reference, reference_labels, distance, where, ref_where, block_size: as in
        `jaxmetric.retrieval`. Without `reference` a query does not vote for itself.
      reduction: "mean", or "none" for 1 (right) or 0 a query, [q], NaN where left out.

    Returns:
      A scalar in [0, 1], float32 or wider; with reduction="none" [q] of them.

    Raises:
      ValueError: `k` exceeds the number of candidates, or shapes, names or ranges do
        not fit. TypeError: dtypes do not fit.

    Memory: O(block x (n + k^2)).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [1.0], [3.0], [7.0]])
      >>> labels = jnp.array([0, 0, 1, 1])
      >>> for k in (1, 3):
      ...     print(f"{knn_accuracy(x, labels, k=k):.2f}")
      0.75
      0.00

    Source: Cover, Hart. Nearest Neighbor Pattern Classification. IEEE Transactions on
    Information Theory, 1967.
    """
    function = "knn_accuracy"
    comparison = sides.compare(
        function,
        query,
        query_labels,
        reference,
        reference_labels,
        distance=distance,
        where=where,
        ref_where=ref_where,
        axis_name=None,
    )
    _checks.block_size(function, block_size)
    scores.check_reduction(function, reduction)
    k = sides.one_positive_int(function, "k", k, "Use k=1 for the nearest alone.")
    n, is_self = comparison.references.where.shape[0], comparison.y is None
    sides.check_num_candidates(function, k, n, is_self=is_self)
    return _knn_accuracy(comparison, (k, reduction, block_size))


@partial(jax.jit, static_argnames="options")
def _knn_accuracy(comparison: Comparison, options: tuple) -> jax.Array:
    """Order the references by label, vote by blocks of queries, and average."""
    k, reduction, block_size = options
    comparison = _rows.gather(comparison)
    search, geometry = sides.to_search(comparison, _rows.prepare(comparison))
    # Ties of a search go to the first column: then to the smallest label.
    order = jnp.argsort(comparison.references.labels)
    geometry = geometry._replace(
        y=geometry.y[order],
        y_centred=geometry.y_centred[order],
        y_exists=geometry.y_exists[order],
    )
    references = jax.tree.map(lambda a: a[order], search.references)
    anchors = search.anchors
    if anchors.index is not None:
        position = jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0]))
        anchors = anchors._replace(index=position[anchors.index].astype(jnp.int32))
    search = dataclasses.replace(search, anchors=anchors, references=references)
    body = partial(_vote, labels=references.labels, k=k)
    found = _rows.map_rows(search, geometry, body, (), block_size)
    is_right, is_counted, is_number = found
    is_good = _rows.is_finite(comparison) & jnp.all(is_number)
    is_right = is_right.astype(geometry.x.dtype)
    if reduction == "none":
        return jnp.where(is_counted & is_good, is_right, jnp.nan)
    return jnp.where(is_good, fixed_point.mean(is_right, is_counted), jnp.nan)


def _vote(
    block: _rows.Block, *, labels: jax.Array, k: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return which queries of a block are right, counted, and have real distances.

    Args:
      block: of prepared rows, for a search, the references in the order of labels.
      labels: [n] of the references.
      k: how many vote.
    """
    positive, negative = block.positive, block.negative
    distances = block.distances
    is_near = sides.near(block)
    if is_near is not None:
        is_near &= positive | negative
        num_near = jnp.sum(is_near, -1, dtype=jnp.int32)
        distances = sides.settle(block, is_near, num_near > 1)
    is_number = ~jnp.any(jnp.isnan(distances) & (positive | negative), -1)

    def nearest(kind: jax.Array) -> tuple[jax.Array, ...]:
        far, columns = lax.top_k(-jnp.where(kind, distances, jnp.inf), k)
        number = jnp.sum(kind, -1, keepdims=True, dtype=jnp.int32)
        missing = lax.broadcasted_iota(jnp.int32, far.shape, 1) >= number
        is_own = jnp.full(far.shape, kind is positive)
        return missing, -far, is_own, labels[columns]

    # k of each kind are enough, and their order is (distance, own label last, label).
    both = zip(nearest(positive), nearest(negative), strict=True)
    merged = tuple(jnp.concatenate(parts, -1) for parts in both)
    missing, _, is_own, voters = (a[:, :k] for a in lax.sort(merged, num_keys=4))
    is_vote = ~missing
    is_same = voters[:, :, None] == voters[:, None, :]
    votes = jnp.sum(is_same & is_vote[:, None, :], -1, dtype=jnp.int32)
    # The first of those with the most votes: the nearest voter decides.
    winner = _numerics.masked_argmax(votes.astype(distances.dtype), is_vote)
    is_right = jnp.take_along_axis(is_own & is_vote, winner[:, None], -1)[:, 0]
    return is_right, jnp.any(positive, -1), is_number
