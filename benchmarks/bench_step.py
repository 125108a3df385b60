"""Topic `step`: a whole training step on small images, against PyTorch's.

The encoder that is the default for images, batch-hard, Adam, 32 classes of 4: from the
row ids of a batch of bytes to new parameters.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import harness, peers_torch
from benchmarks.harness import Contestant
from benchmarks.results import Result
from benchmarks.settings import Settings
from benchmarks.training import M_PER_CLASS, NUM_CLASSES, RECIPES, Ours, Torch, Trainer

_SIDES = (28, 35)
# The one of which both compute the same number.
_RECIPE = RECIPES["batch_hard_triplet_loss"]
_SETTLE = 0.01


def step(settings: Settings) -> Iterator[Result]:
    """Seconds of a step by the side of the images; `--sizes` gives the sides."""
    for side in settings.sizes or _SIDES:
        yield from _race(settings, side)


def drawings(side: int, *, num_classes: int, m_per_class: int) -> tuple:
    """Return [n, side, side, 1] uint8 images of random strokes and their labels."""
    rng = np.random.default_rng(side)
    labels = np.repeat(np.arange(num_classes), m_per_class)
    bases = rng.random((num_classes, side, side, 1)) < 0.15
    flips = rng.random((len(labels), side, side, 1)) < 0.05
    images = np.where(bases[labels] ^ flips, 255, 0).astype(np.uint8)
    return images, labels.astype(np.int32)


def _race(settings: Settings, side: int) -> list[Result]:
    """Return the results for images of one size."""
    images, labels = drawings(side, num_classes=NUM_CLASSES, m_per_class=M_PER_CLASS)
    rows = np.arange(len(labels), dtype=np.int32)
    ours = Ours(images, labels, recipe=_RECIPE, seed=0, device=settings.device)
    trainers: list[Trainer] = [ours]
    if peers_torch.is_installed():
        trainers += [
            Torch(
                images,
                labels,
                recipe=_RECIPE,
                params=ours.params,
                is_channels_last=is_last,
            )
            for is_last in (False, True)
        ]
    # The first step of all has the same parameters, so the losses must agree.
    first = [float(trainer.step(rows)) for trainer in trainers]
    is_same = [abs(loss - first[0]) <= 1e-4 * abs(first[0]) for loss in first]
    contestants = [_contestant(trainer, rows) for trainer in trainers]
    timed = [c for c, same in zip(contestants, is_same, strict=True) if same]
    harness.interleave(timed, samples=settings.samples, seconds=settings.seconds)
    results = []
    for trainer, contestant, loss, same in zip(
        trainers, contestants, first, is_same, strict=True
    ):
        extra: dict[str, Any] = {"first_loss": loss}
        if same:
            extra["over_ours"] = harness.ratio(contestant, contestants[0])
        results.append(
            Result(
                "step",
                trainer.name,
                len(labels),
                64,
                workload=f"{side}x{side}",
                m_per_class=M_PER_CLASS,
                gradient=contestant.timing() if same else None,
                compile_seconds=trainer.compile_seconds or None,
                status="ok" if same else "not timed: another loss than ours",
                extra=extra,
            )
        )
    return results


def _contestant(trainer: Trainer, rows: np.ndarray) -> Contestant:
    """Return the step of a trainer, to be timed."""

    def call() -> None:
        trainer.step(rows)
        trainer.wait()

    settle = 0.0 if isinstance(trainer, Ours) else _SETTLE
    return Contestant(trainer.name, call, settle=settle)
