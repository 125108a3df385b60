"""Which models a sweep trains: every combination of what was asked for."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmetric.cli import losses
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import RunOptions, SweepOptions, TrainOptions
from jaxmetric.cli.values import suggestion

_DEFAULT_MARGINS = "0.05:1.0:16"
_MAX_MODELS = 10_000


class Point(NamedTuple):
    """What one model has of its own, but for the seed.

    Attributes:
      learning_rate: the greatest one; None for the default of the data.
      hyper: numbers of the loss, by name.
    """

    learning_rate: float | None
    hyper: Mapping[str, float]


class Grid(NamedTuple):
    """The models of a sweep: each seed with each point.

    Attributes:
      seeds: of the models.
      points: of the models; the learning rate changes fastest.
      varied: values of each number of the loss that was asked for, by name.
    """

    seeds: tuple[int, ...]
    points: tuple[Point, ...]
    varied: Mapping[str, tuple[float, ...]]

    @property
    def num_models(self) -> int:
        """How many models there are."""
        return len(self.seeds) * len(self.points)


def read_grid(options: SweepOptions, loss: str) -> Grid:
    """Return the models that the options ask for.

    Args:
      options: as the user gave them.
      loss: name of the loss.

    Raises:
      UsageError: values that cannot be read, that the loss does not take, or that are
        given twice over.
    """
    grid = options.grid
    fixed = _fixed(options)
    losses.resolve(loss, fixed)
    varied = dict(_of_loss(options, loss, has_soft=bool(fixed.get("soft"))))
    for name, values in varied.items():
        if name in fixed:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag} is fixed and varied at once. Leave out one of them."
            )
        for value in values:
            losses.resolve(loss, fixed | {name: value})
    seeds = _seeds(grid.seeds)
    rates = (options.optimization.learning_rate,)
    if grid.learning_rates is not None:
        if rates != (None,):
            raise UsageError(
                "--learning-rate and --learning-rates exclude each other. "
                "Leave out one of them."
            )
        rates = _numbers("--learning-rates", grid.learning_rates)
        for rate in rates:
            if not 0 < rate < math.inf:
                raise UsageError(
                    "--learning-rates must be finite numbers above 0, "
                    f"got {rate:g}. Use 3e-4,1e-3."
                )
    count = math.prod(map(len, [seeds, rates, *varied.values()]))
    if count > _MAX_MODELS:
        raise UsageError(
            f"the grid has {count:,} models, and {_MAX_MODELS:,} is the most. "
            "Give fewer values."
        )
    points = tuple(
        Point(rate, dict(zip(varied, values, strict=True)))
        for values in itertools.product(*varied.values())
        for rate in rates
    )
    return Grid(seeds, points, varied)


def options_of(options: SweepOptions, point: Point, seed: int) -> TrainOptions:
    """Return the options with which `train` trains one of the models alone."""
    return TrainOptions(
        data=options.data,
        model=options.model,
        loss=dataclasses.replace(options.loss, **point.hyper),
        optimization=dataclasses.replace(
            options.optimization, learning_rate=point.learning_rate
        ),
        augment=options.augment,
        run=RunOptions(seed=seed),
        plain=options.plain,
    )


def _fixed(options: SweepOptions) -> dict[str, Any]:
    """Return the hyper-parameters of the loss that all models have."""
    values = dataclasses.asdict(options.loss)
    return {k: v for k, v in values.items() if k != "name" and v is not None}


def _of_loss(
    options: SweepOptions, loss: str, *, has_soft: bool
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Give the numbers of the loss that are varied, with their values."""
    grid, known = options.grid, losses.numbers_of(loss)
    asked = {"margin": ("--margins", grid.margins)}
    asked["temperature"] = ("--temperatures", grid.temperatures)
    for entry in grid.vary or ():
        name, sign, text = entry.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not name:
            raise UsageError(
                f"--vary must be NAME=VALUES, got {entry!r}. Use scale=16,32,64."
            )
        if asked.get(name, ("", None))[1] is not None:
            raise UsageError(f"--vary {name} is given twice. Leave out one.")
        asked[name] = (f"--vary {name}", text)
    given = {name: pair for name, pair in asked.items() if pair[1] is not None}
    has_others = grid.learning_rates is not None or any(c in grid.seeds for c in ",:")
    if not given and not has_others:
        # A margin in degrees or the like has another scale.
        if has_soft or not 0 <= known.get("margin", -1) <= 1:
            raise UsageError(
                f"nothing is varied, and no range of margins fits every use of {loss}. "
                "Use --margins, --temperatures, --vary NAME=VALUES or --learning-rates."
            )
        given = {"margin": ("--margins", _DEFAULT_MARGINS)}
    for name, (flag, text) in given.items():
        if name not in known:
            hint = suggestion(name, known) or f"Its numbers are {', '.join(known)}."
            raise UsageError(f"{flag}: the loss {loss} has no number {name}. {hint}")
        yield name, _numbers(flag, str(text))


def _seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that a text spells."""
    seeds = _numbers("--seeds", text)
    for seed in seeds:
        if seed != int(seed) or not 0 <= seed < 2**31:
            raise UsageError(
                f"--seeds must be whole numbers from 0 to 2147483647, got {seed:g}. "
                "Use 0,1,2."
            )
    return tuple(map(int, seeds))


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    """Return the numbers that a text spells: 0.1,0.2 or START:STOP:COUNT.

    Raises:
      UsageError: it spells none, or one of them twice.
    """
    remedy = "Use numbers between commas, or START:STOP:COUNT."
    try:
        if ":" in text:
            start, stop, count = text.split(":")
            first, last, number = float(start), float(stop), int(count)
            if not 1 <= number <= _MAX_MODELS or not math.isfinite(first + last):
                raise ValueError
            # Six digits, so that a margin can be typed as the table shows it.
            spaced = np.linspace(first, last, number)
            values = tuple(float(f"{x:.6g}") for x in spaced.tolist())
        else:
            values = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} cannot be read, got {text!r}. {remedy}") from None
    for value in values:
        if values.count(value) > 1:
            raise UsageError(f"{flag} has {value:g} more than once. Give each once.")
    return values
