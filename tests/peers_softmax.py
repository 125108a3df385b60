"""Softmax and ranking losses, with those of pytorch-metric-learning that are the same.

A loss of theirs that decides by the order of the batch is the same number only for the
batches in the order that it wants ("own", "square").
"""

import math
from typing import Any

from peer_registry import peer

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses

peer(
    "nt_xent_loss",
    losses.nt_xent_loss,
    lambda p: p.losses.NTXentLoss(),
    "NTXentLoss",
)
peer(
    "nt_xent_loss (euclidean)",
    lambda x, y, **side: losses.nt_xent_loss(
        x, y, temperature=0.5, distance="euclidean", **side
    ),
    lambda p: p.losses.NTXentLoss(temperature=0.5, distance=p.euclidean),
    "NTXentLoss",
)
peer(
    "supervised_contrastive_loss",
    losses.supervised_contrastive_loss,
    lambda p: p.losses.SupConLoss(),
    "SupConLoss",
)
peer(
    "supervised_contrastive_loss (sqeuclidean)",
    lambda x, y, **side: losses.supervised_contrastive_loss(
        x, y, temperature=0.5, distance="sqeuclidean", **side
    ),
    lambda p: p.losses.SupConLoss(temperature=0.5, distance=p.sqeuclidean),
    "SupConLoss",
)
peer(
    "n_pairs_loss",
    losses.n_pairs_loss,
    lambda p: p.losses.NPairsLoss(distance=p.dot),
    "NPairsLoss",
    sides=("self",),
    batches="both",
)
peer(
    "n_pairs_loss (cosine)",
    lambda x, y: losses.n_pairs_loss(x, y, distance="cosine"),
    lambda p: p.losses.NPairsLoss(),
    "NPairsLoss",
    sides=("self",),
    batches="both",
)
peer(
    "tuplet_margin_loss",
    lambda x, y, **side: losses.tuplet_margin_loss(
        x, y, margin=math.radians(5.73), **side
    ),
    lambda p: p.losses.TupletMarginLoss(),
    "TupletMarginLoss",
)
peer(
    "nca_loss",
    lambda x, y, **side: losses.nca_loss(x, y, scale=0.7, **side),
    lambda p: p.losses.NCALoss(0.7, distance=p.sqeuclidean),
    "NCALoss",
)
peer(
    "nca_loss (cosine)",
    lambda x, y, **side: losses.nca_loss(x, y, scale=6.0, distance="cosine", **side),
    lambda p: p.losses.NCALoss(6, distance=p.cosine),
    "NCALoss",
)
peer(
    "info_nce_loss",
    lambda x, y, ref_embeddings, ref_labels: losses.info_nce_loss(
        x, ref_embeddings, temperature=0.2
    ),
    lambda p: p.losses.NTXentLoss(temperature=0.2),
    "NTXentLoss",
    sides=("references",),
    batches="keys",
)
peer(
    "instance_loss",
    lambda x, y: losses.instance_loss(x, y, gamma=4.0),
    lambda p: p.losses.InstanceLoss(gamma=4),
    "InstanceLoss",
    sides=("self",),
    batches="own",
)
peer(
    "fast_ap_loss",
    losses.fast_ap_loss,
    lambda p: p.losses.FastAPLoss(),
    "FastAPLoss",
    sides=("self",),
)
peer(
    "smooth_ap_loss",
    lambda x, y: losses.smooth_ap_loss(x, y, temperature=0.05),
    lambda p: p.losses.SmoothAPLoss(temperature=0.05),
    "SmoothAPLoss",
    sides=("self",),
    batches="square",
)
for _variant in ("O", "Ds", "Dq", "Iu", "Ib"):
    peer(
        f"pnp_loss ({_variant})",
        lambda x, y, variant=_variant: losses.pnp_loss(
            x, y, variant=variant, alpha=4.0, temperature=0.05
        ),
        lambda p, variant=_variant: p.losses.PNPLoss(
            alpha=4, anneal=0.05, variant=variant
        ),
        "PNPLoss",
        sides=("self",),
    )
