"""Losses of proxies and of views, with those of pytorch-metric-learning."""

import math
from typing import Any

import jax
from parity_batches import DIM, NUM_CENTERS, NUM_CLASSES
from peer_registry import peer

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses

FLAT, GROUPED = (NUM_CLASSES, DIM), (NUM_CLASSES, NUM_CENTERS, DIM)
_SIZES = {"num_classes": NUM_CLASSES, "embedding_size": DIM}


def _classes(name: str, **options: Any) -> Any:
    return lambda library: getattr(library.losses, name)(**_SIZES, **options)


def _of_proxies(name: str, ours: Any, **facts: Any) -> None:
    facts = {"sides": ("self",), "parameter": "W", "proxies": FLAT} | facts
    peer(name, ours, **facts)


def _manifold(library: Any) -> Any:
    """Theirs, inverting in the dtype of the rows: it converts to float32 by itself."""
    loss = library.losses.ManifoldLoss(l=DIM, K=NUM_CLASSES, margin=0.05)

    def call(x: Any, clusters: Any) -> Any:
        tensor, kept = library.torch.Tensor, library.torch.Tensor.float
        tensor.float = lambda self: self
        try:
            return loss(x, indices_tuple=clusters)
        finally:
            tensor.float = kept

    return loss, call


def _vicreg(library: Any) -> Any:
    loss = library.losses.VICRegLoss()
    return loss, lambda x, labels, ref_emb, ref_labels: loss(x, ref_emb=ref_emb)


def _vicreg_of_views(
    x: jax.Array, labels: jax.Array, ref_embeddings: jax.Array, ref_labels: jax.Array
) -> jax.Array:
    return losses.vicreg_loss(x, ref_embeddings)


_of_proxies(
    "normalized_softmax_loss",
    losses.normalized_softmax_loss,
    theirs=_classes("NormalizedSoftmaxLoss"),
    peer="NormalizedSoftmaxLoss",
)
_of_proxies(
    "arcface_loss",
    lambda x, y, **side: losses.arcface_loss(x, y, margin=math.radians(28.6), **side),
    theirs=_classes("ArcFaceLoss"),
    peer="ArcFaceLoss",
)
_of_proxies(
    "cosface_loss",
    losses.cosface_loss,
    theirs=_classes("CosFaceLoss"),
    peer="CosFaceLoss",
)
_of_proxies(
    "sphereface_loss",
    losses.sphereface_loss,
    theirs=_classes("SphereFaceLoss"),
    peer="SphereFaceLoss",
)
_of_proxies(
    "large_margin_softmax_loss",
    losses.large_margin_softmax_loss,
    theirs=_classes("LargeMarginSoftmaxLoss"),
    peer="LargeMarginSoftmaxLoss",
)
_of_proxies(
    "subcenter_arcface_loss",
    lambda x, y, **side: losses.subcenter_arcface_loss(
        x, y, margin=math.radians(28.6), **side
    ),
    theirs=_classes("SubCenterArcFaceLoss", sub_centers=NUM_CENTERS),
    peer="SubCenterArcFaceLoss",
    proxies=GROUPED,
)
_of_proxies(
    "soft_triple_loss",
    losses.soft_triple_loss,
    theirs=_classes("SoftTripleLoss", centers_per_class=NUM_CENTERS),
    peer="SoftTripleLoss",
    parameter="fc",
    proxies=GROUPED,
)
_of_proxies(
    "proxy_nca_loss",
    losses.proxy_nca_loss,
    theirs=lambda p: p.losses.ProxyNCALoss(**_SIZES, distance=p.sqeuclidean),
    peer="ProxyNCALoss",
    parameter="proxies",
    is_transposed=False,
)
_of_proxies(
    "proxy_nca_loss (unit rows)",
    lambda x, y, **side: losses.proxy_nca_loss(
        x, y, scale=6.0, distance="cosine", **side
    ),
    theirs=_classes("ProxyNCALoss", softmax_scale=3),
    peer="ProxyNCALoss",
    parameter="proxies",
    is_transposed=False,
)
_of_proxies(
    "proxy_anchor_loss",
    losses.proxy_anchor_loss,
    theirs=_classes("ProxyAnchorLoss"),
    peer="ProxyAnchorLoss",
    parameter="proxies",
    is_transposed=False,
)
# Theirs brings its proxies to length 1 in place, so that its gradient is at those.
_of_proxies(
    "p2s_grad_loss",
    losses.p2s_grad_loss,
    theirs=lambda p: p.losses.P2SGradLoss(DIM, NUM_CLASSES),
    peer="P2SGradLoss",
    parameter="weight",
    is_tangent=True,
)
_of_proxies(
    "manifold_loss",
    lambda x, y, **side: losses.manifold_loss(x, y, margin=0.05, **side),
    theirs=_manifold,
    peer="ManifoldLoss",
    parameter="proxies",
    is_transposed=False,
)
peer(
    "vicreg_loss",
    _vicreg_of_views,
    _vicreg,
    "VICRegLoss",
    sides=("references",),
    batches="paired",
)
