"""Losses by name, and their hyper-parameters as options, read from their signatures.

A loss is offered when its arrays are `embeddings, labels`, or these and `proxies`; for
pairs also when they are `queries, keys`, for pairs with scores `predictions, targets`
and triplets, which are drawn by the scores. A new loss of the library is here without a
change of this file.
"""

import functools
import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args, get_origin

from jax.sharding import Mesh

import jaxmetric as jm
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.values import suggestion

_ARRAYS = ("embeddings", "labels")
_ARRAYS_OF_PAIRS = ("queries", "keys")
_ARRAYS_OF_SCORES = (("predictions", "targets"), ("anchors", "positives", "negatives"))
# What training sets itself, or has no use for.
_NOT_OPTIONS = {"where", "weights", "ids", "block_size", "precision", "axis_name"}
# What a loss remembers from batch to batch: the step carries no state of a loss.
_NOT_OPTIONS |= {"momentum", "return_histogram"}
# Losses of several proxies a class: no signature says how many, so the papers do.
_NUM_CENTERS = {"soft_triple_loss": 10, "subcenter_arcface_loss": 3}


class Loss(NamedTuple):
    """A loss with the hyper-parameters that were chosen.

    Attributes:
      name: its name in `jaxmetric.losses`.
      hyper: the hyper-parameters that differ from the defaults.
      settings: all hyper-parameters that it takes, by name.
      has_proxies: whether it takes `proxies` after the labels.
      num_centers: how many proxies each class has, None for one and no axis for it.
      has_ids: whether it takes `ids`.
      has_stats: whether `reduction="none"` gives its `LossStats`.
    """

    name: str
    hyper: Mapping[str, Any]
    settings: Mapping[str, Any]
    has_proxies: bool
    num_centers: int | None
    has_ids: bool
    has_stats: bool

    def loss_fn(self, mesh: Mesh | None = None) -> Callable[..., Any]:
        """Return what a training step minimises, see `make_train_step`.

        On a mesh it is that of the batch on all its devices.
        """
        # The number of centers is in the shape of the proxies, not an argument.
        hyper = {k: v for k, v in self.hyper.items() if k != "num_centers"}
        function = functools.partial(getattr(jm.losses, self.name), **hyper)
        if mesh is not None:
            function = jm.sharding.data_parallel(function, mesh=mesh)
        reduction: Any = self.settings.get("reduction")

        def loss_fn(
            loss_params: Any, embeddings: Any, labels: Any, ids: Any = None
        ) -> Any:
            arrays = (embeddings, labels)
            if self.has_proxies:
                arrays += (loss_params["proxies"],)
            named = {"ids": ids} if self.has_ids else {}
            if not self.has_stats:
                return function(*arrays, **named)
            # The reduction of the stats is the loss itself, and they tell how many
            # terms are active.
            stats = function(*arrays, **named | {"reduction": "none"})
            return jm.reduce(stats, reduction), stats

        return loss_fn

    def learned(self) -> dict[str, Any]:
        """Return what the loss learns besides proxies, as it begins."""
        return {}


def loss_names(*, of_pairs: bool = False) -> list[str]:
    """Return the names of all losses that `train` can minimise, in their short form.

    Args:
      of_pairs: those that take pairs alone, in place of those that take classes.
    """
    names = _of_pairs() if of_pairs else _trainable()
    return sorted(_short(name) for name in names)


def hyper_parameters() -> dict[str, tuple[Any, str]]:
    """Return type and help of every hyper-parameter of any loss, by name."""
    kinds: dict[str, Any] = {}
    uses: dict[str, dict[str, list[str]]] = {}
    for loss in (*_trainable(), *_of_pairs(), *_of_scores()):
        for name, (kind, default) in _parameters(loss).items():
            # float takes what int takes, should two losses differ.
            kinds[name] = float if {kind, kinds.get(name)} == {int, float} else kind
            uses.setdefault(name, {}).setdefault(_spell(default), []).append(
                _short(loss)
            )
    return {
        name: (kind | None, "; ".join(_use(*use) for use in uses[name].items()))
        for name, kind in kinds.items()
    }


def numbers_of(name: str) -> dict[str, float]:
    """Return the hyper-parameters of a loss that may be any number, with defaults."""
    parameters = _parameters(_function_name(name))
    return {key: value for key, (kind, value) in parameters.items() if kind is float}


def resolve(
    name: str,
    chosen: Mapping[str, Any],
    *,
    of_pairs: bool = False,
    of_scores: bool = False,
) -> Loss:
    """Return the loss of a name, `_loss` and `_triplet_loss` optional.

    Args:
      name: of the function in `jaxmetric.losses`; hyphens are underscores.
      chosen: hyper-parameters; None leaves the loss's own default.
      of_pairs: whether the data is pairs, which more losses take.
      of_scores: whether the pairs have scores, which more losses take.

    Raises:
      UsageError: no such loss, a hyper-parameter that it does not take or that has no
        effect, or a value out of range.
    """
    function_name = _function_name(name, of_pairs=of_pairs, of_scores=of_scores)
    parameters = _parameters(function_name)
    hyper = {key: value for key, value in chosen.items() if value is not None}
    for key in hyper:
        if key not in parameters:
            taken = ", ".join(_flag(p) for p in parameters)
            raise UsageError(
                f"{_flag(key)} is no option of the loss {_short(function_name)}. "
                f"It takes {taken}."
            )
        if parameters[key][0] is int:
            hyper[key] = _whole(key, hyper[key])
    settings = {key: default for key, (_, default) in parameters.items()} | hyper
    _check_values(function_name, settings, hyper)
    signature = inspect.signature(getattr(jm.losses, function_name)).parameters
    reduction = signature.get("reduction")
    return Loss(
        function_name,
        hyper,
        settings,
        has_proxies="proxies" in signature,
        num_centers=settings.get("num_centers"),
        has_ids="ids" in signature,
        has_stats=reduction is not None and "none" in get_args(reduction.annotation),
    )


def _function_name(
    name: str, *, of_pairs: bool = False, of_scores: bool = False
) -> str:
    """Return the name of the function that a name on the command line means."""
    trainable, wanted = list(_trainable()), name.strip().replace("-", "_")
    if of_pairs:
        trainable += _of_pairs()
    if of_scores:
        trainable += _of_scores()
    candidates = [wanted, f"{wanted}_loss", f"{wanted}_triplet_loss"]
    for candidate in candidates:
        if candidate in trainable:
            return candidate
    for candidate in candidates:
        if candidate in jm.losses.__all__:
            arrays = ", ".join(_positional(candidate))
            rows = "pairs" if of_pairs else "labelled rows"
            raise UsageError(
                f"--loss {name} takes ({arrays}), which batches of {rows} do "
                f"not give. Use one of {', '.join(loss_names(of_pairs=of_pairs))}."
            )
    names = loss_names() + (loss_names(of_pairs=True) if of_pairs else [])
    hint = suggestion(wanted, [*names, *trainable])
    raise UsageError(
        f"--loss {name} is no loss of jaxmetric. {hint or 'There are'} "
        f"{'There are ' if hint else ''}{', '.join(names)}."
    )


def _check_values(
    loss: str, settings: Mapping[str, Any], hyper: Mapping[str, Any]
) -> None:
    """Require hyper-parameters in their range and with an effect."""
    is_cosine = settings.get("distance") == "cosine"
    for name, value in hyper.items():
        if isinstance(value, bool | str):
            continue
        if not math.isfinite(value):
            raise UsageError(
                f"{_flag(name)} must be a finite number, got {value}. "
                f"The default is {_spell(_parameters(loss)[name][1])}."
            )
        if name.endswith("margin") and value < 0:
            raise UsageError(
                f"{_flag(name)} must not be negative, got {value:g}. "
                f"The default is {_spell(_parameters(loss)[name][1])}."
            )
        if name.endswith("margin") and is_cosine and value > 2:
            raise UsageError(
                f"{_flag(name)} must be at most 2 for the cosine distance, which ends "
                f"there, got {value:g}. Use 0.1 to 0.5."
            )
        if name == "num_centers" and value < 1:
            raise UsageError(
                f"{_flag(name)} must be at least 1, got {value}. "
                f"The default is {_NUM_CENTERS[loss]}."
            )
        if name == "temperature" and value <= 0:
            raise UsageError(
                f"{_flag(name)} must be > 0, got {value:g}. "
                "Typical values are 0.05 to 0.5."
            )
    if settings.get("soft") and "margin" in hyper:
        raise UsageError(
            "--margin has no effect with --soft, which puts a softplus in its place. "
            "Leave one of them out."
        )


def _whole(name: str, value: float) -> int:
    """Return an option as an int; other losses may take any number under its name."""
    if value != int(value):
        raise UsageError(
            f"{_flag(name)} must be a whole number, got {value:g}. "
            f"Use {max(round(value), 1)}."
        )
    return int(value)


def _trainable() -> Iterator[str]:
    """Give the names of the losses of embeddings, labels and at most proxies."""
    for name in jm.losses.__all__:
        if _positional(name) in (_ARRAYS, (*_ARRAYS, "proxies")):
            yield name


def _of_pairs() -> Iterator[str]:
    """Give the names of the losses of queries, keys and at most their scores."""
    for name in jm.losses.__all__:
        if _positional(name) in (_ARRAYS_OF_PAIRS, (*_ARRAYS_OF_PAIRS, "scores")):
            yield name


def _of_scores() -> Iterator[str]:
    """Give the names of the losses of predictions and targets, and of triplets."""
    for name in jm.losses.__all__:
        if _positional(name) in _ARRAYS_OF_SCORES:
            yield name


def _positional(loss: str) -> tuple[str, ...]:
    """Return the names of the arrays that a loss takes first."""
    parameters = inspect.signature(getattr(jm.losses, loss)).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


@functools.cache
def _parameters(loss: str) -> dict[str, tuple[Any, Any]]:
    """Return (type, default) of the hyper-parameters of a loss, by name."""
    found = {}
    for p in inspect.signature(getattr(jm.losses, loss)).parameters.values():
        is_option = p.kind is p.KEYWORD_ONLY and not p.name.startswith("ref_")
        if is_option and p.name not in _NOT_OPTIONS:
            kind = _kind(p.annotation, p.default)
            if kind is not None:
                found[p.name] = (kind, p.default)
    if loss in _NUM_CENTERS:
        found["num_centers"] = (int, _NUM_CENTERS[loss])
    return found


def _kind(annotation: Any, default: Any) -> Any:
    """Return the type of an option for a hyper-parameter, None if it is an array."""
    if isinstance(default, bool):
        return bool
    if isinstance(default, int) and annotation is int:
        return int
    if isinstance(default, int | float):
        return float
    if isinstance(default, str):
        names = [name for name in _literals(annotation) if name != "none"]
        return Literal[tuple(names)] if names else str
    return None


def _literals(annotation: Any) -> list[str]:
    """Return the names in a Literal, alone or in a union."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if isinstance(annotation, types.UnionType) or get_args(annotation):
        return [name for part in get_args(annotation) for name in _literals(part)]
    return []


def _short(name: str) -> str:
    """Return the shortest name that means a loss."""
    for suffix in ("_triplet_loss", "_loss"):
        short = name.removesuffix(suffix)
        if short != name and _resolves(short) == name:
            return short
    return name


def _resolves(name: str) -> str | None:
    """Return the first function of the library that a name may mean."""
    for candidate in (name, f"{name}_loss", f"{name}_triplet_loss"):
        if candidate in jm.losses.__all__:
            return candidate
    return None


def _flag(name: str) -> str:
    """Return a hyper-parameter as it is written on the command line."""
    return "--" + name.replace("_", "-")


def _spell(value: Any) -> str:
    """Return a default as text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _use(default: str, losses: list[str]) -> str:
    """Return one line of help: a default and the losses that have it."""
    return f"{default} in {', '.join(losses)}"
