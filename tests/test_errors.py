"""Mistakes of the caller: the class and the full text, eager and under `jit`."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmetric

# Untyped: these calls are wrong on purpose.
jm: Any = jaxmetric
losses, miners = jm.losses, jm.miners

X = jnp.zeros((24, 8))
Y = jnp.zeros(24, jnp.int32)
P = jnp.zeros((10, 8))
B = jnp.ones(24, bool)
ALL = "'mean', 'mean_active', 'mean_per_anchor', 'sum', 'none'"
DISTANCES = "'euclidean', 'sqeuclidean', 'cosine', 'dot', 'manhattan'"

# (class, call of the embeddings, text). The embeddings are traced under `jit`.
BAD_CALLS = {
    "labels as a column": (
        ValueError,
        lambda x: losses.batch_all_triplet_loss(x, Y[:, None]),
        "batch_all_triplet_loss: `labels` must have shape (24,) to match `embeddings` "
        "of shape (24, 8), got (24, 1). Use labels[:, 0].",
    ),
    "labels one-hot": (
        ValueError,
        lambda x: losses.contrastive_loss(x, jnp.zeros((24, 3), jnp.int32)),
        "contrastive_loss: `labels` must have shape (24,) to match `embeddings` of "
        "shape (24, 8), got (24, 3). Use labels.argmax(-1).",
    ),
    "labels of another length": (
        ValueError,
        lambda x: losses.nt_xent_loss(x, Y[:23]),
        "nt_xent_loss: `labels` must have shape (24,) to match `embeddings` of shape "
        "(24, 8), got (23,). Give one integer a row.",
    ),
    "labels beyond int32": (
        ValueError,
        lambda x: losses.contrastive_loss(x, np.full(24, 9000000000)),
        "contrastive_loss: `labels` must fit int32, got 9000000000 (outside int32). "
        "Use np.unique(labels, return_inverse=True)[1].",
    ),
    "labels beyond int32 in a list": (
        ValueError,
        lambda x: losses.contrastive_loss(x, [0] * 23 + [-(2**31) - 1]),
        "contrastive_loss: `labels` must fit int32, got -2147483649 (outside int32). "
        "Use np.unique(labels, return_inverse=True)[1].",
    ),
    "labels in float32": (
        TypeError,
        lambda x: losses.batch_hard_triplet_loss(x, Y.astype(jnp.float32)),
        "batch_hard_triplet_loss: `labels` must be integer or bool, got float32. "
        "Encode classes as integers.",
    ),
    "labels as words": (
        TypeError,
        lambda x: losses.semi_hard_triplet_loss(x, ["cat"] * 24),
        "semi_hard_triplet_loss: `labels` must be integer or bool, got strings. Use "
        "np.unique(labels, return_inverse=True)[1].",
    ),
    "labels as objects": (
        TypeError,
        lambda x: losses.semi_hard_triplet_loss(x, np.array([None] * 24)),
        "semi_hard_triplet_loss: `labels` must be integer or bool, got object. Use "
        "np.unique(labels, return_inverse=True)[1].",
    ),
    "a label without a proxy": (
        ValueError,
        lambda x: losses.normalized_softmax_loss(x, [0] * 23 + [10], P),
        "normalized_softmax_loss: `labels` must lie in 0..9 to name a row of "
        "`proxies`, got 10. Use np.unique(labels, return_inverse=True)[1].",
    ),
    "a negative label with proxies": (
        ValueError,
        lambda x: losses.weighted_softmax_loss(x, np.array([0] * 23 + [-1]), P),
        "weighted_softmax_loss: `labels` must lie in 0..9 to name a row of `proxies`, "
        "got -1. Use np.unique(labels, return_inverse=True)[1].",
    ),
    "proxies of another width": (
        ValueError,
        lambda x: losses.normalized_softmax_loss(x, Y, P[:, :4]),
        "normalized_softmax_loss: `proxies` must have 8 columns like `embeddings`, got "
        "shape (10, 4). Make the head's width match.",
    ),
    "embeddings of integers": (
        TypeError,
        lambda x: losses.contrastive_loss(x.astype(jnp.int32), Y),
        "contrastive_loss: `embeddings` must be floating point, got int32. Use "
        "embeddings.astype(jnp.float32).",
    ),
    "embeddings with an axis too many": (
        ValueError,
        lambda x: losses.contrastive_loss(x[None], Y),
        "contrastive_loss: `embeddings` must have shape (rows, dim), got (1, 24, 8). "
        "Use jax.vmap for more axes.",
    ),
    "embeddings of one axis": (
        ValueError,
        lambda x: losses.contrastive_loss(x[:, 0], Y),
        "contrastive_loss: `embeddings` must have shape (rows, dim), got (24,). Use "
        "embeddings[:, None] for rows of one number.",
    ),
    "no rows": (
        ValueError,
        lambda x: losses.batch_hard_triplet_loss(x[:0], Y[:0]),
        "batch_hard_triplet_loss: `embeddings` must have at least one row and one "
        "column, got shape (0, 8). Leave the call out when there is nothing to "
        "compare.",
    ),
    "no columns": (
        ValueError,
        lambda x: losses.batch_hard_triplet_loss(x[:, :0], Y),
        "batch_hard_triplet_loss: `embeddings` must have at least one row and one "
        "column, got shape (24, 0). Leave the call out when there is nothing to "
        "compare.",
    ),
    "a negative temperature": (
        ValueError,
        lambda x: losses.nt_xent_loss(x, Y, temperature=-0.1),
        "nt_xent_loss: `temperature` must be > 0, got -0.1. Typical values are 0.05 to "
        "0.5.",
    ),
    "a temperature of zero": (
        ValueError,
        lambda x: losses.normalized_softmax_loss(x, Y, P, temperature=0),
        "normalized_softmax_loss: `temperature` must be > 0, got 0. Typical values are "
        "0.05 to 0.5.",
    ),
    "a margin of NaN": (
        ValueError,
        lambda x: losses.batch_all_triplet_loss(x, Y, margin=float("nan")),
        "batch_all_triplet_loss: `margin` must be a finite number, got nan. Give a "
        "finite number.",
    ),
    "a margin in words": (
        ValueError,
        lambda x: losses.batch_hard_triplet_loss(x, Y, margin="0.2"),
        "batch_hard_triplet_loss: `margin` must be a finite number, got '0.2'. Give a "
        "finite number.",
    ),
    "a reduction that does not exist": (
        ValueError,
        lambda x: losses.batch_hard_triplet_loss(x, Y, reduction="avg"),
        f"batch_hard_triplet_loss: `reduction` must be one of {ALL}, got 'avg'. Use "
        "'mean'.",
    ),
    "a reduction of None": (
        ValueError,
        lambda x: losses.contrastive_loss(x, Y, reduction=None),
        f"contrastive_loss: `reduction` must be one of {ALL}, got None. Use 'none'.",
    ),
    "a reduction in triplet_margin_loss": (
        ValueError,
        lambda x: losses.triplet_margin_loss(x, x, x, reduction="mean_activ"),
        f"triplet_margin_loss: `reduction` must be one of {ALL}, got 'mean_activ'. Use "
        "'mean_active'.",
    ),
    "a block size of zero": (
        ValueError,
        lambda x: losses.batch_all_triplet_loss(x, Y, block_size=0),
        "batch_all_triplet_loss: `block_size` must be a positive int or None, got 0. "
        "Use None to let the library choose.",
    ),
    "a block size of True": (
        ValueError,
        lambda x: losses.contrastive_loss(x, Y, block_size=True),
        "contrastive_loss: `block_size` must be a positive int or None, got True. Use "
        "None to let the library choose.",
    ),
    "a distance that does not exist": (
        ValueError,
        lambda x: losses.semi_hard_triplet_loss(x, Y, distance="euclid"),
        f"semi_hard_triplet_loss: `distance` must be one of {DISTANCES}, got 'euclid'. "
        "Use 'euclidean'.",
    ),
    "a distance in pairwise_distance": (
        ValueError,
        lambda x: jm.pairwise_distance(x, distance="l1"),
        f"pairwise_distance: `distance` must be one of {DISTANCES}, got 'l1'. Use "
        "'euclidean'.",
    ),
    "a legacy precision": (
        ValueError,
        lambda x: jm.pairwise_distance(x, precision="bfloat16_3x"),
        "pairwise_distance: `precision` must be 'default', 'high', 'highest' or a "
        "lax.DotAlgorithmPreset, got 'bfloat16_3x'. Use 'highest'.",
    ),
    "where of integers": (
        TypeError,
        lambda x: losses.supervised_contrastive_loss(x, Y, where=Y),
        "supervised_contrastive_loss: `where` must be bool, got int32. Use where > 0 "
        "if nonzero means that the row exists.",
    ),
    "where of another length": (
        ValueError,
        lambda x: losses.batch_hard_triplet_loss(x, Y, where=B[:5]),
        "batch_hard_triplet_loss: `where` must have shape (24,) to match `embeddings` "
        "of shape (24, 8), got (5,). Give one bool a row.",
    ),
    "weights of another length": (
        ValueError,
        lambda x: losses.contrastive_loss(x, Y, weights=jnp.ones(5)),
        "contrastive_loss: `weights` must have shape (24,), got (5,). Give one "
        "non-negative number a row.",
    ),
    "ids as a column": (
        ValueError,
        lambda x: losses.contrastive_loss(x, Y, ids=Y[:, None]),
        "contrastive_loss: `ids` must have shape (24,) to match `embeddings` of shape "
        "(24, 8), got (24, 1). Use ids[:, 0].",
    ),
    "references of another width": (
        ValueError,
        lambda x: losses.nt_xent_loss(x, Y, ref_embeddings=P[:, :4], ref_labels=Y[:10]),
        "nt_xent_loss: `ref_embeddings` must have 8 columns like `embeddings`, got "
        "shape (10, 4). Embed both sides to the same width.",
    ),
    "labels of the references of another length": (
        ValueError,
        lambda x: losses.nt_xent_loss(x, Y, ref_embeddings=P, ref_labels=Y),
        "nt_xent_loss: `ref_labels` must have shape (10,) to match `ref_embeddings` of "
        "shape (10, 8), got (24,). Give one integer a row.",
    ),
    "distances of sets of two widths": (
        ValueError,
        lambda x: jm.pairwise_distance(x, P[:, :4]),
        "pairwise_distance: `y` must have 8 columns like `x`, got shape (10, 4). Embed "
        "both sides to the same width.",
    ),
    "pairs of two lengths": (
        ValueError,
        lambda x: jm.paired_distance(x, P),
        "paired_distance: `y` must have shape (24, 8) like `x`, got (10, 8). Use "
        "pairwise_distance for all pairs of two sets.",
    ),
    "integers to normalise": (
        TypeError,
        lambda x: jm.l2_normalize(x.astype(jnp.int32)),
        "l2_normalize: `x` must be floating point, got int32. Use "
        "x.astype(jnp.float32).",
    ),
    "triplets of two shapes": (
        ValueError,
        lambda x: losses.triplet_margin_loss(x, x[:5], x),
        "triplet_margin_loss: `positives` must have shape (24, 8) like `anchors`, got "
        "(5, 8). Use triplet_loss for triplets given by index.",
    ),
    "labels of a miner": (
        ValueError,
        lambda x: miners.batch_hard(x, Y[:, None]),
        "batch_hard: `labels` must have shape (24,) to match `embeddings` of shape "
        "(24, 8), got (24, 1). Use labels[:, 0].",
    ),
    "float labels of a miner": (
        TypeError,
        lambda x: miners.semi_hard(x, jnp.zeros(24)),
        "semi_hard: `labels` must be integer or bool, got float32. Encode classes as "
        "integers.",
    ),
}

# What no document spells out: the template, the function and the argument are asserted.
BAD_CALLS_OF_THE_TEMPLATE = {
    "is_positive of floats": (
        TypeError,
        lambda x: losses.pair_loss(x, x, x[:, 0]),
        ("pair_loss", "is_positive"),
    ),
    "is_positive of another length": (
        ValueError,
        lambda x: losses.pair_loss(x, x, B[:5]),
        ("pair_loss", "is_positive"),
    ),
    "pairs of another length": (
        ValueError,
        lambda x: losses.pair_loss(x, P, B),
        ("pair_loss", "y"),
    ),
    "a margin of two axes": (
        ValueError,
        lambda x: losses.contrastive_loss(x, Y, margin=jnp.ones((24, 1))),
        ("contrastive_loss", "margin"),
    ),
    "a complex margin": (
        TypeError,
        lambda x: losses.contrastive_loss(x, Y, margin=jnp.ones((), jnp.complex64)),
        ("contrastive_loss", "margin"),
    ),
    "no labels for the references": (
        ValueError,
        lambda x: losses.nt_xent_loss(x, Y, ref_embeddings=P),
        ("nt_xent_loss", "ref_labels"),
    ),
    "labels for no references": (
        ValueError,
        lambda x: losses.nt_xent_loss(x, Y, ref_labels=Y),
        ("nt_xent_loss", "ref_"),
    ),
    "where for no references": (
        ValueError,
        lambda x: losses.batch_hard_triplet_loss(x, Y, ref_where=B),
        ("batch_hard_triplet_loss", "ref_"),
    ),
    "class weights of another length": (
        ValueError,
        lambda x: losses.weighted_softmax_loss(x, Y, P, class_weights=jnp.ones(3)),
        ("weighted_softmax_loss", "class_weights"),
    ),
    "a negative scale": (
        ValueError,
        lambda x: losses.supervised_contrastive_loss(x, Y, temperature=-1.0),
        ("supervised_contrastive_loss", "temperature"),
    ),
    "labels of one axis too few": (
        ValueError,
        lambda x: losses.contrastive_loss(x, jnp.int32(3)),
        ("contrastive_loss", "labels"),
    ),
    "no triplets to draw": (
        ValueError,
        lambda x: miners.random_triplets(jax.random.key(0), Y, num_triplets=0),
        ("random_triplets", "num_triplets"),
    ),
    "a callable distance of another shape": (
        ValueError,
        lambda x: losses.contrastive_loss(x, Y, distance=lambda x, y: x),
        ("contrastive_loss", "distance"),
    ),
    "triplets that are no triplets": (
        (ValueError, TypeError),
        lambda x: losses.triplet_loss(x, jnp.zeros((5, 3), jnp.int32)),
        ("triplet_loss", "triplets"),
    ),
    "reduce by a name that does not exist": (
        ValueError,
        lambda x: jm.reduce(jm.LossStats(x[:, 0], Y, Y), "average"),
        ("reduce", "reduction"),
    ),
}


def _ways(call):
    """Return the call made eagerly, compiled, and differentiated."""
    return (lambda: call(X), lambda: jax.jit(call)(X), lambda: jax.eval_shape(call, X))


@pytest.mark.parametrize("mistake", BAD_CALLS)
def test_a_mistake_is_told_in_full_eager_and_under_jit(mistake):
    kind, call, text = BAD_CALLS[mistake]
    for way in _ways(call):
        with pytest.raises(kind) as told:
            way()
        assert str(told.value) == text
        assert type(told.value) is kind


@pytest.mark.parametrize("mistake", BAD_CALLS_OF_THE_TEMPLATE)
def test_a_mistake_is_told_by_the_template(mistake):
    kind, call, (function, argument) = BAD_CALLS_OF_THE_TEMPLATE[mistake]
    template = rf"^{function}: `{argument}\w*` must [^.].*, got .+\. [A-Z].*\.$"
    for way in _ways(call):
        with pytest.raises(kind) as told:
            way()
        assert re.match(template, str(told.value)), str(told.value)


def test_data_never_raises():
    """Arrays may hold anything: values are seen in the result, not in an error."""
    x = jnp.full((4, 2), jnp.nan)
    y = jnp.array([0, 0, 1, 1])
    assert jnp.isnan(losses.contrastive_loss(x, y, margin=jnp.array(-1.0)))
    losses.nt_xent_loss(jnp.ones((4, 2)), y, temperature=jnp.array(0.0))
    outside = jnp.array([0, 0, 1, 99])
    assert jnp.isnan(
        losses.normalized_softmax_loss(jnp.ones((4, 2)), outside, P[:, :2])
    )


def test_labels_of_any_kind_of_integer_are_alike():
    x = jax.random.normal(jax.random.key(0), (6, 3))
    y = [0, 1, 0, 1, 1, 0]
    want = losses.contrastive_loss(x, jnp.array(y))
    for labels in (
        y,
        np.array(y, np.int64),
        np.array(y, np.uint8),
        np.array(y, bool),
        jnp.array(y, bool),
        jnp.array(y, jnp.int8),
        np.array(y, np.uint64),
    ):
        assert losses.contrastive_loss(x, labels) == want
