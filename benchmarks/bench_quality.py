"""Topic `quality`: seconds of training until new classes are told apart.

Recall@1 on characters that were held out, ours against PyTorch on the same split,
batches, encoder and cores, with the default loss for images (`--functions` takes the
others of `benchmarks.training`). The trainers take turns of some steps, so that a
disturbance of the machine meets them alike; measuring Recall@1 does not count.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jaxmetric as jm
from benchmarks import peers_torch
from benchmarks.bench_step import drawings
from benchmarks.results import Result
from benchmarks.settings import Settings
from benchmarks.training import (
    M_PER_CLASS,
    NUM_CLASSES,
    RECIPES,
    Ours,
    Recipe,
    Torch,
    Trainer,
)
from jaxmetric.retrieval import evaluate

_STEPS_A_TURN = 25
_FUNCTIONS = ("semi_hard_triplet_loss",)


@dataclass(eq=False)
class _Course:
    """How far a trainer has come.

    Attributes:
      seconds, cpu: of training, wall and of all threads, without compilation.
      curve: (steps, seconds, Recall@1) after every turn.
    """

    trainer: Trainer
    seconds: float = 0.0
    cpu: float = 0.0
    steps: int = 0
    curve: list[tuple[int, float, float]] = field(default_factory=list)


def quality(settings: Settings) -> Iterator[Result]:
    """Time to a Recall@1 of `settings.target` on held-out classes, by seed."""
    chosen = [RECIPES[name] for name in settings.functions or _FUNCTIONS]
    data = _load(settings.data)
    if data is None:
        text = "not run: give --data PATH or set JAXMETRIC_TEST_DATA"
        yield Result("quality", "jaxmetric", 0, 0, status=text)
        return
    assert data.labels is not None
    train_classes, held_out = jm.data.hold_out_classes(data.labels)
    train, test = data.select_classes(train_classes), data.select_classes(held_out)
    for recipe in chosen:
        for seed in range(settings.num_seeds):
            for course in _race(settings, train, test, recipe, seed):
                yield _result(settings, data, course, recipe, seed)


def _load(path: Path | None) -> jm.data.Dataset | None:
    """Return the data of an argument, or Omniglot in the folder of test data."""
    if path is None:
        folder = os.environ.get("JAXMETRIC_TEST_DATA")
        path = Path(folder, "omniglot_background.npz") if folder else None
    if path is not None and str(path) == "synthetic":
        images, labels = drawings(12, num_classes=48, m_per_class=8)
        names = tuple(str(k) for k in range(48))
        return jm.data.Dataset(images, labels, names, "synthetic")
    return None if path is None else jm.data.load(path)


def _race(
    settings: Settings,
    train: jm.data.Dataset,
    test: jm.data.Dataset,
    recipe: Recipe,
    seed: int,
) -> list[_Course]:
    """Train everybody until the target or the limit."""
    assert train.labels is not None
    sampler = jm.data.ClassSampler(
        train.labels, num_classes=NUM_CLASSES, m_per_class=M_PER_CLASS, seed=seed
    )
    ours = Ours(
        train.inputs, train.labels, recipe=recipe, seed=seed, device=settings.device
    )
    trainers: list[Trainer] = [ours]
    if peers_torch.is_installed():
        trainers += [
            Torch(
                train.inputs,
                train.labels,
                recipe=recipe,
                params=ours.params,
                is_channels_last=is_last,
            )
            for is_last in (False, True)
        ]
    courses = [_Course(trainer) for trainer in trainers]
    while open_courses := [c for c in courses if _is_open(settings, c)]:
        for course in open_courses:
            _take_turn(course, sampler)
            recall = _recall(course.trainer, test)
            course.curve.append((course.steps, course.seconds, recall))
    return courses


def _is_open(settings: Settings, course: _Course) -> bool:
    """Tell whether a trainer has neither reached the target nor used its time."""
    is_there = bool(course.curve) and course.curve[-1][2] >= settings.target
    return not is_there and course.seconds < settings.limit_seconds


def _take_turn(course: _Course, sampler: jm.data.ClassSampler) -> None:
    """Take some steps, timed together."""
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(course.steps, course.steps + _STEPS_A_TURN):
        course.trainer.step(sampler.batch(*divmod(number, sampler.steps_per_epoch)))
    course.trainer.wait()
    course.seconds += time.perf_counter() - wall
    course.cpu += time.process_time() - cpu
    course.steps += _STEPS_A_TURN


def _recall(trainer: Trainer, test: jm.data.Dataset) -> float:
    """Return Recall@1 of held-out images, each against all others."""
    embeddings = trainer.embed(test.inputs)
    assert test.labels is not None
    found = evaluate(embeddings, test.labels, ks=(1,))
    return float(found["recall_at_1"])


def _result(
    settings: Settings,
    data: jm.data.Dataset,
    course: _Course,
    recipe: Recipe,
    seed: int,
) -> Result:
    """Return how long a trainer took."""
    steps, seconds, recall = course.curve[-1]
    is_there = recall >= settings.target
    extra = {
        "seed": seed,
        "recipe": recipe.loss,
        "target": settings.target,
        "recall_at_1": recall,
        "steps": steps,
        "seconds": seconds,
        "cpu_seconds": course.cpu,
        "milliseconds_a_step": 1e3 * seconds / steps,
        "curve": course.curve,
    }
    return Result(
        "quality",
        course.trainer.name,
        NUM_CLASSES * M_PER_CLASS,
        64,
        workload=f"{data.name} {recipe.miner} seed {seed}",
        m_per_class=M_PER_CLASS,
        compile_seconds=course.trainer.compile_seconds or None,
        status="ok" if is_there else f"stopped at a Recall@1 of {recall:.3f}",
        extra=extra,
    )
