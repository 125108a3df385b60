"""Triplet losses and those of pytorch-metric-learning that are the same number."""

from typing import Any

import jax
from peer_registry import peer

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses

MARGIN = 0.2


def all_triplets(embeddings: jax.Array, labels: jax.Array, **options: Any) -> jax.Array:
    """Return `triplet_loss` of every triplet of the batch."""
    triplets = jm.miners.triplet_margin(embeddings, labels, margin=1e6)
    return losses.triplet_loss(embeddings, triplets, **options)


def semi_hard_triplets(
    embeddings: jax.Array, labels: jax.Array, **references: Any
) -> jax.Array:
    """Return `triplet_loss` of the triplets within the margin."""
    triplets = jm.miners.triplet_margin(
        embeddings, labels, margin=0.5, kind="semihard", **references
    )
    references.pop("ref_labels", None)
    return losses.triplet_loss(
        embeddings, triplets, margin=0.5, reduction="mean_active", **references
    )


def dynamic_soft_margin(
    embeddings: jax.Array, labels: jax.Array, **references: Any
) -> jax.Array:
    """Return the loss of a first batch, with every violation inside of the bins.

    Theirs has no place for one in the last bin, which a range of -2 to 2 can have.
    """
    return losses.dynamic_soft_margin_loss(
        embeddings, labels, min_value=-3.0, **references
    )


def _detached(library: Any) -> Any:
    """Theirs with the histogram cut off from the gradient, as in the authors' code."""

    class Detached(library.losses.DynamicSoftMarginLoss):
        def update_histogram(self, data: Any) -> None:
            super().update_histogram(data.detach())

    loss = Detached(min_val=-3.0)

    def first(x: Any, labels: Any, **side: Any) -> Any:
        loss.hist_ = library.torch.zeros(loss.num_bins)
        return loss(x, labels, **side)

    return loss, first


def _boundary(
    embeddings: jax.Array, labels: jax.Array, proxies: jax.Array, **options: Any
) -> jax.Array:
    """Return `margin_loss` with boundaries near 1, one a class or one in all."""
    beta = 1 + proxies / 8
    if proxies.shape == (1,):
        beta = beta[0]
    return losses.margin_loss(
        embeddings, labels, beta=beta, reduction="mean_active", **options
    )


def _their_boundary(library: Any, **options: Any) -> Any:
    loss = library.losses.MarginLoss(
        margin=MARGIN, distance=library.euclidean, learn_beta=True, **options
    )

    class Shifted(library.torch.nn.Module):
        pass

    holder = Shifted()

    def call(x: Any, labels: Any, **side: Any) -> Any:
        del loss.beta
        loss.beta = 1 + holder.proxies / 8
        return loss(x, labels, **side)

    return holder, call


def _boundaries(**options: Any) -> Any:
    return lambda library: _their_boundary(library, **options)


def _triplets(**options: Any) -> Any:
    return lambda library: library.losses.TripletMarginLoss(
        distance=library.euclidean, **options
    )


peer(
    "batch_all_triplet_loss",
    lambda x, y, **side: losses.batch_all_triplet_loss(x, y, margin=MARGIN, **side),
    _triplets(margin=MARGIN),
    "TripletMarginLoss",
)
peer(
    "batch_all_triplet_loss (cosine)",
    lambda x, y, **side: losses.batch_all_triplet_loss(
        x, y, margin=MARGIN, distance="cosine", **side
    ),
    lambda p: p.losses.TripletMarginLoss(margin=MARGIN, distance=p.cosine),
    "TripletMarginLoss",
)
peer(
    "batch_all_triplet_loss (soft)",
    lambda x, y, **side: losses.batch_all_triplet_loss(
        x, y, soft=True, reduction="mean", **side
    ),
    lambda p: p.losses.TripletMarginLoss(
        margin=0, smooth_loss=True, distance=p.euclidean, reducer=p.mean
    ),
    "TripletMarginLoss",
)
peer(
    "batch_hard_triplet_loss",
    lambda x, y, **side: losses.batch_hard_triplet_loss(x, y, margin=MARGIN, **side),
    lambda p: p.mined(
        p.miners.BatchHardMiner(distance=p.euclidean),
        p.losses.TripletMarginLoss(margin=MARGIN, distance=p.euclidean, reducer=p.mean),
    ),
    "BatchHardMiner",
)
peer(
    "batch_hard_triplet_loss (soft)",
    lambda x, y, **side: losses.batch_hard_triplet_loss(x, y, soft=True, **side),
    lambda p: p.mined(
        p.miners.BatchHardMiner(distance=p.euclidean),
        p.losses.TripletMarginLoss(
            margin=0, smooth_loss=True, distance=p.euclidean, reducer=p.mean
        ),
    ),
    "BatchHardMiner",
)
peer(
    "triplet_loss (swap)",
    lambda x, y: all_triplets(x, y, margin=MARGIN, swap=True, reduction="mean_active"),
    _triplets(margin=MARGIN, swap=True),
    "TripletMarginLoss",
    sides=("self",),
)
peer(
    "triplet_loss (semi-hard)",
    semi_hard_triplets,
    lambda p: p.mined(
        p.miners.TripletMarginMiner(
            margin=0.5, type_of_triplets="semihard", distance=p.euclidean
        ),
        p.losses.TripletMarginLoss(margin=0.5, distance=p.euclidean),
    ),
    "TripletMarginMiner",
)
peer(
    "angular_loss",
    lambda x, y, **side: losses.angular_loss(x, y, alpha=40.0, **side),
    lambda p: p.losses.AngularLoss(alpha=40),
    "AngularLoss",
    is_unit=True,
)
# Theirs is built of float32 boundaries; here both learn them in the dtype of the rows.
peer(
    "margin_loss (one boundary)",
    lambda x, y, **side: _boundary(x, y, margin=MARGIN, nu=0.1, **side),
    _boundaries(nu=0.1),
    "MarginLoss",
    batches="both",
    parameter="proxies",
    is_transposed=False,
    proxies=(1,),
)
peer(
    "margin_loss (one a class)",
    lambda x, y, **side: _boundary(x, y, margin=MARGIN, **side),
    _boundaries(num_classes=5),
    "MarginLoss",
    parameter="proxies",
    is_transposed=False,
    proxies=(5,),
)
peer(
    "dynamic_soft_margin_loss",
    dynamic_soft_margin,
    _detached,
    "DynamicSoftMarginLoss",
    is_unit=True,
)
