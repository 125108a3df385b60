"""What "auto" means for pairs, in one place."""

import dataclasses
from typing import NamedTuple

from jaxmetric.cli import defaults as of_classes
from jaxmetric.cli.options import TrainOptions
from jaxmetric.data import PairedDataset


class PairedDefaults(NamedTuple):
    """Defaults of pairs.

    Attributes:
      loss: name of the loss.
      dim: width of the embeddings.
      hidden: of an mlp.
      dropout: of an mlp with hidden layers.
      epochs: of training.
      batch_size: pairs in a batch, as far as there are so many.
      learning_rate: greatest step size.
    """

    loss: str
    dim: int = 64
    hidden: tuple[int, ...] = (512, 512)
    dropout: float = 0.5
    epochs: int = 70
    batch_size: int = 128
    learning_rate: float = 1e-3


# Chosen on a fifth of the training rows of Wikipedia's articles and of two views of
# digits. With categories: a MAP from the queries of 32 % and 82 %, where info_nce has
# 28 % and 69 %, supervised_contrastive 30 % and 81 %. Dropout, since a few thousand
# pairs are soon learned by heart.
PAIRS = PairedDefaults("info_nce", hidden=(512,), batch_size=256, learning_rate=2e-3)
CATEGORIES = PairedDefaults("smooth_ap")


def for_pairs(train: PairedDataset) -> PairedDefaults:
    """Return the defaults of pairs, which are others where they have categories."""
    return PAIRS if train.labels is None else CATEGORIES


def fill(options: TrainOptions, train: PairedDataset) -> TrainOptions:
    """Return the options with a value in place of every "auto" of the data."""
    auto, optimization = for_pairs(train), options.optimization
    if optimization.steps is None and optimization.epochs is None:
        optimization = dataclasses.replace(optimization, epochs=auto.epochs)
    if optimization.learning_rate is None:
        optimization = dataclasses.replace(
            optimization, learning_rate=auto.learning_rate
        )
    loss = options.loss
    if loss.name is None:
        loss = dataclasses.replace(loss, name=auto.loss)
    pairs = options.pairs
    if pairs.batch_size is None:
        size = min(auto.batch_size, len(train))
        pairs = dataclasses.replace(pairs, batch_size=size)
    return dataclasses.replace(
        options,
        optimization=optimization,
        loss=loss,
        pairs=pairs,
        augment=_augment(options, train),
    )


def _augment(options: TrainOptions, train: PairedDataset):
    """Return the section of the augmentation, filled where a side has images."""
    shapes = [x.shape[1:] for x in (train.query, train.key) if x.ndim == 4]
    augment = options.augment
    if not shapes or not augment.enabled:
        return augment
    auto = of_classes.for_inputs(shapes[0])
    names = ("shift", "rotation", "scale")
    missing = {n: getattr(auto, n) for n in names if getattr(augment, n) is None}
    return dataclasses.replace(augment, **missing)
