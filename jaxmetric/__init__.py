"""Deep metric learning in JAX: losses, miners, metrics and training that scale.

A loss is a pure function of embeddings and labels:

  >>> import jax, jax.numpy as jnp, jaxmetric as jm
  >>> embeddings = jm.l2_normalize(jax.random.normal(jax.random.key(0), (8, 4)))
  >>> labels = jnp.array([0, 0, 1, 1, 2, 2, 3, 3])
  >>> loss = jm.losses.batch_hard_triplet_loss(embeddings, labels, margin=0.2)
  >>> print(f"{loss:.3f}")
  1.043

It composes with every transformation, and a margin is an array like any other:

  >>> def loss_of(margin):
  ...     return jm.losses.batch_all_triplet_loss(embeddings, labels, margin=margin)
  >>> sweep = jax.vmap(loss_of)(jnp.array([0.1, 0.2, 0.4]))
  >>> print(*(f"{loss:.2f}" for loss in sweep))
  0.42 0.50 0.65

`jm.miners` choose triplets and pairs, `jm.retrieval` measures what an embedding is
worth, `jm.models`, `jm.data` and `jm.training` make one (they load on first use).
"""

import importlib
from typing import TYPE_CHECKING

from jaxmetric import losses as losses
from jaxmetric import miners as miners
from jaxmetric import regularizers as regularizers
from jaxmetric import retrieval as retrieval
from jaxmetric import sharding as sharding
from jaxmetric.distances import l2_normalize as l2_normalize
from jaxmetric.distances import paired_distance as paired_distance
from jaxmetric.distances import pairwise_distance as pairwise_distance
from jaxmetric.miners.dataset import HardNegatives as HardNegatives
from jaxmetric.miners.dataset import mine_dataset as mine_dataset
from jaxmetric.pairs import Pairs as Pairs
from jaxmetric.pairs import Triplets as Triplets
from jaxmetric.reductions import LossStats as LossStats
from jaxmetric.reductions import reduce as reduce
from jaxmetric.relations import Relation as Relation
from jaxmetric.relations import relation_from_multi_hot as relation_from_multi_hot
from jaxmetric.retrieval import Neighbors as Neighbors

if TYPE_CHECKING:
    from jaxmetric import data as data
    from jaxmetric import models as models
    from jaxmetric import training as training

__version__ = "0.1.0"

_LAZY = ("data", "models", "training")


def __getattr__(name: str):
    # Flax, Optax and the file formats load only for those who use them.
    if name in _LAZY:
        return importlib.import_module(f"jaxmetric.{name}")
    raise AttributeError(f"module 'jaxmetric' has no attribute {name!r}")
