"""Pair losses and those of pytorch-metric-learning that are the same number.

It averages the positive and the negative side of a pair loss apart. Ours pools them;
one call for each side, with weight 0 for the other, gives the two means (sheet of the
reductions: a side of weight 0 has no active term), and a sum needs nothing of the kind.
"""

from collections.abc import Callable
from typing import Any

import jax
from peer_registry import peer

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses


def side_by_side(**options: Any) -> Callable[..., jax.Array]:
    """Return `contrastive_loss` as the mean of one side plus the mean of the other."""

    def loss(x: jax.Array, y: jax.Array, **side: Any) -> jax.Array:
        shared = {"squared": False, "reduction": "mean_active", **options, **side}
        positive = losses.contrastive_loss(x, y, negative_weight=0.0, **shared)
        return positive + losses.contrastive_loss(x, y, positive_weight=0.0, **shared)

    return loss


def _snr(
    margin: float, positive_margin: float, zero_mean_weight: float = 0.0
) -> Callable[..., jax.Array]:
    """Return `snr_contrastive_loss`, side by side.

    It has no weights of sides: a margin far out of reach leaves one without active
    terms. A ratio of variances is never below 0, nor above a million here.
    """

    def loss(x: jax.Array, y: jax.Array, **side: Any) -> jax.Array:
        def only(**options: float) -> jax.Array:
            return losses.snr_contrastive_loss(
                x, y, reduction="mean_active", **options, **side
            )

        positive = only(positive_margin=positive_margin, margin=-1.0)
        return positive + only(
            positive_margin=1e6, margin=margin, zero_mean_weight=zero_mean_weight
        )

    return loss


peer(
    "contrastive_loss",
    side_by_side(positive_margin=0.3, margin=1.5),
    lambda p: p.losses.ContrastiveLoss(0.3, 1.5, distance=p.euclidean),
    "ContrastiveLoss",
)
peer(
    "contrastive_loss (cosine)",
    side_by_side(distance="cosine", positive_margin=1 - 0.9, margin=1 - 0.2),
    lambda p: p.losses.ContrastiveLoss(0.9, 0.2, distance=p.cosine),
    "ContrastiveLoss",
)
peer(
    "contrastive_loss (pooled)",
    lambda x, y, **side: losses.contrastive_loss(
        x, y, margin=1.5, squared=False, reduction="sum", **side
    ),
    lambda p: p.losses.ContrastiveLoss(0, 1.5, distance=p.euclidean, reducer=p.sum),
    "ContrastiveLoss",
)
peer(
    "cosine_embedding_loss",
    lambda x, y, **side: losses.cosine_embedding_loss(
        x, y, margin=0.1, reduction="sum", **side
    ),
    lambda p: p.losses.ContrastiveLoss(1, 0.1, distance=p.cosine, reducer=p.sum),
    "ContrastiveLoss",
)
peer(
    "lifted_structure_loss",
    losses.lifted_structure_loss,
    lambda p: p.losses.LiftedStructureLoss(distance=p.euclidean),
    "LiftedStructureLoss",
    sides=("self",),
)
peer(
    "generalized_lifted_structure_loss",
    losses.generalized_lifted_structure_loss,
    lambda p: p.losses.GeneralizedLiftedStructureLoss(distance=p.euclidean),
    "GeneralizedLiftedStructureLoss",
    batches="both",
)
peer(
    "multi_similarity_loss",
    losses.multi_similarity_loss,
    lambda p: p.losses.MultiSimilarityLoss(),
    "MultiSimilarityLoss",
)
peer(
    "multi_similarity_loss (euclidean)",
    lambda x, y, **side: losses.multi_similarity_loss(
        x, y, beta=20.0, base=-1.5, distance="euclidean", **side
    ),
    lambda p: p.losses.MultiSimilarityLoss(beta=20, base=1.5, distance=p.euclidean),
    "MultiSimilarityLoss",
)
peer(
    "circle_loss",
    lambda x, y, **side: losses.circle_loss(x, y, reduction="mean_active", **side),
    lambda p: p.losses.CircleLoss(),
    "CircleLoss",
)
peer(
    "circle_loss (faces)",
    lambda x, y, **side: losses.circle_loss(
        x, y, m=0.25, gamma=256.0, reduction="mean_active", **side
    ),
    lambda p: p.losses.CircleLoss(m=0.25, gamma=256),
    "CircleLoss",
)
peer(
    "intra_pair_variance_loss",
    losses.intra_pair_variance_loss,
    lambda p: p.losses.IntraPairVarianceLoss(),
    "IntraPairVarianceLoss",
)
peer(
    "intra_pair_variance_loss (euclidean)",
    lambda x, y, **side: losses.intra_pair_variance_loss(
        x,
        y,
        positive_epsilon=0.05,
        negative_epsilon=0.02,
        distance="euclidean",
        **side,
    ),
    lambda p: p.losses.IntraPairVarianceLoss(0.05, 0.02, distance=p.euclidean),
    "IntraPairVarianceLoss",
)
peer(
    "snr_contrastive_loss",
    _snr(margin=1.5, positive_margin=0.2),
    lambda p: p.losses.SignalToNoiseRatioContrastiveLoss(
        pos_margin=0.2, neg_margin=1.5, distance=p.snr
    ),
    "SignalToNoiseRatioContrastiveLoss",
)
peer(
    "snr_contrastive_loss (zero mean)",
    _snr(margin=1.5, positive_margin=0.2, zero_mean_weight=0.3),
    lambda p: p.losses.SignalToNoiseRatioContrastiveLoss(
        pos_margin=0.2,
        neg_margin=1.5,
        distance=p.snr,
        embedding_regularizer=p.regularizers.ZeroMeanRegularizer(),
        embedding_reg_weight=0.3,
    ),
    "SignalToNoiseRatioContrastiveLoss",
)
peer(
    "ranked_list_loss",
    lambda x, y: losses.ranked_list_loss(x, y, negative_temperature=4.0),
    lambda p: p.losses.RankedListLoss(0.4, 4, distance=p.euclidean),
    "RankedListLoss",
    sides=("self",),
    is_unit=True,
    difference="theirs adds 1e-5 a column to the sum of the weights",
    bound=1e-3,
)
peer(
    "threshold_consistent_margin_loss",
    losses.threshold_consistent_margin_loss,
    lambda p: p.losses.ThresholdConsistentMarginLoss(),
    "ThresholdConsistentMarginLoss",
    sides=("self",),
)
peer(
    "histogram_loss",
    losses.histogram_loss,
    lambda p: p.losses.HistogramLoss(),
    "HistogramLoss",
    sides=("self",),
    batches="both",
)
