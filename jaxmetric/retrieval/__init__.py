"""Retrieval: how well nearest neighbours tell the classes, by rows of distances.

Shared arguments, said once:

  query, reference: [q, dim] and [n, dim] floating. Without `reference` the queries are
    compared with each other, each with all but itself (by index: duplicates stay).
  query_labels, reference_labels: [q], [n] integer; only equality is used.
  distance: a name or a callable; see `pairwise_distance`.
  where, ref_where: [q], [n] bool, which rows exist.
  block_size: queries computed together; None lets the library choose. It changes
    memory and time, not the result.
  reduction: "mean" over the queries that count, or "none" for a number a query: NaN
    where a query does not count. `per_class` and `bootstrap` take these.
  axis_name: inside a mapped region: queries and references are shards of global ones.
    No device holds the references of another: blocks of queries go round, and what
    was found comes back and is merged. A metric is the global one (that of the local
    queries with "none"), and neighbours are global indices for the local queries.

Distances are computed in float32 or wider, at the highest matrix-product precision,
and only their order matters: the whole matrix is never held.

A tie counts against: among equal distances the irrelevant references come first, so
that a collapsed model does not score by the order of the data.
"""

from jaxmetric.retrieval.classes import PerClass, per_class
from jaxmetric.retrieval.clusters import clustering
from jaxmetric.retrieval.episodes import FewShot, few_shot
from jaxmetric.retrieval.evaluation import evaluate
from jaxmetric.retrieval.gains import ndcg
from jaxmetric.retrieval.groups import cmc
from jaxmetric.retrieval.neighbors import Neighbors, nearest_neighbors
from jaxmetric.retrieval.reciprocal import rerank
from jaxmetric.retrieval.recommendation import recommendation
from jaxmetric.retrieval.resampling import Interval, bootstrap
from jaxmetric.retrieval.thresholds import verification
from jaxmetric.retrieval.votes import knn_accuracy

__all__ = [
    "FewShot",
    "Interval",
    "Neighbors",
    "PerClass",
    "bootstrap",
    "clustering",
    "cmc",
    "evaluate",
    "few_shot",
    "knn_accuracy",
    "ndcg",
    "nearest_neighbors",
    "per_class",
    "recommendation",
    "rerank",
    "verification",
]
