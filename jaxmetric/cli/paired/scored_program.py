"""The computations of a run of scored pairs: with triplets, three texts a row."""

from typing import Any

import jax.numpy as jnp

from jaxmetric import models
from jaxmetric.cli.paired.program import PairedProgram
from jaxmetric.training import as_functional
from jaxmetric.training.runs import accept_raw_inputs


class ScoredProgram(PairedProgram):
    """States and compiled functions of a run of scored pairs; see `PairedProgram`.

    Where the rows for the loss hold `negatives`, these are embedded too: the loss is
    given the embeddings of anchors, positives and negatives.
    """

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        if "negatives" in self._rows:
            self.embed_fn = _with_triplets(self.embed_fn, self.model, self.options)

    def _placed(self, train: Any) -> Any:
        """Return the training data on each device."""
        (query, key), rows = super()._placed(train)
        if "negatives" not in rows:
            return (query, key), rows
        return (query, key, rows["negatives"]), {"scores": jnp.zeros(len(train))}


def _with_triplets(embed_pairs: Any, model: Any, options: Any) -> Any:
    """Return an encoder of two inputs that takes three as well."""
    from flax import nnx

    def make() -> nnx.Module:
        rngs = nnx.Rngs(options.run.seed)
        section = {**model["query"], "dim": model["dim"]}
        return models.TripletTowers(models.build(section, rngs))

    embed_triplets, _, _ = as_functional(nnx.eval_shape(make))
    embed_triplets = accept_raw_inputs(embed_triplets)

    def embed(
        params: Any, model_state: Any, inputs: Any, *, key: Any, train: bool
    ) -> tuple[Any, Any]:
        chosen = embed_triplets if len(inputs) == 3 else embed_pairs
        return chosen(params, model_state, inputs, key=key, train=train)

    return embed
