"""Pairs by their cosine: pulled to 1, or pushed below a margin."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _numerics, _strips
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["cosine_embedding_loss"]


def cosine_embedding_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    margin: ArrayLike = 0.0,
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
    """Pull positive pairs to a cosine of 1, push negative pairs below a margin.

    L = mean over ordered pairs of  1 - s                  (positive)
                                    max(0, s - margin)     (negative),   s the cosine

    The definition of `torch.nn.CosineEmbeddingLoss` over all ordered pairs of the
    batch; explicit pairs go through `pair_loss`. Every pair stands alone: a batch of
    one class keeps its positive terms. No pair: 0.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      margin: a cosine, from -1 to 1; a number, a scalar array or one an anchor [batch].
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
      >>> print(f"{cosine_embedding_loss(x, jnp.array([0, 0, 1])):.4f}")
      0.6667

    Source: no paper; PyTorch, `torch.nn.CosineEmbeddingLoss`.
    """
    function = "cosine_embedding_loss"
    comparison = _comparison.compare(
        function,
        embeddings,
        labels,
        distance="cosine",
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
    return _strips.pair_loss(
        comparison,
        _cosine_embedding_pairs,
        (number("margin", margin, rows=comparison.num_rows),),
        function=function,
        reduction=reduction,
        block_size=block_size,
    )


def _cosine_embedding_pairs(
    block: Block, margin: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """1 - s_p or [s_n - margin]+ of [b, n] pairs of cosines."""
    repulsion = _numerics.relu(block.similarities - margin)
    terms = jnp.where(block.positive, block.distances, repulsion)
    return terms, block.positive | block.negative
