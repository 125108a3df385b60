"""The numbers a training step reports about itself; none of them is differentiated."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmetric import _geometry
from jaxmetric.reductions import LossStats

# Distances of so many rows say how a batch spreads, at a cost that no step notices.
_MAX_ROWS = 256


def all_finite(tree: Any) -> jax.Array:
    """Return a bool scalar: whether every number in the tree is finite."""
    flags = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(flags))


def global_norm(tree: Any) -> jax.Array:
    """Return the euclidean norm over all leaves, a float32 scalar; 0 without leaves."""
    leaves = [x.astype(jnp.float32) for x in jax.tree.leaves(tree)]
    return jnp.sqrt(sum((jnp.sum(x * x) for x in leaves), jnp.float32(0)))


def active_fraction(stats: LossStats | None) -> jax.Array:
    """Return active terms over valid terms; 0 if none is valid, NaN without stats."""
    if stats is None:
        return jnp.float32(jnp.nan)
    # The counts of triplets pass 2**31 in sum, so they are added as floats.
    valid = jnp.sum(stats.num_terms.astype(jnp.float32))
    active = jnp.sum(stats.num_active.astype(jnp.float32))
    return jnp.where(valid > 0, active / jnp.where(valid > 0, valid, 1), 0)


def describe_embeddings(embeddings: Any, labels: Any, ids: Any) -> dict[str, jax.Array]:
    """Return positive_distance, negative_distance and embedding_norm, float32 scalars.

    The norm is a mean over all rows of all arrays in `embeddings`. The distances are
    those of the rows of one [batch, dim] array with `labels` [batch]; of two such
    arrays, those of the rows that belong together by their place, and of all others
    whose labels differ. Otherwise they are NaN. Labels may stand under that name in a
    mapping.
    """
    arrays = [x.astype(jnp.float32) for x in jax.tree.leaves(embeddings)]
    norms = [jnp.sqrt(jnp.sum(x * x, axis=-1)).ravel() for x in arrays]
    positive = negative = jnp.float32(jnp.nan)
    x = arrays[0]
    if isinstance(labels, Mapping):
        labels = labels.get("labels")
    if len(arrays) == 2 and x.ndim == 2 and arrays[1].shape == x.shape:
        positive, negative = _paired_distances(arrays[0], arrays[1], labels)
    if len(arrays) == 1 and x.ndim == 2 and getattr(labels, "shape", ()) == x.shape[:1]:
        x = lax.stop_gradient(x[:_MAX_ROWS])
        d = _distances(x, None)
        is_same = _equal(labels)
        # Self pairs are out by index; equal ids are one sample, so no pair either.
        is_pair = ~jnp.eye(x.shape[0], dtype=bool)
        if ids is not None:
            is_pair &= ~_equal(ids)
        positive = _mean(d, is_pair & is_same)
        negative = _mean(d, is_pair & ~is_same)
    return {
        "positive_distance": positive,
        "negative_distance": negative,
        "embedding_norm": jnp.mean(jnp.concatenate(norms)),
    }


def _paired_distances(x: Any, y: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    """Return the mean distances of rows that belong together, and of those that do not.

    Their rows are those of one index; others are rows of other labels, where there are
    labels.
    """
    x, y = (lax.stop_gradient(rows[:_MAX_ROWS]) for rows in (x, y))
    d = _distances(x, y)
    is_own = jnp.eye(x.shape[0], dtype=bool)
    is_other = ~is_own
    if getattr(labels, "ndim", 0) == 1 and labels.shape[0] >= x.shape[0]:
        is_other &= ~_equal(labels)
    return _mean(d, is_own), _mean(d, is_other)


def _distances(x: jax.Array, y: jax.Array | None) -> jax.Array:
    """Return the distances of all rows to all, NaN if a row is not finite."""
    # One block in product form: enough digits for a mean, and no branch to compile.
    where = jnp.ones(len(x), bool)
    ref_where = None if y is None else where
    geometry = _geometry.prepare(x, y, where, ref_where, "euclidean")
    d = _geometry.block_distances(geometry, "euclidean", lax.Precision.HIGHEST)
    # A comparison inside turns NaN into distance 0, which would read as collapse.
    is_finite = jnp.all(jnp.isfinite(x))
    if y is not None:
        is_finite &= jnp.all(jnp.isfinite(y))
    return jnp.where(is_finite, d, jnp.nan)


def _equal(values: Any) -> jax.Array:
    """Return [rows, rows] bool, which of the first rows are equal."""
    values = jnp.asarray(values)[:_MAX_ROWS]
    return values[:, None] == values[None, :]


def _mean(values: jax.Array, where: jax.Array) -> jax.Array:
    """Return the mean of the chosen values, NaN if none is chosen."""
    return jnp.sum(values, where=where) / jnp.sum(where, dtype=values.dtype)
