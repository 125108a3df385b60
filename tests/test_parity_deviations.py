"""Where our losses differ from pytorch-metric-learning's on purpose, and how.

Each case says the difference in words. Theirs then gives another number (or none at
all), and ours gives that of the loops over Python floats (`oracles.py`).
"""

# PyTorch is an extra: these tests are skipped without it.
# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import parity_batches
import pytest
from subjects import Subject, fast_options
from tolerances import value_bound

import jaxmetric as jm

# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_metric_learning")
from peers_torch import Library  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning:pytorch_metric_learning"),
]

P = Library()

# Ours computed in float64 by loops, so that a difference of this size is one of theirs.
_APART = 1e-7


class Deviation(NamedTuple):
    """A batch on which theirs is another number: in words, by whom, on what."""

    words: str
    loss: str
    theirs: Callable[..., Any]
    batches: str = "any"
    has_references: bool = False
    change: Callable[[dict], dict] = lambda case: case
    hyper: dict = {}
    reduction: str | None = None


def _shuffled(case: dict) -> dict:
    order = np.random.default_rng(3).permutation(len(case["labels"]))
    return {key: array[order] for key, array in case.items()}


def _unlike(case: dict) -> dict:
    return case | {"labels": np.arange(len(case["labels"]), dtype=np.int32)}


def _with_a_row_alone(case: dict) -> dict:
    labels = case["labels"].copy()
    labels[3] = 9
    return case | {"labels": labels}


def _one_pair_a_kind(case: dict) -> dict:
    return {
        "embeddings": case["embeddings"][:1],
        "labels": np.zeros(1, np.int32),
        "ref_embeddings": case["ref_embeddings"][:2],
        "ref_labels": np.array([0, 1], np.int32),
    }


def _constant_row(case: dict) -> dict:
    rows = case["embeddings"].copy()
    rows[3] = 0.5
    return case | {"embeddings": rows}


def _duplicate_negative(case: dict) -> dict:
    rows, labels = case["embeddings"].copy(), case["labels"]
    first, other = 0, int(np.flatnonzero(labels != labels[0])[0])
    rows[other] = rows[first]
    return case | {"embeddings": rows}


def _unit(case: dict) -> dict:
    rows = case["embeddings"]
    return case | {"embeddings": rows / np.linalg.norm(rows, axis=1, keepdims=True)}


def _duplicate(case: dict) -> dict:
    """Rows (1, 0, ..), one positive and one negative pair of them at exactly 1."""
    rows, labels = case["embeddings"].copy(), case["labels"].copy()
    rows[:3], rows[:3, 0], labels[:3] = 0, 1, [0, 0, 1]
    return case | {"embeddings": rows, "labels": labels}


DEVIATIONS = [
    Deviation(
        "a row without a positive repels all the same, and is averaged in",
        "generalized_lifted_structure_loss",
        P.losses.GeneralizedLiftedStructureLoss(distance=P.euclidean),
        change=_with_a_row_alone,
    ),
    Deviation(
        "right only for classes in order, as many as they have rows",
        "smooth_ap_loss",
        P.losses.SmoothAPLoss(temperature=0.05),
        batches="square",
        change=_shuffled,
        hyper={"temperature": 0.05},
    ),
    Deviation(
        "the rank of a label among the labels is taken for a column of the batch",
        "instance_loss",
        P.losses.InstanceLoss(gamma=4),
        hyper={"gamma": 4.0},
    ),
    Deviation(
        "1e-5 a column is added to the sum of the weights",
        "ranked_list_loss",
        P.losses.RankedListLoss(0.4, 4, distance=P.euclidean),
        hyper={"negative_temperature": 4.0},
    ),
    Deviation(
        "a negative at distance 0 is taken for no negative",
        "ranked_list_loss",
        P.losses.RankedListLoss(0.4, 4, distance=P.euclidean),
        change=_duplicate_negative,
        hyper={"negative_temperature": 4.0},
    ),
    Deviation(
        "swap with references reads distances of the wrong rows",
        "triplet_loss",
        P.losses.TripletMarginLoss(margin=0.2, swap=True, distance=P.euclidean),
        has_references=True,
        hyper={"swap": True},
        reduction="mean_active",
    ),
    Deviation(
        "the index of a reference is taken for one of the batch",
        "lifted_structure_loss",
        P.losses.LiftedStructureLoss(distance=P.euclidean),
        has_references=True,
    ),
    Deviation(
        "references are ignored",
        "threshold_consistent_margin_loss",
        P.losses.ThresholdConsistentMarginLoss(),
        has_references=True,
    ),
    Deviation(
        "negatives are not normalised",
        "angular_loss",
        P.losses.AngularLoss(alpha=40),
        hyper={"alpha": 40.0},
    ),
    Deviation(
        "the logarithm of a probability below the smallest number is cut off",
        "nt_xent_loss",
        P.losses.NTXentLoss(temperature=1e-3),
        hyper={"temperature": 1e-3},
    ),
    Deviation(
        "one positive and one negative pair are taken for none",
        "nt_xent_loss",
        P.losses.NTXentLoss(),
        has_references=True,
        change=_one_pair_a_kind,
    ),
    Deviation(
        "NaN where no row has a positive",
        "nca_loss",
        P.losses.NCALoss(distance=P.sqeuclidean),
        change=_unlike,
    ),
    Deviation(
        "a row is left out if its probability is below the smallest number",
        "nca_loss",
        P.losses.NCALoss(1000, distance=P.sqeuclidean),
        hyper={"scale": 1000.0},
    ),
    Deviation(
        "negative pairs of two rows alone in their classes are left out",
        "histogram_loss",
        P.losses.HistogramLoss(),
        change=lambda case: case | {"labels": np.r_[0, 0, 1:15].astype(np.int32)},
    ),
    Deviation(
        "no similarity may be exactly 1",
        "histogram_loss",
        P.losses.HistogramLoss(),
        change=_duplicate,
    ),
    Deviation(
        "the mean over anchors divides by those without a pair as well",
        "nt_xent_loss",
        P.losses.NTXentLoss(temperature=0.2, reducer=P.reducers.PerAnchorReducer()),
        change=_with_a_row_alone,
        hyper={"temperature": 0.2},
        reduction="mean_per_anchor",
    ),
    Deviation(
        "each side has a mean of its own, and the two are added",
        "contrastive_loss",
        P.losses.ContrastiveLoss(neg_margin=2, distance=P.euclidean),
        hyper={"squared": False, "margin": 2.0},
        reduction="mean_active",
    ),
    Deviation(
        "anchors without an active triplet are averaged out of batch-hard",
        "batch_hard_triplet_loss",
        P.mined(
            P.miners.BatchHardMiner(distance=P.euclidean),
            P.losses.TripletMarginLoss(margin=0.2, distance=P.euclidean),
        )[1],
    ),
    Deviation(
        "the divisor is the number of active terms, by default",
        "margin_loss",
        P.losses.MarginLoss(distance=P.euclidean),
    ),
    Deviation(
        "a violation beyond the bins, or in the last, is an index out of bounds",
        "dynamic_soft_margin_loss",
        P.losses.DynamicSoftMarginLoss(min_val=-1.0),
        change=_unit,
        hyper={"min_value": -1.0},
    ),
    Deviation(
        "an anchor without variance divides by 0",
        "snr_contrastive_loss",
        P.losses.SignalToNoiseRatioContrastiveLoss(distance=P.snr),
        change=_constant_row,
    ),
]
NAMES = [f"{one.loss}: {one.words}" for one in DEVIATIONS]


def _case(deviation: Deviation) -> dict[str, np.ndarray]:
    stack = parity_batches.make(
        deviation.batches, has_references=deviation.has_references, count=1, seed=4
    )
    return deviation.change({key: array[0] for key, array in stack.items()})


def _their_value(theirs: Callable[..., Any], case: dict[str, np.ndarray]) -> float:
    """Return what theirs makes of a batch, NaN where it raises."""
    x, y = (torch.tensor(case[key]) for key in ("embeddings", "labels"))
    x, side = x.double(), {}
    if "ref_embeddings" in case:
        side = {
            "ref_emb": torch.tensor(case["ref_embeddings"]).double(),
            "ref_labels": torch.tensor(case["ref_labels"]).long(),
        }
    try:
        return theirs(x, y.long(), **side).item()
    except (IndexError, RuntimeError):
        return np.nan


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=NAMES)
def test_ours_is_the_formula_where_theirs_is_not(deviation):
    case = _case(deviation)
    options = dict(deviation.hyper)
    if deviation.reduction:
        options["reduction"] = deviation.reduction
    expected = oracles.value(deviation.loss, case, **options)
    assert not abs(_their_value(deviation.theirs, case) - expected) < _APART
    with jax.enable_x64(True):
        wide = {
            key: jnp.asarray(array, None if "labels" in key else "float64")
            for key, array in case.items()
        }
        loss = jax.jit(
            lambda arrays: Subject(deviation.loss)(arrays, **options),
            compiler_options=fast_options(),
        )
        assert abs(loss(wide) - expected) <= value_bound("float64", expected)


def _gradients(theirs: Any, ours: Any, **change: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return their gradient and ours over the rows of a batch, in float64."""
    case = {key: array[0] for key, array in parity_batches.make("any", count=1).items()}
    case |= change
    x = torch.tensor(case["embeddings"]).double().requires_grad_()
    theirs(x, torch.tensor(case["labels"]).long()).backward()
    with jax.enable_x64(True):
        rows = jnp.asarray(case["embeddings"], "float64")
        mine = jax.grad(lambda rows: ours(rows, jnp.asarray(case["labels"])))(rows)
        return x.grad.numpy(), np.asarray(mine)


def test_the_histogram_of_dynamic_soft_margins_is_constant():
    """Theirs lets the gradient through the histogram; the authors' code does not.

    With their histogram cut off from the gradient, the two are equal
    (`peers_triplets.py`).
    """
    theirs, ours = _gradients(
        P.losses.DynamicSoftMarginLoss(min_val=-3.0),
        lambda x, y: losses.dynamic_soft_margin_loss(
            jm.l2_normalize(x), y, min_value=-3.0
        ),
    )
    assert np.max(np.abs(theirs - ours)) > 1e-4


def test_duplicate_positives_have_a_gradient():
    """Theirs takes the arc cosine of 1, whose slope is infinite."""
    rows = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    labels = np.array([0, 0, 1, 1], np.int32)
    theirs, ours = _gradients(
        P.losses.TupletMarginLoss(),
        lambda x, y: losses.tuplet_margin_loss(x, y),
        embeddings=rows,
        labels=labels,
    )
    assert np.isnan(theirs).any()
    assert np.isfinite(ours).all()


def test_a_row_of_zeros_has_no_gradient():
    """Theirs divides by 1e-12 where the length is 0."""
    rows = parity_batches.make("any", count=1)["embeddings"][0].copy()
    rows[2] = 0
    theirs, ours = _gradients(
        P.losses.NTXentLoss(), losses.nt_xent_loss, embeddings=rows
    )
    assert np.max(np.abs(theirs[2])) > 1e9
    assert not ours[2].any()


def test_a_boundary_a_class_costs_its_mean_over_anchors():
    """Theirs adds the boundaries of all triplets and divides by the active terms."""
    case = {key: array[0] for key, array in parity_batches.make("any", count=1).items()}
    beta = [1.0, 1.125, 1.25, 1.375, 1.5]
    theirs = {}
    for nu in (0.0, 0.25):
        loss = P.losses.MarginLoss(
            nu=nu, learn_beta=True, num_classes=5, distance=P.euclidean
        )
        loss.beta.data = torch.tensor(beta)
        theirs[nu] = _their_value(loss, case)
    x, y = jnp.asarray(case["embeddings"]), jnp.asarray(case["labels"])

    def ours(nu: float) -> Any:
        return losses.margin_loss(
            x, y, beta=jnp.array(beta), nu=nu, reduction="mean_active"
        )

    assert float(ours(0.0)) == pytest.approx(theirs[0.0], rel=1e-6)
    sizes = np.bincount(case["labels"], minlength=5)
    counted = [beta[k] for k in case["labels"] if sizes[k] > 1]
    assert float(ours(0.25) - ours(0.0)) == pytest.approx(
        0.25 * np.mean(counted), rel=1e-5
    )
    assert theirs[0.25] - theirs[0.0] != pytest.approx(
        0.25 * np.mean(counted), rel=1e-2
    )
