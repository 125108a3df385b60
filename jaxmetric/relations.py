"""Any relation between rows in place of equal labels: which pairs belong together.

Where a row has several classes, or a grade of relevance instead of a class, no integer
label says which pairs are positive. Two matrices do: one number (or bool) a pair.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks

__all__ = ["Relation", "relation_from_multi_hot"]


class Relation(NamedTuple):
    """Masks or weights of pairs, in place of integer `labels`.

    Every labelled loss and miner takes one instead of `labels`, except those that need
    classes (proxies, centres, class means). Row i tells how row i of the embeddings
    stands to each reference: to the batch itself, or to `ref_embeddings`, in which case
    there are no `ref_labels`. `where`, `ref_where` and `ids` act on top of it, and in
    self mode the diagonal is left out whatever it holds.

    A pair that is in both counts as positive; a pair in neither is left out. It need
    not be symmetric: the row is that of the anchor.

    Weights: a pair counts where its number is > 0. Beyond that they matter in
      contrastive_loss: they multiply the terms of their pairs;
      nt_xent_loss: those of positives multiply the terms, a negative is so many times
        in the softmax;
      supervised_contrastive_loss: the mean over positives is weighted, a negative is
        so many times in the softmax.
    The counts by which a mean divides are numbers of pairs, not sums of weights. In
    every other loss, and in miners, weights are masks.

    A weight that is NaN or infinite makes a loss NaN if its pair can be compared; a
    miner does not choose a pair of weight NaN.

    With `axis_name` the rows are those of the local shard, the columns all references
    of all devices.

    Attributes:
      positive: [n, m] bool, or floating weights.
      negative: [n, m] likewise.

    Memory: 2 n m numbers; blocks of rows are split off, never copied whole.

    Example:
      >>> import jax.numpy as jnp, jaxmetric as jm
      >>> x = jnp.array([[0.0], [1.0], [3.0]])
      >>> is_near = jnp.abs(x - x.T) < 1.5
      >>> relation = jm.Relation(positive=is_near, negative=~is_near)
      >>> print(f"{jm.losses.batch_hard_triplet_loss(x, relation, margin=2.0):.2f}")
      0.50
    """

    positive: jax.Array | np.ndarray
    negative: jax.Array | np.ndarray


# What a labelled loss or miner takes to say which pairs belong together.
Labels = ArrayLike | Relation


def relation_from_multi_hot(a: ArrayLike, b: ArrayLike | None = None) -> Relation:
    """Return the relation of rows with several classes: positive if one is shared.

    positive[i, j] = any_c (a[i, c] > 0 and b[j, c] > 0),   negative = not positive

    A row without any class is a negative of every other row.

    Args:
      a: [n, num_classes] bool or real, > 0 where the row has the class.
      b: [m, num_classes] likewise, of the other side; None for `a` itself.

    Returns:
      `Relation` of [n, m] bool masks.

    Raises:
      ValueError: shapes do not fit. TypeError: dtypes do not fit.

    Memory: O(n m + (n + m) num_classes). Time: O(n m num_classes).

    Example:
      >>> import jax.numpy as jnp
      >>> has_class = jnp.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]])
      >>> print(relation_from_multi_hot(has_class).positive.astype(int))
      [[1 1 0]
       [1 1 1]
       [0 1 1]]
    """
    function = "relation_from_multi_hot"
    rows = _multi_hot(function, "a", a)
    columns = rows if b is None else _multi_hot(function, "b", b)
    if columns.shape[1] != rows.shape[1]:
        must, got = f"have {rows.shape[1]} columns like `a`", f"shape {columns.shape}"
        remedy = "Encode both sides with the same classes."
        raise ValueError(_checks.text(function, "b", must, got, remedy))
    # Sums of zeros and ones: whatever the precision, none of them vanishes.
    shared = lax.dot_general(
        rows.astype(jnp.float32),
        columns.astype(jnp.float32),
        (((1,), (1,)), ((), ())),
    )
    return Relation(shared > 0, shared <= 0)


def check(
    function: str, relation: Relation, shape: tuple[int, int], others: str
) -> Relation:
    """Return a relation as two arrays of the given shape, bool or floating."""
    return Relation(
        *(
            _matrix(function, f"labels.{name}", values, shape, others)
            for name, values in zip(Relation._fields, relation, strict=True)
        )
    )


def shape_of(function: str, relation: Relation) -> tuple[int, int]:
    """Return the [n, m] shape of a relation that no embeddings have to match."""
    shape = np.shape(relation.positive)
    if len(shape) != 2 or 0 in shape:
        must, remedy = "have shape (rows, references)", "Give one number a pair."
        argument = "labels.positive"
        raise ValueError(_checks.text(function, argument, must, str(shape), remedy))
    return shape


def masks(relation: Relation) -> tuple[jax.Array, jax.Array]:
    """Return the [n, m] bool masks; a pair in both is positive."""
    positive, negative = (
        a if a.dtype == bool else a > 0 for a in map(jnp.asarray, relation)
    )
    return positive, negative & ~positive


def refuse_ref_labels(function: str, ref_labels: ArrayLike | None) -> None:
    """Require that no labels of references stand beside a relation."""
    if ref_labels is not None:
        must, got = "be None where `labels` is a Relation", type(ref_labels).__name__
        remedy = "The columns of the relation are the references."
        raise ValueError(_checks.text(function, "ref_labels", must, got, remedy))


def refuse(function: str, labels: object) -> None:
    """Refuse a relation where classes are needed."""
    if isinstance(labels, Relation):
        must, got = "be one integer class a row", "a Relation"
        remedy = "Use a loss of pairs or triplets for it."
        raise TypeError(_checks.text(function, "labels", must, got, remedy))


def _matrix(
    function: str,
    argument: str,
    values: ArrayLike,
    shape: tuple[int, int],
    others: str,
) -> jax.Array:
    """Return a [n, m] matrix of masks or weights."""
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if array.dtype != bool and not jnp.issubdtype(array.dtype, jnp.floating):
        must, got, remedy = "be bool or floating", str(array.dtype), "Use `> 0` of it."
        raise TypeError(_checks.text(function, argument, must, got, remedy))
    if array.shape != shape:
        must = f"have shape {shape}, a row for each of `embeddings` and a column for "
        must += f"each of {others}"
        got, remedy = str(array.shape), "Both masks have one number a pair."
        raise ValueError(_checks.text(function, argument, must, got, remedy))
    return jnp.asarray(array)


def _multi_hot(function: str, argument: str, values: ArrayLike) -> jax.Array:
    """Return [n, num_classes] bool, from bool or real numbers."""
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if array.dtype != bool and array.dtype.kind in "OUSTMmc":
        must, got = "be bool or real numbers", str(array.dtype)
        remedy = "Give 1 where a row has a class."
        raise TypeError(_checks.text(function, argument, must, got, remedy))
    if array.ndim != 2 or 0 in array.shape:
        must, got = "have shape (rows, num_classes)", str(array.shape)
        remedy = "Give one column a class."
        raise ValueError(_checks.text(function, argument, must, got, remedy))
    array = jnp.asarray(array)
    return array if array.dtype == bool else array > 0
