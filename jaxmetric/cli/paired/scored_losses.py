"""What a run of scored pairs minimises: losses of scores, triplets, and in a batch."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

import jaxmetric as jm
from jaxmetric.cli.losses import resolve
from jaxmetric.cli.paired.losses import PairedLoss

_OF_SCORES = ("predictions", "targets")
_OF_TRIPLETS = ("anchors", "positives", "negatives")


class ScoredLoss(PairedLoss):
    """A loss of pairs with scores; see `PairedLoss` for those that take no scores.

    * A loss of predictions and targets is given the cosines of the pairs and their
      scores from 0 to 1.
    * A loss of triplets is given those that were drawn by the scores.
    """

    @property
    def takes_scores(self) -> bool:
        """Whether the scores themselves are learned."""
        return self.arrays == _OF_SCORES or "scores" in self.arrays

    @property
    def is_triplets(self) -> bool:
        """Whether triplets are drawn before training."""
        return self.arrays == _OF_TRIPLETS

    def loss_fn(self, mesh: Mesh | None = None) -> Callable[..., Any]:
        """Return what a training step minimises; see `PairedLoss.loss_fn`."""
        if self.arrays not in (_OF_SCORES, _OF_TRIPLETS):
            return super().loss_fn(mesh)
        function = functools.partial(getattr(jm.losses, self.name), **self.hyper)
        if mesh is not None:
            function = jm.sharding.data_parallel(function, mesh=mesh)
        reduction: Any = self.settings.get("reduction")

        def loss_fn(loss_params: Any, embeddings: Any, rows: Any, ids: Any) -> Any:
            arrays = embeddings
            if not self.is_triplets:
                cosines = 1 - jm.paired_distance(*embeddings, distance="cosine")
                arrays = (cosines, rows["scores"])
            elif len(embeddings) == 2:  # a point, of which the watch asks
                arrays = (*embeddings, embeddings[1])
            if not self.has_stats:
                return function(*arrays)
            stats = function(*arrays, reduction="none")
            return jm.reduce(stats, reduction), stats

        return loss_fn


def resolve_scored(name: str, chosen: Mapping[str, Any]) -> ScoredLoss:
    """Return the loss of a name, see `jaxmetric.cli.losses.resolve`.

    Raises:
      UsageError: see there.
    """
    loss = resolve(name, chosen, of_pairs=True, of_scores=True)
    if "symmetric" in loss.settings and chosen.get("symmetric") is None:
        loss = resolve(
            name, {**chosen, "symmetric": True}, of_pairs=True, of_scores=True
        )
    return ScoredLoss(*loss)
