"""What a run of pairs minimises: losses of queries and keys, and labelled ones."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

import jaxmetric as jm
from jaxmetric.cli.losses import Loss, resolve

# Hyper-parameters that the papers learn, by loss.
_LEARNED = {"sigmoid_contrastive_loss": ("scale", "bias")}


class PairedLoss(Loss):
    """A loss of two sides, row i of the one belonging to row i of the other.

    * A loss of queries and keys is given them, and of the arrays of the batch those
      that have the name of one of its parameters: `labels` and `ids`, equal ones of
      which are no negatives of each other, `scores`, `weights`.
    * A labelled loss compares the queries with the keys and the keys with the queries
      (`ref_embeddings`), and is the mean of both; rows without labels have their own.
    * A loss with proxies, or without `ref_embeddings`, takes both sides as one batch.
    """

    @property
    def is_paired(self) -> bool:
        """Whether the loss takes queries and keys."""
        return "queries" in self._parameters

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that the loss takes first."""
        kinds = self._parameters.values()
        return tuple(p.name for p in kinds if p.kind is p.POSITIONAL_OR_KEYWORD)

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(getattr(jm.losses, self.name)).parameters

    def learned(self) -> dict[str, Any]:
        """Return what the loss learns besides proxies; a factor by its logarithm."""
        if self.name not in _LEARNED:
            return {}
        scale, bias = (float(self.settings[name]) for name in _LEARNED[self.name])
        return {"log_scale": jnp.float32(math.log(scale)), "bias": jnp.float32(bias)}

    def loss_fn(self, mesh: Mesh | None = None) -> Callable[..., Any]:
        """Return what a training step minimises, see `make_train_step`.

        Its labels are the arrays of the batch by name.
        """
        # The number of centers is in the shape of the proxies, not an argument.
        hyper = {k: v for k, v in self.hyper.items() if k != "num_centers"}
        function = functools.partial(getattr(jm.losses, self.name), **hyper)
        if mesh is not None:
            function = jm.sharding.data_parallel(function, mesh=mesh)
        parts = self._of_pairs if self.is_paired else self._of_labels
        reduction: Any = self.settings.get("reduction")

        def loss_fn(loss_params: Any, embeddings: Any, rows: Any, ids: Any) -> Any:
            named = {"reduction": "none"} if self.has_stats else {}
            found = parts(
                functools.partial(function, **named), loss_params, embeddings, rows, ids
            )
            if not self.has_stats:
                return sum(found) / len(found)
            stats = jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)
            return jm.reduce(stats, reduction), stats

        return loss_fn

    def _of_pairs(
        self, function: Any, loss_params: Any, embeddings: Any, rows: Any, _: Any
    ) -> list[Any]:
        """Return the loss of queries and keys, the one part there is."""
        queries, keys = embeddings
        given = {name: rows[name] for name in rows if name in self._parameters}
        if self.name in _LEARNED:
            scale = jnp.exp(loss_params["log_scale"])
            given |= {"scale": scale, "bias": loss_params["bias"]}
        positional = [given.pop("scores")] if "scores" in given else []
        return [function(queries, keys, *positional, **given)]

    def _of_labels(
        self, function: Any, loss_params: Any, embeddings: Any, rows: Any, ids: Any
    ) -> list[Any]:
        """Return the losses of both directions, or the one of both sides together."""
        queries, keys = embeddings
        labels = rows.get("labels", ids)
        if self.has_proxies or "ref_embeddings" not in self._parameters:
            both = jnp.concatenate([queries, keys]), jnp.concatenate([labels, labels])
            proxies = (loss_params["proxies"],) if self.has_proxies else ()
            return [function(*both, *proxies)]
        return [
            function(x, labels, ref_embeddings=y, ref_labels=labels)
            for x, y in ((queries, keys), (keys, queries))
        ]


def resolve_paired(name: str, chosen: Mapping[str, Any]) -> PairedLoss:
    """Return the loss of a name, see `jaxmetric.cli.losses.resolve`.

    Where a loss may have both sides choose, they do unless it is forbidden.

    Raises:
      UsageError: see there.
    """
    loss = resolve(name, chosen, of_pairs=True)
    if "symmetric" in loss.settings and chosen.get("symmetric") is None:
        loss = resolve(name, {**chosen, "symmetric": True}, of_pairs=True)
    return PairedLoss(*loss)
