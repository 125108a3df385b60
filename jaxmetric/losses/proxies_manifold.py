"""Proxies of clusters, near and far along the manifold of the embeddings.

What is compared is not the distance of two rows, but how a random walk over the graph
of all embeddings and proxies spreads. That needs the whole matrix at once.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _comparison, _geometry, _numerics, _rows
from jaxmetric._comparison import Comparison
from jaxmetric._geometry import Precision

__all__ = ["manifold_loss"]


def manifold_loss(
    embeddings: jax.Array,
    labels: ArrayLike,
    proxies: jax.Array,
    *,
    alpha: ArrayLike = 0.8,
    margin: ArrayLike = 5e-4,
    context_weight: ArrayLike = 1.0,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Let random walks from an embedding end at the proxy of its cluster.

    S = exp(2 max(0, cos)) between all embeddings and proxies, 0 on the diagonal
    F = (1 - alpha) (I - alpha D^-1/2 S D^-1/2)^-1,   D = diagonal of the row sums of S
    J(V) = mean_i log(1 + sum_{c /= k(i), u_ic >= 0} exp(u_ic))
    u_ic = V_ic - V_{i,k(i)} + margin
    L = J(F between embeddings and proxies) + context_weight J(cosines of rows of F)

    The first part compares walks from an embedding to the proxies, the second the
    walks of both to everything (their context). Without an existing row, or with one
    proxy, the loss is 0. u crosses 0 with a jump, as in the paper. PML 2.9 draws
    clusters at random where none are given, here they are always given; an infinite
    `context_weight`, which there leaves the context alone, is not taken.

    Args:
      embeddings: [batch, dim] floating. Need not be normalised.
      labels: [batch] integer in 0..K-1, the cluster k(i) of each embedding.
      proxies: [K, dim] floating, one a cluster; learned with the encoder.
      alpha: in 0..1, how far a walk goes before it ends.
      margin: of F and of its cosines; a number or a scalar array.
      context_weight: >= 0, factor of the second part.
      weights: [batch], how much an embedding counts in the means J.
      precision, where, axis_name: as in `jaxmetric.losses`.

    Returns:
      Scalar float32 or wider.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O((batch + K)^2), time O((batch + K)^3), on every device; no blocks.

    Example:
      >>> import jax.numpy as jnp
      >>> x, labels = jnp.eye(2), jnp.array([0, 1])
      >>> print(f"{manifold_loss(x, labels, -jnp.eye(2)):.4f}")
      1.3868

    Source: Aziere, Todorovic. Ensemble Deep Manifold Similarity Learning Using Hard
    Proxies. CVPR 2019, equations 1 to 8.
    """
    function = "manifold_loss"
    comparison = _comparison.compare_proxies(
        function,
        embeddings,
        labels,
        proxies,
        distance="cosine",
        precision=precision,
        where=where,
        weights=weights,
        axis_name=axis_name,
    )
    number = partial(_checks.number, function, dtype=comparison.dtype)
    remedy = "The paper has 0.8."
    hyper = (
        number("alpha", alpha, above=0, remedy=remedy),
        number("margin", margin),
        number("context_weight", context_weight, at_least=0),
    )
    if isinstance(alpha, int | float) and not alpha < 1:
        must, got = "be < 1", repr(alpha)
        raise ValueError(_checks.text(function, "alpha", must, got, remedy))
    return _manifold(comparison, hyper)


@jax.jit
def _manifold(comparison: Comparison, hyper: tuple) -> jax.Array:
    """Walk over all rows of all devices, then take the means over the own rows."""
    alpha, margin, context_weight = hyper
    anchors, axis_name = comparison.anchors, comparison.axis_name
    assert comparison.y is not None
    x = _rows.gather_rows(comparison.x, axis_name)
    exists = _rows.gather_rows(anchors.where, axis_name)
    first = 0 if axis_name is None else lax.axis_index(axis_name) * comparison.num_rows
    dtype, batch = comparison.dtype, x.shape[0]
    proxies = comparison.y.astype(dtype)
    rows = jnp.concatenate([x.astype(dtype), proxies])
    exists = jnp.concatenate([exists, jnp.ones(proxies.shape[0], bool)])
    walks = _random_walks(rows, exists, alpha, comparison.precision)
    mine = lax.dynamic_slice_in_dim(walks, first, comparison.num_rows)
    # Every row of F has its own (1 - alpha) on the diagonal, so it has a direction.
    own, targets = (_numerics.unit_rows(a)[0] for a in (mine, walks[batch:]))
    context = lax.dot_general(
        own, targets, (((1,), (1,)), ((), ())), precision=comparison.precision
    )
    is_own = anchors.labels[:, None] == comparison.references.labels[None, :]
    terms = _exceeding(mine[:, batch:], is_own, anchors.where, margin)
    terms += context_weight * _exceeding(context, is_own, anchors.where, margin)
    weight = anchors.where.astype(dtype)
    if comparison.weights is not None:
        weight *= comparison.weights
    total, count = _rows.sum_rows(comparison, (weight * terms, weight))
    loss = _numerics.quotient(total, count)
    return _rows.poisoned(loss, _rows.is_finite(comparison))  # pyright: ignore


def _random_walks(
    rows: jax.Array, exists: jax.Array, alpha: jax.Array, precision: Precision
) -> jax.Array:
    """Return F [n, n], the chances to go from row to row; (1 - alpha) I where alone."""
    geometry = _geometry.prepare(rows, None, exists, None, "cosine")
    d = _geometry.block_distances(geometry, "cosine", precision)
    identity = jnp.eye(rows.shape[0], dtype=d.dtype)
    is_edge = exists[:, None] & exists[None, :] & (identity == 0)
    s = jnp.where(is_edge, jnp.exp(2 * _numerics.relu(1 - d)), 0)
    degree = jnp.sum(s, -1)
    # A lone proxy has no edge; nobody else can, as all proxies exist.
    has_edge = degree > 0
    root = jnp.where(has_edge, lax.rsqrt(jnp.where(has_edge, degree, 1)), 0)
    s = root[:, None] * s * root[None, :]
    identity = _numerics.varying_like(identity, s)
    # The eigenvalues of s lie in -1..1: the matrix is positive definite.
    f = jax.scipy.linalg.solve(identity - alpha * s, identity, assume_a="pos")
    return (1 - alpha) * f


def _exceeding(
    v: jax.Array, is_own: jax.Array, where: jax.Array, margin: jax.Array
) -> jax.Array:
    """Return [m] log(1 + sum exp(u)) over the proxies with u >= 0, of [m, K] values."""
    own = jnp.sum(jnp.where(is_own, v, 0), -1, keepdims=True)
    u = v - own + margin
    is_term = ~is_own & where[:, None] & (u >= 0)
    total, exists = _numerics.masked_logsumexp(u, is_term)
    return jnp.where(exists, jax.nn.softplus(total), 0)
