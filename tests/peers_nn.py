"""Losses of `torch.nn`, and the regularisers of pytorch-metric-learning.

Where a loss wants ready-made triplets, row i of the references is the positive of row i
and the one before it the negative; where it wants pairs, the even rows are positive.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from parity_batches import DIM, NUM_CENTERS, NUM_CLASSES
from peer_registry import peer

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses

FLAT, GROUPED = (NUM_CLASSES, DIM), (NUM_CLASSES, NUM_CENTERS, DIM)
CLASS_WEIGHTS = (0.5, 1.0, 2.0, 0.25, 1.5)


def _explicit(name: str, ours: Any, theirs: Any, peer_name: str, **facts: Any) -> None:
    facts = {"sides": ("references",), "batches": "paired"} | facts
    peer(name, ours, theirs, peer_name, **facts)


def _triplets(name: str, theirs: Any, peer_name: str, **options: Any) -> None:
    def ours(x: Any, labels: Any, ref_embeddings: Any, ref_labels: Any) -> Any:
        negatives = jnp.roll(ref_embeddings, 1, 0)
        return losses.triplet_margin_loss(x, ref_embeddings, negatives, **options)

    def build(library: Any) -> Any:
        loss = theirs(library.torch.nn)

        def call(x: Any, labels: Any, ref_emb: Any, ref_labels: Any) -> Any:
            return loss(x, ref_emb, library.torch.roll(ref_emb, 1, 0))

        return loss, call

    _explicit(name, ours, build, peer_name)


def _pairs(name: str, theirs: Any, peer_name: str, **options: Any) -> None:
    def ours(x: Any, labels: Any, ref_embeddings: Any, ref_labels: Any) -> Any:
        return losses.pair_loss(x, ref_embeddings, labels % 2 == 0, **options)

    def build(library: Any) -> Any:
        def call(x: Any, labels: Any, ref_emb: Any, ref_labels: Any) -> Any:
            return theirs(library.torch.nn, x, ref_emb, 1 - 2 * (labels % 2))

        return None, call

    _explicit(name, ours, build, peer_name)


def _hinge_embedding(nn: Any, x: Any, other: Any, sign: Any) -> Any:
    apart = nn.functional.pairwise_distance(x, other, eps=0)
    return nn.HingeEmbeddingLoss(margin=1.5)(apart, sign)


def _margin_ranking(nn: Any) -> Any:
    ranking = nn.MarginRankingLoss(margin=0.2)

    def loss(a: Any, p: Any, n: Any) -> Any:
        near, far = (nn.functional.pairwise_distance(a, b, p=1, eps=0) for b in (p, n))
        return ranking(far, near, near.new_ones(len(near)))

    return loss


def _soft_margin(nn: Any) -> Any:
    def loss(a: Any, p: Any, n: Any) -> Any:
        near, far = (nn.functional.pairwise_distance(a, b, eps=0) for b in (p, n))
        return nn.SoftMarginLoss()(far - near, near.new_ones(len(near)))

    return loss


def _cosine_distance(nn: Any) -> Any:
    return lambda x, y: 1 - nn.functional.cosine_similarity(x, y)


def _all_cosines(library: Any) -> Any:
    """CosineEmbeddingLoss of every ordered pair of the batch."""

    def call(x: Any, labels: Any) -> Any:
        i, j = library.torch.where(~library.torch.eye(len(x), dtype=bool))
        sign = 2 * (labels[i] == labels[j]).to(labels.dtype) - 1
        return library.torch.nn.CosineEmbeddingLoss(margin=0.1)(x[i], x[j], sign)

    return None, call


def _cross_entropy(library: Any) -> Any:
    nn = library.torch.nn
    holder = nn.Module()

    def call(x: Any, labels: Any) -> Any:
        weights = library.torch.tensor(CLASS_WEIGHTS, dtype=x.dtype)
        return nn.CrossEntropyLoss(weight=weights)(x @ holder.proxies.T, labels)

    return holder, call


def _squared_error(library: Any) -> Any:
    nn = library.torch.nn
    holder = nn.Module()

    def call(x: Any, labels: Any) -> Any:
        loss = nn.MSELoss(reduction="sum")(x, holder.proxies[labels])
        return loss / (2 * len(x))

    return holder, call


def _cosines(library: Any, x: Any, other: Any) -> Any:
    normalize = library.torch.nn.functional.normalize
    return normalize(x) @ normalize(other).T


def _both_ways(library: Any) -> Any:
    """Cross-entropy of rows and of columns, as for contrastive language-image pairs."""

    def call(x: Any, labels: Any, ref_emb: Any, ref_labels: Any) -> Any:
        logits = 5 * _cosines(library, x, ref_emb)
        loss = library.torch.nn.CrossEntropyLoss()
        return (loss(logits, labels) + loss(logits.T, labels)) / 2

    return None, call


def _binary(library: Any) -> Any:
    """A binary cross-entropy for every pair, summed over the keys of a query."""

    def call(x: Any, labels: Any, ref_emb: Any, ref_labels: Any) -> Any:
        logits = 10 * _cosines(library, x, ref_emb) - 10
        same = library.torch.eye(len(x), dtype=x.dtype)
        loss = library.torch.nn.BCEWithLogitsLoss(reduction="sum")
        return loss(logits, same) / len(x)

    return None, call


def _regularizer(name: str, ours: Any, theirs: Any, peer_name: str) -> None:
    """Compare a regulariser of rows, whether of embeddings or of proxies."""

    def build(library: Any) -> Any:
        holder, regularizer = library.torch.nn.Module(), theirs(library.regularizers)
        return holder, lambda x, labels: regularizer(holder.proxies)

    peer(
        f"regularizers.{name}",
        lambda x, labels, proxies: ours(proxies),
        build,
        peer_name,
        sides=("self",),
        parameter="proxies",
        is_transposed=False,
        proxies=GROUPED if name == "sparse_centers" else FLAT,
    )


_triplets(
    "triplet_margin_loss",
    lambda nn: nn.TripletMarginLoss(margin=0.2, eps=0),
    "torch TripletMarginLoss",
)
_triplets(
    "triplet_margin_loss (swap)",
    lambda nn: nn.TripletMarginLoss(margin=0.2, eps=0, swap=True),
    "torch TripletMarginLoss",
    swap=True,
)
_triplets(
    "triplet_margin_loss (cosine)",
    lambda nn: nn.TripletMarginWithDistanceLoss(
        distance_function=_cosine_distance(nn), margin=0.3
    ),
    "torch TripletMarginWithDistanceLoss",
    margin=0.3,
    distance="cosine",
)
_triplets(
    "triplet_margin_loss (manhattan)",
    _margin_ranking,
    "torch MarginRankingLoss",
    distance="manhattan",
)
_triplets("triplet_margin_loss (soft)", _soft_margin, "torch SoftMarginLoss", soft=True)
_pairs(
    "pair_loss (cosine)",
    lambda nn, *arrays: nn.CosineEmbeddingLoss(margin=0.1)(*arrays),
    "torch CosineEmbeddingLoss",
    distance="cosine",
    squared=False,
    margin=1 - 0.1,
)
_pairs(
    "pair_loss",
    _hinge_embedding,
    "torch HingeEmbeddingLoss",
    squared=False,
    margin=1.5,
)
peer(
    "cosine_embedding_loss (mean)",
    lambda x, y: losses.cosine_embedding_loss(x, y, margin=0.1),
    _all_cosines,
    "torch CosineEmbeddingLoss",
    sides=("self",),
)
peer(
    "weighted_softmax_loss",
    lambda x, y, proxies: losses.weighted_softmax_loss(
        x, y, proxies, class_weights=jnp.asarray(np.array(CLASS_WEIGHTS), x.dtype)
    ),
    _cross_entropy,
    "torch CrossEntropyLoss",
    sides=("self",),
    parameter="proxies",
    is_transposed=False,
    proxies=FLAT,
)
peer(
    "center_loss",
    losses.center_loss,
    _squared_error,
    "torch MSELoss",
    sides=("self",),
    parameter="proxies",
    is_transposed=False,
    proxies=FLAT,
)
_explicit(
    "info_nce_loss (symmetric)",
    lambda x, y, ref_embeddings, ref_labels: losses.info_nce_loss(
        x, ref_embeddings, temperature=0.2, symmetric=True
    ),
    _both_ways,
    "torch CrossEntropyLoss",
)
_explicit(
    "sigmoid_contrastive_loss",
    lambda x, y, ref_embeddings, ref_labels: losses.sigmoid_contrastive_loss(
        x, ref_embeddings
    ),
    _binary,
    "torch BCEWithLogitsLoss",
)
_regularizer(
    "lp",
    lambda rows: jm.regularizers.lp(rows, p=3, power=2),
    lambda r: r.LpRegularizer(p=3, power=2),
    "LpRegularizer",
)
_regularizer(
    "zero_mean",
    jm.regularizers.zero_mean,
    lambda r: r.ZeroMeanRegularizer(),
    "ZeroMeanRegularizer",
)
_regularizer(
    "center_invariant",
    jm.regularizers.center_invariant,
    lambda r: r.CenterInvariantRegularizer(),
    "CenterInvariantRegularizer",
)
_regularizer(
    "regular_face",
    jm.regularizers.regular_face,
    lambda r: r.RegularFaceRegularizer(),
    "RegularFaceRegularizer",
)
_regularizer(
    "sparse_centers",
    jm.regularizers.sparse_centers,
    lambda r: r.SparseCentersRegularizer(
        num_classes=NUM_CLASSES, centers_per_class=NUM_CENTERS
    ),
    "SparseCentersRegularizer",
)
