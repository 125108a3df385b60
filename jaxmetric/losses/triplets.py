"""Triplets that somebody has chosen: three arrays, or indices from a miner.

A positive is to be nearer than a negative, by a margin. A term is evaluated as
`(d(a, p) + margin) - d(a, n)`, in this association everywhere: the test whether it is
active and its value then agree to the last bit.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _geometry, _numerics, _rows, reductions
from jaxmetric._geometry import Distance
from jaxmetric.pairs import Triplets
from jaxmetric.reductions import LossStats, Reduction

__all__ = [
    "triplet_loss",
    "triplet_margin_loss",
]


def triplet_margin_loss(
    anchors: jax.Array,
    positives: jax.Array,
    negatives: jax.Array,
    *,
    margin: ArrayLike = 0.2,
    distance: Distance = "euclidean",
    swap: bool = False,
    soft: bool = False,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array | LossStats:
    """Pull each anchor nearer to its positive than to its negative, by a margin.

    L = mean over rows of max(0, d(a, p) + margin - d(a, n))

    With `swap` the negative's distance is min(d(a, n), d(p, n)). With `soft` the term
    is softplus(d(a, p) - d(a, n)) and the margin is not used. Distances are computed
    in difference form. No existing row: 0.

    Args:
      anchors, positives, negatives: [batch, dim] floating, row by row a triplet.
      margin: in units of `distance`; a number, a scalar array or one a row.
      distance: a name or a callable; see `pairwise_distance`.
      swap: use the nearer of anchor and positive to the negative.
      soft: softplus instead of the hinge.
      where: [batch] bool, which triplets exist.
      weights: [batch], how much a triplet counts.
      reduction: over triplets; see `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(batch x dim), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> a, p, n = jnp.array([[0.0]]), jnp.array([[1.0]]), jnp.array([[2.0]])
      >>> print(f"{triplet_margin_loss(a, p, n, margin=1.5):.2f}")
      0.50

    Source: Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832,
    equation 2; swap: Balntas, Riba, Ponsa, Mikolajczyk. Learning Local Feature
    Descriptors with Triplets and Shallow Convolutional Neural Networks. BMVC 2016.
    """
    function = "triplet_margin_loss"
    sides = []
    for name, side in zip(
        ("anchors", "positives", "negatives"),
        (anchors, positives, negatives),
        strict=True,
    ):
        side = _checks.embeddings(function, name, side)
        if sides and side.shape != sides[0].shape:
            must = f"have shape {sides[0].shape} like `anchors`"
            remedy = "Use triplet_loss for triplets given by index."
            got = str(side.shape)
            raise ValueError(_checks.text(function, name, must, got, remedy))
        sides.append(side)
    batch = sides[0].shape[0]
    dtype = _numerics.accumulation_dtype(*sides)
    where = _checks.mask(function, "where", where, sides[0], "anchors")
    _geometry.check_distance(function, distance, sides[0][:1])
    reductions.check_reduction(function, reduction)
    margin = _checks.number(function, "margin", margin, dtype, rows=batch)
    if weights is not None:
        weights = _checks.weights(function, weights, batch, dtype)
    # One geometry for all three, so that they share a scale.
    rows = jnp.concatenate([side.astype(dtype) for side in sides])
    exists = jnp.concatenate([where] * 3)
    is_good = _numerics.is_finite(rows, exists)
    geometry = _geometry.prepare(rows, None, exists, None, distance)
    index = jnp.arange(batch)
    measure = partial(_geometry.pair_distances, geometry, distance)
    a, p, n = index, index + batch, index + 2 * batch
    d_ap, d_an = measure(a, p), measure(a, n)
    if swap:
        d_an = _smaller(d_an, measure(p, n))
    stats = triplet_terms(d_ap, d_an, margin, where, soft)
    return _rows.poisoned(reductions.reduce(stats, reduction, weights=weights), is_good)


def triplet_loss(
    embeddings: jax.Array,
    triplets: Triplets,
    *,
    margin: ArrayLike = 0.2,
    distance: Distance = "euclidean",
    swap: bool = False,
    soft: bool = False,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ref_embeddings: jax.Array | None = None,
    ref_where: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> jax.Array | LossStats:
    """Pull anchors nearer to positives than to negatives, for triplets by index.

    L = mean over valid triplets of max(0, d(a, p) + margin - d(a, n))

    Takes what a miner returns. Slots with `valid=False`, or that name a row that does
    not exist, are not terms; without any valid slot the loss is 0. Distances are
    computed afresh in difference form, so the miner's precision does not matter.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      triplets: indices of anchors into `embeddings`, of positives and negatives into
        `ref_embeddings`, or into `embeddings` without it; [t] each.
      margin: in units of `distance`; a number, a scalar array or one an anchor
        [batch].
      distance: a name or a callable; see `pairwise_distance`.
      swap: use min(d(a, n), d(p, n)) for the negative.
      soft: softplus(d(a, p) - d(a, n)) instead of the hinge; the margin is not used.
      where: [batch] bool, which rows exist. weights: [batch], how much the triplets
        of an anchor count.
      ref_embeddings: [n, dim] floating, ref_where: [n] bool: the other side, if the
        miner had one.
      reduction: over triplets; see `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [t] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O((batch + t) x dim), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [1.0], [3.0], [7.0]])
      >>> chosen = Triplets(*jnp.array([[0], [1], [2]]), jnp.array([True]))
      >>> print(f"{triplet_loss(x, chosen, margin=2.5):.2f}")
      0.50

    Source: Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832.
    """
    function = "triplet_loss"
    x = _checks.embeddings(function, "embeddings", embeddings)
    x_where = _checks.mask(function, "where", where, x, "embeddings")
    y, y_where = None, None
    if ref_embeddings is not None:
        y = _checks.embeddings(function, "ref_embeddings", ref_embeddings)
        _checks.same_width(function, "ref_embeddings", y, x)
        y_where = _checks.mask(function, "ref_where", ref_where, y, "ref_embeddings")
    _geometry.check_distance(function, distance, x[:1])
    if not (isinstance(triplets, tuple) and len(triplets) == 4):
        must, got = "be a `Triplets` of four arrays", type(triplets).__name__
        remedy = "Use jaxmetric.Triplets(anchor, positive, negative, valid)."
        raise TypeError(_checks.text(function, "triplets", must, got, remedy))
    reductions.check_reduction(function, reduction)
    dtype = _numerics.accumulation_dtype(x, x if y is None else y)
    margin = _checks.number(function, "margin", margin, dtype, rows=x.shape[0])
    geometry = _geometry.prepare(x, y, x_where, y_where, distance)
    a, p, n, valid = triplets
    others = x_where if y_where is None else y_where
    valid = valid & x_where[a] & others[p] & others[n]
    d_ap = _geometry.pair_distances(geometry, distance, a, p)
    d_an = _geometry.pair_distances(geometry, distance, a, n)
    if swap:
        d_pn = _geometry.reference_pair_distances(geometry, distance, p, n)
        d_an = _smaller(d_an, d_pn)
    margin = jnp.broadcast_to(margin, x.shape[:1])[a]
    stats = triplet_terms(d_ap, d_an, margin, valid, soft)
    if weights is not None:
        weights = _checks.weights(function, weights, x.shape[0], dtype)[a]
    is_good = _numerics.is_finite(x, x_where)
    if y is not None:
        is_good &= _numerics.is_finite(y, others)
    return _rows.poisoned(reductions.reduce(stats, reduction, weights=weights), is_good)


def triplet_terms(
    d_ap: jax.Array, d_an: jax.Array, margin: jax.Array, exists: jax.Array, soft: bool
) -> LossStats:
    """Return the statistics of triplets, one term each, from [t] distances."""
    if soft:
        terms = jax.nn.softplus(jnp.where(exists, d_ap - d_an, 0))
    else:
        terms = _numerics.relu((d_ap + margin) - d_an)
    return _rows.anchor_terms(terms, exists)


def _smaller(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the minimum, with the whole gradient to `x` on a tie."""
    return jnp.where(x <= y, x, y)
