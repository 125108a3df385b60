"""The catalogue of losses: each a formula over one row of a distance matrix.

Arrays come first, everything else is keyword-only. What most losses share:

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
    pairs,
    proxies,
    softmax,
    triplets,
    triplets_mined,
    triplets_semi_hard,
)
from jaxmetric.losses.pairs import *
from jaxmetric.losses.proxies import *
from jaxmetric.losses.softmax import *
from jaxmetric.losses.triplets import *
from jaxmetric.losses.triplets_mined import *
from jaxmetric.losses.triplets_semi_hard import *

_FAMILIES = (pairs, proxies, softmax, triplets, triplets_mined, triplets_semi_hard)

__all__ = sorted(name for family in _FAMILIES for name in family.__all__)
