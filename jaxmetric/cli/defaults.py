"""What "auto" means: every default that depends on the kind of data, in one place."""

import dataclasses
from typing import Any, NamedTuple

from jaxmetric.cli import texts
from jaxmetric.cli.options import TrainOptions

__all__ = ["Defaults", "fill", "for_inputs"]


class Defaults(NamedTuple):
    """Defaults of one kind of data.

    Attributes:
      loss: a mined triplet loss.
      kind: of the encoder.
      dim: width of the embeddings.
      widths, hidden: of the encoder; None leaves them to its class.
      steps: training steps with the loss.
      warmup_epochs: epochs of softmax before it; batch_hard has its own number, since
        the hardest triplets of an untrained encoder pull everything together.
      batch_classes, m_per_class: P and K, as far as the data has so many.
      learning_rate: greatest step size.
      shift, rotation, scale: of the augmentation.
    """

    loss: str
    kind: str
    dim: int
    widths: tuple[int, ...] | None
    hidden: tuple[int, ...] | None
    steps: int
    warmup_epochs: int
    batch_hard_warmup_epochs: int
    batch_classes: int
    m_per_class: int
    learning_rate: float
    shift: float
    rotation: float
    scale: float


# ---- The table. Measured on two CPU cores; nothing else in the package has a say. ----

# Up to 16 pixels a side: scikit-learn's digits. More steps fit the eight classes that
# are trained on and retrieve the others worse.
_TINY_IMAGES = Defaults(
    loss="batch_all",
    kind="conv",
    dim=64,
    widths=None,
    hidden=None,
    steps=300,
    warmup_epochs=0,
    batch_hard_warmup_epochs=12,
    batch_classes=8,
    m_per_class=16,
    learning_rate=1e-3,
    shift=0.1,
    rotation=10.0,
    scale=0.1,
)
# Drawings and small photographs: Omniglot.
_IMAGES = Defaults(
    loss="semi_hard",
    kind="conv",
    dim=64,
    widths=None,
    hidden=None,
    steps=3000,
    warmup_epochs=0,
    batch_hard_warmup_epochs=12,
    batch_classes=32,
    m_per_class=4,
    learning_rate=3e-3,
    shift=0.1,
    rotation=15.0,
    scale=0.2,
)
# Rows of features, which no augmentation fits.
_FEATURES = Defaults(
    loss="batch_hard",
    kind="mlp",
    dim=64,
    widths=None,
    hidden=(256, 256),
    steps=1000,
    warmup_epochs=0,
    batch_hard_warmup_epochs=0,
    batch_classes=16,
    m_per_class=8,
    learning_rate=1e-3,
    shift=0.0,
    rotation=0.0,
    scale=0.0,
)
# Texts. A table of vectors takes greater steps than the layers of a network.
_TEXTS = _FEATURES._replace(loss="batch_all", steps=500, learning_rate=5e-3)
_DEEP_TEXTS = _TEXTS._replace(learning_rate=5e-4)
_TINY_SIDE = 16

# --------------------------------------------------------------------------------------


def for_inputs(input_shape: tuple[int, ...]) -> Defaults:
    """Return the defaults for examples of a shape, [h, w, c] or [d]."""
    if len(input_shape) == 1:
        return _FEATURES
    return _TINY_IMAGES if max(input_shape[:2]) <= _TINY_SIDE else _IMAGES


def fill(
    options: TrainOptions, input_shape: tuple[int, ...], class_sizes: list[int]
) -> TrainOptions:
    """Return the options with a value in place of every "auto" of the data.

    Args:
      options: as the user gave them.
      input_shape: of one example.
      class_sizes: number of rows of each class to train on.
    """
    auto = for_inputs(input_shape)
    if options.model.kind in texts.KINDS:
        auto = _TEXTS if options.model.kind == "words" else _DEEP_TEXTS
    loss = _filled(options.loss, name=auto.loss)
    model = options.model
    kind = model.kind or auto.kind
    model = _filled(
        model,
        kind=kind,
        dim=auto.dim,
        widths=auto.widths if kind == "conv" else None,
        hidden=(auto.hidden or (256, 256)) if kind == "mlp" else None,
        input_shape=input_shape,
    )
    optimization = _filled(
        options.optimization,
        batch_classes=min(auto.batch_classes, len(class_sizes)),
        m_per_class=min(auto.m_per_class, max(class_sizes)),
        learning_rate=auto.learning_rate,
        warmup_epochs=auto.batch_hard_warmup_epochs
        if loss.name.replace("-", "_").startswith("batch_hard")
        else auto.warmup_epochs,
    )
    if optimization.epochs is None:
        optimization = _filled(optimization, steps=auto.steps)
    augment = options.augment
    if augment.enabled and len(input_shape) == 3:
        augment = _filled(
            augment, shift=auto.shift, rotation=auto.rotation, scale=auto.scale
        )
    return dataclasses.replace(
        options,
        model=model,
        loss=loss,
        optimization=optimization,
        augment=augment,
    )


def _filled(section: Any, **values: Any) -> Any:
    """Return a section with values where it has None."""
    missing = {k: v for k, v in values.items() if getattr(section, k) is None}
    return dataclasses.replace(section, **missing)
