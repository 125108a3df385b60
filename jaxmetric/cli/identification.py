"""What `jaxmetric eval` measures besides retrieval: identification and verification.

Cumulative matching over cameras, re-ranking, all pairs or a list of pairs, and a few
examples a class. The numbers are those of `jaxmetric.retrieval`.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmetric import retrieval
from jaxmetric.cli import pairs as pairing
from jaxmetric.cli import reranking, roc
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.outputs import check_file
from jaxmetric.cli.pairs import Pairs, Rows
from jaxmetric.cli.run_options import EvalOptions

ROC = "roc.png"
RANKS = (1, 5, 10)

_FAR = (1e-3, 1e-2)


class Sides(NamedTuple):
    """The embeddings that are compared, and what is known of them.

    Attributes:
      query: [q, dim] float32.
      labels: [q] int32, None where the rows have no classes.
      reference, ref_labels: [n, dim] and [n] of the gallery; None for one set.
      groups, ref_groups: [q] and [n] int32, None where nothing is left out.
    """

    query: np.ndarray
    labels: np.ndarray | None
    reference: np.ndarray | None = None
    ref_labels: np.ndarray | None = None
    groups: np.ndarray | None = None
    ref_groups: np.ndarray | None = None

    @property
    def is_one_set(self) -> bool:
        """Whether the queries are compared with each other."""
        return self.reference is None


class Request(NamedTuple):
    """What is asked for besides retrieval, checked.

    Attributes:
      has_rerank: whether to re-rank.
      pairs: a file of pairs; None for all of them.
      has_pairs: whether to verify at all.
      far: false accept rates.
      roc: the picture to write, None for none.
      few_shot: (ways, shots), None for none.
    """

    has_rerank: bool
    pairs: str | None
    has_pairs: bool
    far: tuple[float, ...]
    roc: Path | None
    few_shot: tuple[int, int] | None


def check(options: EvalOptions) -> Request:
    """Return what is asked for, before anything is read.

    Raises:
      UsageError: the options are a mistake.
    """
    has_pairs = options.verification or options.pairs is not None
    for name in ("far", "roc"):
        if getattr(options, name) is not None and not has_pairs:
            raise UsageError(
                f"--{name} has no effect without --verification or --pairs. "
                "Add one of them."
            )
    has_data = options.data is not None or options.query is not None
    for name in ("groups", "pairs"):
        value = getattr(options, name)
        if value is not None and not has_data:
            raise UsageError(
                f"--{name} {value}: needs DATA, or --query and --gallery, whose rows "
                "it is about. Name them."
            )
    far = _FAR if options.far is None else options.far
    for rate in far:
        if not 0 < rate < 1:
            raise UsageError(
                f"--far must be above 0 and below 1, got {rate:g}. Use 1e-3."
            )
    picture = None
    if has_pairs:
        picture = Path(options.run) / ROC if options.roc is None else Path(options.roc)
        if options.roc is not None or picture.parent.is_dir():
            check_file("--roc", picture, ".png")
    few_shot = None if options.few_shot is None else _ways_and_shots(options.few_shot)
    return Request(options.rerank, options.pairs, has_pairs, far, picture, few_shot)


def measure(sides: Sides, request: Request) -> dict[str, Any]:
    """Return the metrics that are asked for, as Python numbers.

    Raises:
      UsageError: the rows do not allow one of them.
    """
    # What may be refused comes before what takes long.
    chosen = _choose(sides, request) if request.has_pairs else None
    if request.few_shot is not None:
        _check_few_shot(sides, *request.few_shot)
    metrics: dict[str, Any] = {}
    if sides.labels is not None:
        metrics |= _retrieve(sides)
    if request.has_rerank:
        metrics |= reranking.measure(sides, RANKS)
    if chosen is not None:
        metrics |= _verify(sides, chosen, request)
    if request.few_shot is not None:
        metrics |= _few_shot(sides, *request.few_shot)
    return metrics


def to_show(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics as a person reads them: what is no share as a text."""
    shown: dict[str, Any] = {}
    for name, value in metrics.items():
        if name == "threshold":
            shown[name] = f"{value:.4f}"
        elif name.endswith("_interval"):
            of = name.removesuffix("_interval")
            shown[of] = f"{100 * metrics[of]:.2f} % ± {100 * value:.2f} %"
        else:
            shown[name] = value
    return shown


def _retrieve(sides: Sides) -> dict[str, Any]:
    """Return the metrics of neighbours; with groups, those that may leave rows out."""
    assert sides.labels is not None
    side = (sides.query, sides.labels, sides.reference, sides.ref_labels)
    if sides.is_one_set and sides.groups is None:
        return _numbers(retrieval.evaluate(*side))
    matching = retrieval.cmc(
        *side,
        ranks=RANKS,
        query_groups=sides.groups,
        reference_groups=sides.ref_groups,
    )
    if sides.groups is not None:
        return _numbers(matching)
    return _numbers(retrieval.evaluate(*side)) | _numbers(matching)


def _choose(sides: Sides, request: Request) -> Pairs:
    """Return the pairs of a list, or of the rows; both kinds are among them."""
    others = sides.query if sides.reference is None else sides.reference
    if request.pairs is not None:
        chosen = pairing.read_pairs(request.pairs, len(sides.query), len(others))
    else:
        assert sides.labels is not None
        rows = Rows(sides.labels, sides.groups, sides.ref_labels, sides.ref_groups)
        chosen = pairing.choose(rows)
    if chosen.is_same.all() or not chosen.is_same.any():
        missing = "different classes" if chosen.is_same.any() else "one class"
        raise UsageError(
            f"--verification: no two rows that are compared are of {missing}. "
            "Give other data."
        )
    return chosen


def _verify(sides: Sides, chosen: Pairs, request: Request) -> dict[str, Any]:
    """Return the metrics of pairs, and draw how one rate is paid for by the other."""
    distances = pairing.distances(chosen, sides.query, sides.reference)
    metrics = _numbers(
        retrieval.verification(distances, chosen.is_same, far=request.far)
    )
    if _is_drawn(chosen, request):
        # As many of both kinds were drawn, which the balance of the two depends on.
        del metrics["accuracy"], metrics["threshold"]
    num_same = int(chosen.is_same.sum())
    metrics["same_pairs"] = num_same
    metrics["different_pairs"] = len(chosen.is_same) - num_same
    assert request.roc is not None
    roc.write_roc(request.roc, distances, chosen.is_same, metrics)
    return metrics


def _is_drawn(chosen: Pairs, request: Request) -> bool:
    """Return whether the pairs are a share of those there are, of our choice."""
    return request.pairs is None and not chosen.are_all


def _check_few_shot(sides: Sides, ways: int, shots: int) -> None:
    """Require as many classes with enough rows as are drawn at once."""
    assert sides.labels is not None
    sizes = np.unique(sides.labels, return_counts=True)[1]
    possible = int(np.sum(sizes > shots))
    if possible < ways:
        remedy = f"Use {possible}x{shots}." if possible > 1 else "Give more rows."
        raise UsageError(
            f"--few-shot {ways}x{shots}: only {possible} classes have {shots + 1} rows "
            f"or more. {remedy}"
        )


def _few_shot(sides: Sides, ways: int, shots: int) -> dict[str, Any]:
    """Return the accuracy from a few examples a class, and its interval."""
    assert sides.labels is not None
    found = retrieval.few_shot(
        jax.random.key(0), sides.query, sides.labels, ways=ways, shots=shots
    )
    name = f"few_shot_{ways}x{shots}"
    return {name: float(found.accuracy), f"{name}_interval": float(found.interval)}


def _ways_and_shots(text: str) -> tuple[int, int]:
    """Return the numbers of 5x1."""
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    ways, shots = (int(number) for number in found.groups()) if found else (0, 0)
    if ways < 2 or shots < 1:
        raise UsageError(
            f"--few-shot must be WAYSxSHOTS, at least 2x1, got {text!r}. Use 5x1."
        )
    return ways, shots


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return Python numbers."""
    return {name: np.asarray(value).item() for name, value in metrics.items()}
