"""Triplets by the angle at the negative, all negatives of a positive pair together."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _geometry, _numerics, _rows, _selection
from jaxmetric._geometry import Precision
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction
from jaxmetric.relations import Labels

__all__ = ["angular_loss"]


def angular_loss(
    embeddings: jax.Array,
    labels: Labels,
    *,
    alpha: ArrayLike = 45.0,
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
    """Bound the angle under which a negative sees an anchor and its positive.

    L = mean over (a, p) of log(1 + sum_n exp(4 T (s(a, n) + s(p, n))
                                              - 2 (1 + T) s(a, p)))
    with T = tan^2(alpha) and s the cosine

    Every positive pair of an anchor with a negative is a term; without any the loss is
    0. Constants of the paper's exponent that unit rows make equal are left out, so the
    cosine is the only similarity: the size of the rows has no effect (PML 2.9 leaves
    the negatives as they are).

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer, only equality is used; or a `jaxmetric.Relation`.
      alpha: > 0 and < 90, the bound in degrees; the paper uses 36 to 55.
      precision, where, weights, ids, ref_embeddings, ref_labels, ref_where, ref_ids,
        reduction, block_size, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x batch), forward and backward: the positives are visited one by
    one. Time: O(batch^2 dim x largest class).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
      >>> print(f"{angular_loss(x, jnp.array([0, 0, 1, 1])):.5f}")
      0.03598

    Source: Wang, Zhou, Wen, Liu, Lin. Deep Metric Learning with Angular Loss. ICCV
    2017. arXiv:1708.01682, equation 8.
    """
    function = "angular_loss"
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
    remedy = "Give degrees, 36 to 55."
    alpha = _checks.number(
        function, "alpha", alpha, comparison.dtype, above=0, below=90, remedy=remedy
    )
    return _rows.row_loss(
        comparison,
        _angular_rows,
        (jnp.tan(jnp.deg2rad(alpha)) ** 2,),
        (comparison.precision,),
        function=function,
        reduction=reduction,
        block_size=block_size,
        by_class=True,
    )


def _angular_rows(block: Block, slope: jax.Array, precision: Precision) -> LossStats:
    """Sum over p of log(1 + sum_n exp(4 T (s_n + s_pn) - 2 (1 + T) s_p)), [b, n]."""
    s, rows = block.similarities, jnp.arange(block.where.size)
    geometry, has_both = block.geometry, block.has_both

    def term_of(p: jax.Array, exists: jax.Array) -> tuple[jax.Array, jax.Array]:
        positives = geometry._replace(
            x=geometry.y[p],
            x_centred=geometry.y_centred[p],
            x_exists=geometry.y_exists[p],
        )
        s_pn = 1 - _geometry.block_distances(positives, "cosine", precision)
        exponent = 4 * slope * (s + s_pn) - 2 * (1 + slope) * s[rows, p][:, None]
        found, _ = _numerics.masked_logsumexp(exponent, block.negative)
        term = jnp.where(exists & has_both, jax.nn.softplus(found), 0)
        return term, (term > 0).astype(jnp.int32)

    zero = jnp.zeros(block.where.size, s.dtype)
    total, num_active = _selection.sum_over_positives(
        block, term_of, (zero, zero.astype(jnp.int32))
    )
    num_positives = jnp.sum(block.positive, -1, dtype=jnp.int32)
    return LossStats(total, jnp.where(has_both, num_positives, 0), num_active)
