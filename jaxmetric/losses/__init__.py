"""The catalogue of losses: each a formula over one row of a distance matrix.

Arrays come first, everything else is keyword-only. What most losses share:

  labels: [batch] integer classes, of which only equality is used; or a
    `jaxmetric.Relation`, masks [batch, n] of positive and negative pairs. A loss that
    needs classes (proxies, centres) refuses it.
  distance: "euclidean", "sqeuclidean", "cosine", "dot", "manhattan", or a callable
    (x[m, dim], y[n, dim]) -> [m, n]; a loss of angles has none to choose.
  precision: of matrix products; "highest" by default, see `pairwise_distance`.
  where: [batch] bool, which rows exist. A masked row contributes exactly nothing, even
    if it holds NaN; an existing row that is not finite makes the loss NaN.
  weights: [batch], how much an anchor counts; means become weighted means, whatever the
    scale of the weights. They do not act on references.
  ids, ref_ids: [batch], [n] integers that name the samples behind the rows: equal ids
    are neither positive nor negative to each other, whatever their labels.
  ref_embeddings, ref_labels, ref_where: [n, dim], [n], [n], the other side of the
    comparison (a memory bank, another tower). Without it the batch is compared with
    itself, and the pair of a row with itself is left out by index.
  reduction: "mean" over valid terms, "mean_active" over terms above 0,
    "mean_per_anchor", "sum", or "none" for a `LossStats`; see `jaxmetric.reduce`.
  block_size: how many rows are computed together; None lets the library choose. The
    result is the same to rounding, forward, backward and beyond.
  axis_name: inside a mapped region (`jax.shard_map`), the axis over which batch and
    references are shards of the global ones: they are gathered, and the result is the
    global one. "none" stays local.

A margin is a number, a scalar array, or one number an anchor [batch]. Hyper-parameters
may be traced: `jax.vmap(lambda m: loss(x, y, margin=m))(margins)` shares the distances.

Without any valid term (one class, all labels different, one row, every row masked) a
loss is exactly 0 with a gradient of exactly 0, unless its docstring says otherwise.
"""

from jaxmetric.losses import (
    cross_modal,
    cross_modal_triplets,
    pairs,
    pairs_cosine,
    pairs_distributions,
    pairs_histogram,
    pairs_lifted,
    pairs_ranked,
    pairs_snr,
    pairs_weighted,
    proxies,
    proxies_angular,
    proxies_centers,
    proxies_classes,
    proxies_distances,
    proxies_manifold,
    proxies_margins,
    proxies_sums,
    ranking,
    ranking_histogram,
    softmax,
    softmax_neighbours,
    softmax_tuplets,
    triplets,
    triplets_angular,
    triplets_clusters,
    triplets_dynamic,
    triplets_equidistant,
    triplets_mined,
    triplets_semi_hard,
    triplets_separable,
    unlabelled,
    unlabelled_correlation,
)
from jaxmetric.losses.cross_modal import *
from jaxmetric.losses.cross_modal_triplets import *
from jaxmetric.losses.pairs import *
from jaxmetric.losses.pairs_cosine import *
from jaxmetric.losses.pairs_distributions import *
from jaxmetric.losses.pairs_histogram import *
from jaxmetric.losses.pairs_lifted import *
from jaxmetric.losses.pairs_ranked import *
from jaxmetric.losses.pairs_snr import *
from jaxmetric.losses.pairs_weighted import *
from jaxmetric.losses.proxies import *
from jaxmetric.losses.proxies_angular import *
from jaxmetric.losses.proxies_centers import *
from jaxmetric.losses.proxies_classes import *
from jaxmetric.losses.proxies_distances import *
from jaxmetric.losses.proxies_manifold import *
from jaxmetric.losses.proxies_margins import *
from jaxmetric.losses.proxies_sums import *
from jaxmetric.losses.ranking import *
from jaxmetric.losses.ranking_histogram import *
from jaxmetric.losses.softmax import *
from jaxmetric.losses.softmax_neighbours import *
from jaxmetric.losses.softmax_tuplets import *
from jaxmetric.losses.triplets import *
from jaxmetric.losses.triplets_angular import *
from jaxmetric.losses.triplets_clusters import *
from jaxmetric.losses.triplets_dynamic import *
from jaxmetric.losses.triplets_equidistant import *
from jaxmetric.losses.triplets_mined import *
from jaxmetric.losses.triplets_semi_hard import *
from jaxmetric.losses.triplets_separable import *
from jaxmetric.losses.unlabelled import *
from jaxmetric.losses.unlabelled_correlation import *

_FAMILIES = (
    cross_modal,
    cross_modal_triplets,
    pairs,
    pairs_cosine,
    pairs_distributions,
    pairs_histogram,
    pairs_lifted,
    pairs_ranked,
    pairs_snr,
    pairs_weighted,
    proxies,
    proxies_angular,
    proxies_centers,
    proxies_classes,
    proxies_distances,
    proxies_manifold,
    proxies_margins,
    proxies_sums,
    ranking,
    ranking_histogram,
    softmax,
    softmax_neighbours,
    softmax_tuplets,
    triplets,
    triplets_angular,
    triplets_clusters,
    triplets_dynamic,
    triplets_equidistant,
    triplets_mined,
    triplets_semi_hard,
    triplets_separable,
    unlabelled,
    unlabelled_correlation,
)

__all__ = sorted(name for family in _FAMILIES for name in family.__all__)
