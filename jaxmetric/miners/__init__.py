"""Miners: which triplets or pairs of a batch a loss is to look at.

A miner returns indices in arrays of static shape with a `valid` flag, so it composes
with `jit`; slots without a result have index 0. Anchors index `embeddings`, the others
`ref_embeddings` (or `embeddings`, without them). Nothing is differentiated: a loss
that takes what a miner returns computes the chosen distances afresh. Equally good
candidates: the lowest index. A pair whose distance is not finite is never chosen.

Shared arguments are those of `jaxmetric.losses`; `labels` may be a `jaxmetric.Relation`
everywhere. Slots are in the order of anchor, then positive (other), then negative.
`size=None` returns a slot for everything that could be chosen, valid or not; a number
keeps the first valid ones. With `axis_name` anchors are those of the device, the others
index the references of all devices.
"""

from jaxmetric.miners.drawn import random_triplets as random_triplets
from jaxmetric.miners.extremes import batch_easy_hard as batch_easy_hard
from jaxmetric.miners.extremes import batch_hard as batch_hard
from jaxmetric.miners.histogram import uniform_histogram as uniform_histogram
from jaxmetric.miners.negatives import distance_weighted as distance_weighted
from jaxmetric.miners.negatives import semi_hard as semi_hard
from jaxmetric.miners.quantiles import hard_pairs as hard_pairs
from jaxmetric.miners.thresholds import multi_similarity as multi_similarity
from jaxmetric.miners.thresholds import pair_margin as pair_margin
from jaxmetric.miners.violations import angular as angular
from jaxmetric.miners.violations import triplet_margin as triplet_margin

__all__ = [
    "angular",
    "batch_easy_hard",
    "batch_hard",
    "distance_weighted",
    "hard_pairs",
    "multi_similarity",
    "pair_margin",
    "random_triplets",
    "semi_hard",
    "triplet_margin",
    "uniform_histogram",
]
