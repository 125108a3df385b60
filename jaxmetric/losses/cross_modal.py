"""Two towers: queries and keys that belong together row by row.

Row i of the queries belongs to row i of the keys (an image and its caption, two views
of a sample); all other keys are negatives. So the loss needs no labels. Where several
rows describe the same thing, `labels` name it, and those rows are no negatives of each
other.

In the direction from the keys to the queries the roles are swapped: it is streamed by
blocks too, and no direction needs the whole matrix.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _numerics, _paired, _rows, reductions
from jaxmetric._comparison import Comparison, is_shard
from jaxmetric._geometry import Distance, Precision
from jaxmetric._paired import PairedRows
from jaxmetric._rows import Block
from jaxmetric.reductions import LossStats, Reduction

__all__ = ["info_nce_loss", "sigmoid_contrastive_loss"]


def info_nce_loss(
    queries: jax.Array,
    keys: jax.Array,
    *,
    temperature: ArrayLike = 0.07,
    symmetric: bool = False,
    distance: Distance = "cosine",
    precision: Precision = "highest",
    labels: ArrayLike | None = None,
    ref_labels: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    log_frequencies: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Let each query pick its own key among all keys.

    L = mean over i of logsumexp_j z_ij - z_ii,   z_ij = s_ij / temperature - log p_j
    symmetric: 1/2 (logsumexp_j z_ij + logsumexp_j z_ji) - z_ii

    A pair counts if its query has another key to choose (symmetric: or its key another
    query); without any such pair the loss is 0. Symmetric, with temperature =
    1 / logit_scale, it is the loss of CLIP; with temperature 0.05 the
    `MultipleNegativesRankingLoss` of sentence-transformers.

    Where keys are drawn into the batch as often as they occur, as the items of
    interactions are, frequent ones are negatives more often than others and are pushed
    away for that alone. `log_frequencies`, log p_j, puts it right: in expectation it is
    then the softmax over all items. It is taken off the logit of every key, a query's
    own as well, as in the paper. Only differences matter, so log-counts serve too; in
    the direction from the keys it cancels.

    Args:
      queries: [batch, dim] floating. Need not be normalised.
      keys: [n, dim] floating, row i belonging to query i. Further keys (n > batch) are
        negatives of every query, and cannot be had with `symmetric`.
      temperature: > 0; a number or a scalar array.
      symmetric: let the keys pick their queries too.
      distance: similarities are s = 1 - d for "cosine", -d for any other.
      labels: [batch] integer; keys of the same label as the query are no negatives.
      ref_labels: [n] integer labels of the keys; those of the queries by default.
      where: [batch] bool, which queries exist.
      ref_where: [n] bool, which keys exist; by default those whose queries do, and
        all further ones. A pair needs both.
      log_frequencies: [n] real, log p_j of each key: how often it is drawn. None for
        keys that are all drawn alike.
      weights: [batch], how much a pair counts.
      precision, reduction, block_size, axis_name: as in `jaxmetric.losses`. With
        `axis_name` pairs are rows of the global arrays.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x n), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> print(f"{info_nce_loss(jnp.eye(2), jnp.eye(2), temperature=1.0):.4f}")
      0.3133

    Source: van den Oord, Li, Vinyals. Representation Learning with Contrastive
    Predictive Coding. 2018. arXiv:1807.03748, equation 4; symmetric: Radford et al.
    CLIP. ICML 2021. arXiv:2103.00020; log_frequencies: Yi et al. Sampling-Bias-
    Corrected Neural Modeling for Large Corpus Item Recommendations. RecSys 2019,
    equations 3 and 4, after Bengio, Senecal. AISTATS 2003.
    """
    function = "info_nce_loss"
    comparison, given = _paired.compare(
        function,
        queries,
        keys,
        distance=distance,
        precision=precision,
        labels=labels,
        ref_labels=ref_labels,
        where=where,
        ref_where=ref_where,
        weights=weights,
        axis_name=axis_name,
    )
    remedy = "Typical values are 0.05 to 0.5."
    temperature = _checks.number(
        function, "temperature", temperature, comparison.dtype, above=0, remedy=remedy
    )
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    if log_frequencies is not None:
        log_frequencies = _checks.weights(
            function,
            log_frequencies,
            comparison.references.where.shape[0],
            comparison.dtype,
            "log_frequencies",
            "Give the logarithm of how often each key occurs.",
        )
    options = (given, symmetric, reduction, block_size)
    return _info_nce(comparison, temperature, log_frequencies, options)


def sigmoid_contrastive_loss(
    queries: jax.Array,
    keys: jax.Array,
    *,
    scale: ArrayLike = 10.0,
    bias: ArrayLike = -10.0,
    distance: Distance = "cosine",
    precision: Precision = "highest",
    labels: ArrayLike | None = None,
    ref_labels: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> jax.Array | LossStats:
    """Decide for every query and key on its own whether they belong together.

    L = mean over i of sum_j softplus(-q_ij (scale s_ij + bias)),
    q_ij = 1 for i = j, else -1

    The mean is over queries, not over pairs, as in the paper. There is no softmax: one
    pair alone counts too. Without any pair the loss is 0. Both numbers are learned in
    the paper, the scale through its logarithm; the defaults are where they start.

    Args:
      queries: [batch, dim] floating. Need not be normalised.
      keys: [n, dim] floating, row i belonging to query i; further keys (n > batch) are
        negatives of every query.
      scale: > 0, factor of the similarities; a number or a scalar array.
      bias: added to them; negative, as most pairs do not belong together.
      distance: similarities are s = 1 - d for "cosine", -d for any other.
      labels: [batch] integer; keys of the same label as the query are no negatives.
      ref_labels: [n] integer labels of the keys; those of the queries by default.
      where: [batch] bool, which queries exist.
      ref_where: [n] bool, which keys exist; by default those whose queries do, and
        all further ones. A pair needs both.
      weights: [batch], how much a query counts.
      precision, reduction, block_size, axis_name: as in `jaxmetric.losses`. With
        `axis_name` pairs are rows of the global arrays.

    Returns:
      Scalar float32 or wider; with reduction="none" a `LossStats` of [batch] arrays.

    Raises:
      ValueError: shapes, names or ranges do not fit. TypeError: dtypes do not fit.

    Memory: O(block x n), forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.eye(2)
      >>> print(f"{sigmoid_contrastive_loss(x, x, scale=1.0, bias=0.0):.4f}")
      1.0064

    Source: Zhai, Mustafa, Kolesnikov, Beyer. Sigmoid Loss for Language Image
    Pre-Training. ICCV 2023. arXiv:2303.15343, algorithm 1.
    """
    function = "sigmoid_contrastive_loss"
    comparison, given = _paired.compare(
        function,
        queries,
        keys,
        distance=distance,
        precision=precision,
        labels=labels,
        ref_labels=ref_labels,
        where=where,
        ref_where=ref_where,
        weights=weights,
        axis_name=axis_name,
    )
    dtype = comparison.dtype
    scale = _checks.number(function, "scale", scale, dtype, above=0)
    bias = _checks.number(function, "bias", bias, dtype)
    reductions.check_reduction(function, reduction)
    _checks.block_size(function, block_size)
    return _sigmoid(comparison, scale, bias, (given, reduction, block_size))


@partial(jax.jit, static_argnames="options")
def _info_nce(
    comparison: Comparison,
    temperature: jax.Array,
    log_frequencies: jax.Array | None,
    options: tuple,
) -> jax.Array | LossStats:
    """One softmax a query, and one a key where both sides choose."""
    given, symmetric, reduction, block_size = options
    function = "info_nce_loss"
    queries = _paired.of_queries(function, comparison, given)
    if log_frequencies is not None:
        log_frequencies = _on_all_devices(comparison, log_frequencies)
        queries, log_frequencies = _of_existing(queries, log_frequencies)
    stats = _softmax_terms(queries, temperature, log_frequencies, block_size)
    if symmetric:
        keys = _paired.of_keys(queries)
        num_queries = keys.comparison.references.where.shape[0]
        num_keys = queries.comparison.references.where.shape[0]
        if num_keys != num_queries:
            must = f"be False with {num_keys} keys for {num_queries} queries"
            remedy = "Further keys have no query to pick."
            text = _checks.text(function, "symmetric", must, "True", remedy)
            raise ValueError(text)
        # What is taken off all logits of a key changes nothing of its choice.
        others = _softmax_terms(keys, temperature, None, block_size)
        is_counted = (stats.num_terms > 0) | (others.num_terms > 0)
        # z_ii is in the terms of both directions.
        stats = _rows.anchor_terms((stats.total + others.total) / 2, is_counted)
    return _rows.finish(queries.comparison, stats, reduction)


def _on_all_devices(comparison: Comparison, log_frequencies: jax.Array) -> jax.Array:
    """Return [n] numbers of the keys of all devices, as the keys are gathered."""
    axis_name, y = comparison.axis_name, comparison.y
    assert y is not None
    if axis_name is not None and is_shard(y, axis_name):
        return _rows.gather_rows(log_frequencies, axis_name)
    return log_frequencies


def _of_existing(
    rows: PairedRows, log_frequencies: jax.Array
) -> tuple[PairedRows, jax.Array]:
    """Return [n] numbers to take off the logits, 0 for keys that do not exist.

    One that is not finite makes the loss NaN, as a key does.
    """
    comparison = rows.comparison
    kept = jnp.where(comparison.references.where, log_frequencies, 0)
    is_valid = comparison.is_valid & jnp.all(jnp.isfinite(kept))
    comparison = dataclasses.replace(comparison, is_valid=is_valid)
    return dataclasses.replace(rows, comparison=comparison), kept


def _softmax_terms(
    rows: PairedRows,
    temperature: jax.Array,
    log_frequencies: jax.Array | None,
    block_size: int | None,
) -> LossStats:
    """Return softplus(logsumexp_{j != i} z_ij - z_ii) of the [m] rows i."""
    comparison = rows.comparison
    geometry = _rows.prepare(comparison)
    body = partial(_logsumexp_of_others, log_frequencies=log_frequencies)
    opposed, has_negative = _rows.map_rows(
        comparison, geometry, body, (temperature,), block_size
    )
    # Differences of similarities are differences of distances, the other way round.
    own = -rows.own_distances(geometry) / temperature
    if log_frequencies is not None:
        own -= log_frequencies[rows.own]
    is_term = rows.exists & has_negative
    terms = jax.nn.softplus(jnp.where(is_term, opposed - own, 0))
    return _rows.anchor_terms(terms, is_term)


def _logsumexp_of_others(
    block: Block, temperature: jax.Array, *, log_frequencies: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Return [b] log(sum_j exp(-d_j / temperature) / p_j), and where it exists."""
    z = -block.distances / temperature
    if log_frequencies is not None:
        z -= log_frequencies[None, :]
    return _numerics.masked_logsumexp(z, block.negative)


@partial(jax.jit, static_argnames="options")
def _sigmoid(
    comparison: Comparison, scale: jax.Array, bias: jax.Array, options: tuple
) -> jax.Array | LossStats:
    """Add up the decisions of each query about all keys."""
    given, reduction, block_size = options
    rows = _paired.of_queries("sigmoid_contrastive_loss", comparison, given)
    geometry = _rows.prepare(rows.comparison)
    others = _rows.map_rows(
        rows.comparison, geometry, _sigmoid_of_others, (scale, bias), block_size
    )
    own = rows.own_distances(geometry)
    s = 1 - own if rows.comparison.distance == "cosine" else -own
    terms = others + jax.nn.softplus(-(scale * s + bias))
    stats = _rows.anchor_terms(terms, rows.exists)
    return _rows.finish(rows.comparison, stats, reduction)


def _sigmoid_of_others(block: Block, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Return [b] sums of softplus(scale s_j + bias) over the other keys j."""
    z = jnp.where(block.negative, scale * block.similarities + bias, 0)
    return jnp.sum(jnp.where(block.negative, jax.nn.softplus(z), 0), -1)
