"""Offline mining: the hardest negatives of every example of a data set."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _geometry, _numerics, _rows, pairs
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.miners import _slots

__all__ = ["HardNegatives", "mine_dataset"]


class HardNegatives(NamedTuple):
    """The hardest negatives of each example, hardest first.

    Attributes:
      ids: [n, k] int32 row ids of the data set, 0 in invalid slots.
      similarities: [n, k] cosine to the example, 0 in invalid slots.
      valid: [n, k] bool; the valid slots of a row come first.
    """

    ids: jax.Array
    similarities: jax.Array
    valid: jax.Array


def mine_dataset(
    embeddings: jax.Array,
    labels: ArrayLike,
    *,
    num_negatives: int = 10,
    max_similarity: ArrayLike | None = None,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
) -> HardNegatives:
    """Find the hardest negatives of every example of a data set, by cosine.

    hard(i) = the rows n of other classes with the largest cos(i, n) of which
              max over rows p of i's class, i included, of cos(p, n) <= max_similarity

    A row that is nearly a copy of a positive is more often a wrong label or a
    duplicate than a hard negative, and training on it undoes what the positives teach.
    So `max_similarity` compares the candidate with every row of the example's class,
    not only with the example: a candidate that is too near to any of them is left out
    for all of them. Among equal similarities the lowest id comes first. Examples with
    fewer negatives have invalid slots.

    For use between epochs: embed the data set, mine, and let the sampler put the ids
    of an example and of its negatives into one batch.

    Args:
      embeddings: [n, dim] floating. Need not be normalised.
      labels: [n] integer. Only equality is used; a `Relation` of a whole data set
        would be a whole matrix, and is refused.
      num_negatives: how many for each example.
      max_similarity: -1 to 1, inclusive; a number or a scalar array. None leaves
        nothing out.
      where: [n] bool, which rows exist. ids: [n] names of samples: equal ones are not
        negatives of each other.
      precision: as in `jaxmetric.losses`.
      block_size: how many examples are searched together; None lets the library
        choose.

    Returns:
      `HardNegatives(ids, similarities, valid)`, [n, num_negatives] each.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x n + n num_negatives). Time: O(n^2 dim), with `max_similarity`
    times 2 + (largest class) / block.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.9, 0.2], [0.0, 1.0]])
      >>> y = jnp.array([0, 0, 1, 2])
      >>> print(mine_dataset(x, y, num_negatives=1).ids[:, 0])
      [2 2 1 2]
      >>> print(mine_dataset(x, y, num_negatives=1, max_similarity=0.9).ids[:, 0])
      [3 3 3 2]
    """
    function = "mine_dataset"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance="cosine",
        precision=precision,
        where=where,
        ids=ids,
        needs_classes=True,
    )
    _checks.block_size(function, block_size)
    _checks.positive_int(function, "num_negatives", num_negatives)
    if max_similarity is not None:
        max_similarity = _checks.number(
            function, "max_similarity", max_similarity, comparison.dtype, at_least=-1
        )
    return _mine(comparison, max_similarity, num_negatives, block_size)


@partial(jax.jit, static_argnames=("num_negatives", "block_size"))
def _mine(
    comparison: Comparison,
    max_similarity: jax.Array | None,
    num_negatives: int,
    block_size: int | None,
) -> HardNegatives:
    """Search in the order of the labels, so that a block has few classes."""
    comparison, geometry = _slots.measured(comparison)
    segments = pairs.class_segments(comparison.anchors, comparison.references)
    order, n = segments.order, comparison.num_rows
    take = lambda a: a[order]  # noqa: E731
    anchors = jax.tree.map(take, comparison.anchors)
    by_label = Comparison(
        x=comparison.x[order],
        y=comparison.x,
        anchors=anchors,
        references=comparison.references,
        weights=None,
        is_valid=comparison.is_valid,
        distance=comparison.distance,
        precision=comparison.precision,
        axis_name=None,
    )
    classes = segments.start[order], segments.size[order]

    def body(block: Block, start: jax.Array, size: jax.Array) -> tuple:
        block = _slots.finite(block)
        candidates = block.negative
        if max_similarity is not None:
            candidates &= ~_near_class(
                block,
                order,
                comparison,
                (start[:, 0], start[:, 0] + size[:, 0] + 1),
                max_similarity,
            )
        s = jnp.where(candidates, block.similarities, -jnp.inf)
        return tuple(lax.top_k(s, min(num_negatives, n)))

    search = by_label, _geometry.take_rows(geometry, take)
    similarities, found = _rows.map_rows(*search, body, classes, block_size)
    back = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
    missing = ((0, 0), (0, num_negatives - found.shape[1]))
    similarities = jnp.pad(similarities[back], missing, constant_values=-jnp.inf)
    valid = similarities > -jnp.inf
    return HardNegatives(
        jnp.where(valid, jnp.pad(found[back], missing), 0).astype(jnp.int32),
        jnp.where(valid, similarities, 0),
        valid,
    )


def _near_class(
    block: Block,
    order: jax.Array,
    comparison: Comparison,
    segments: tuple[jax.Array, jax.Array],
    max_similarity: jax.Array,
) -> jax.Array:
    """Return [b, n] which references are too similar to a row of the block's classes.

    Args:
      block: of anchors in the order of the labels.
      order: [n] rows in this order.
      comparison: of the data set, in its own order.
      segments: [b] first position of each anchor's class in `order`, and one past its
        last.
      max_similarity: scalar.
    """
    start, stop = segments
    labels = comparison.anchors.labels
    b, n = block.distances.shape
    first = jnp.min(jnp.where(block.where, start, n))
    last = jnp.max(jnp.where(block.where, stop, 0))

    def compare(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        position, is_near = state
        members = position + jnp.arange(b, dtype=jnp.int32)
        rows = order[jnp.minimum(members, n - 1)]
        exists = members < last
        y = block.geometry.y[rows]
        geometry = block.geometry._replace(
            x=y, x_centred=y, x_exists=block.geometry.y_exists[rows]
        )
        d = _geometry.block_distances(geometry, "cosine", comparison.precision)
        is_over = (1 - d > max_similarity).astype(d.dtype)
        is_member = (labels[rows][None, :] == block.labels[:, None]) & exists[None, :]
        # Members of an anchor's class that are near: a sum of zeros and ones.
        near = lax.dot_general(
            is_member.astype(d.dtype), is_over, (((1,), (0,)), ((), ()))
        )
        return position + b, is_near | (near > 0)

    state = _numerics.varying_like(
        (first, jnp.zeros((b, n), bool)), block.distances, first
    )
    _, is_near = lax.while_loop(lambda state: state[0] < last, compare, state)
    return is_near
