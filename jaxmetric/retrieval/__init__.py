"""Retrieval: how well nearest neighbours tell the classes, by rows of distances.

Shared arguments, said once:

  query, reference: [q, dim] and [n, dim] floating. Without `reference` the queries are
    compared with each other, each with all but itself (by index: duplicates stay).
  query_labels, reference_labels: [q], [n] integer; only equality is used.
  distance: a name or a callable; see `pairwise_distance`.
  where, ref_where: [q], [n] bool, which rows exist.
  block_size: queries computed together; None lets the library choose. It changes
    memory and time, not the result.
  axis_name: inside a mapped region: queries and references are shards of global ones.
    The references are gathered, counts are added before any division; a metric is
    then the global one, and neighbours are global indices for the local queries.

Distances are computed in float32 or wider, at the highest matrix-product precision,
and only their order matters: the whole matrix is never held.

A tie counts against: among equal distances the irrelevant references come first, so
that a collapsed model does not score by the order of the data.
"""

from jaxmetric.retrieval.episodes import FewShot, few_shot
from jaxmetric.retrieval.evaluation import evaluate
from jaxmetric.retrieval.neighbors import Neighbors, nearest_neighbors

__all__ = ["FewShot", "Neighbors", "evaluate", "few_shot", "nearest_neighbors"]
