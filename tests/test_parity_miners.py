"""Our miners beside pytorch-metric-learning's: the same sets of pairs and triplets.

Miners that draw are compared by what they may draw, and how often.
"""

# PyTorch is an extra: these tests are skipped without it.
# pyright: reportMissingImports=false

import itertools
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity_batches
import pytest
from subjects import fast_options

import jaxmetric as jm

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_metric_learning")
from peers_torch import Library  # noqa: E402

pytestmark = pytest.mark.slow

P = Library()

STRATEGIES = [
    (positive, negative)
    for positive, negative in itertools.product(("easy", "semihard", "hard"), repeat=2)
    if (positive, negative) != ("semihard", "semihard")
]


def _easy_hard(positive: str, negative: str) -> tuple[str, Any, Any]:
    return (
        f"batch_easy_hard ({positive}, {negative})",
        partial(jm.miners.batch_easy_hard, positive=positive, negative=negative),
        P.miners.BatchEasyHardMiner(positive, negative, distance=P.euclidean),
    )


def _triplet_margin(kind: str) -> tuple[str, Any, Any]:
    return (
        f"triplet_margin ({kind})",
        partial(jm.miners.triplet_margin, margin=0.3, kind=kind),
        P.miners.TripletMarginMiner(0.3, kind, distance=P.euclidean),
    )


MINERS: list[tuple[str, Callable[..., Any], Any]] = [
    (
        "batch_hard",
        jm.miners.batch_hard,
        P.miners.BatchHardMiner(distance=P.euclidean),
    ),
    (
        "batch_hard (cosine)",
        partial(jm.miners.batch_hard, distance="cosine"),
        P.miners.BatchHardMiner(distance=P.cosine),
    ),
    *(_easy_hard(*strategies) for strategies in STRATEGIES),
    (
        "batch_easy_hard (ranges)",
        partial(
            jm.miners.batch_easy_hard,
            positive="hard",
            negative="hard",
            positive_range=(0.4, 1.6),
            negative_range=(0.9, 2.5),
        ),
        P.miners.BatchEasyHardMiner(
            "hard", "hard", (0.4, 1.6), (0.9, 2.5), distance=P.euclidean
        ),
    ),
    *(_triplet_margin(kind) for kind in ("all", "hard", "semihard", "easy")),
    (
        "triplet_margin (cosine)",
        partial(jm.miners.triplet_margin, margin=0.3, distance="cosine"),
        P.miners.TripletMarginMiner(0.3, distance=P.cosine),
    ),
    (
        "pair_margin",
        partial(jm.miners.pair_margin, positive_margin=1.2, negative_margin=1.8),
        P.miners.PairMarginMiner(1.2, 1.8, distance=P.euclidean),
    ),
    (
        "pair_margin (cosine)",
        partial(
            jm.miners.pair_margin,
            positive_margin=1 - 0.8,
            negative_margin=1 - 0.2,
            distance="cosine",
        ),
        P.miners.PairMarginMiner(0.8, 0.2, distance=P.cosine),
    ),
    (
        "multi_similarity",
        jm.miners.multi_similarity,
        P.miners.MultiSimilarityMiner(distance=P.cosine),
    ),
    (
        "multi_similarity (euclidean)",
        partial(jm.miners.multi_similarity, distance="euclidean"),
        P.miners.MultiSimilarityMiner(distance=P.euclidean),
    ),
    ("angular", jm.miners.angular, P.miners.AngularMiner()),
    (
        "hard_pairs",
        partial(jm.miners.hard_pairs, fraction=0.3),
        P.miners.HDCMiner(0.3, distance=P.euclidean),
    ),
]
each_miner = pytest.mark.parametrize(
    ("name", "ours", "theirs"), MINERS, ids=[name for name, *_ in MINERS]
)

Found = set[tuple[Any, ...]]


def _ours(found: Any, k: int) -> Found:
    """Return triplets, or pairs with their kind, of batch k of a stack."""
    *columns, valid = (np.asarray(array[k]) for array in found)
    return set(zip(*(column[valid].tolist() for column in columns), strict=True))


def _theirs(found: Any, is_triplets: bool) -> Found:
    found = [indices.tolist() for indices in found]
    if len(found) == 3:
        return set(zip(*found, strict=True))
    a, p, b, n = found
    if is_triplets:  # one positive and one negative pair of each anchor
        assert a == b
        return set(zip(a, p, n, strict=True))
    pairs = [(i, j, True) for i, j in zip(a, p, strict=True)]
    return {*pairs, *((i, j, False) for i, j in zip(b, n, strict=True))}


def _unordered(found: Found) -> Counter:
    """Return how often each pair of rows was found, in either order."""
    return Counter((min(i, j), max(i, j), kind) for i, j, kind in found)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("side", ["self", "references"])
@each_miner
def test_the_same_is_found(name, ours, theirs, side, dtype):
    has_references = side == "references"
    batches = parity_batches.make("any", has_references=has_references)
    with jax.enable_x64(dtype == "float64"):
        cast = {
            key: jnp.asarray(array, None if "labels" in key else dtype)
            for key, array in batches.items()
        }
        mine = jax.jit(
            jax.vmap(lambda batch: ours(**batch)), compiler_options=fast_options()
        )
        found = mine(cast)
    num_found = 0
    for k in range(parity_batches.NUM_BATCHES):
        x, y = (torch.tensor(batches[key][k]) for key in ("embeddings", "labels"))
        precision = getattr(torch, dtype)
        other = {}
        if has_references:
            other = {
                "ref_emb": torch.tensor(batches["ref_embeddings"][k]).to(precision),
                "ref_labels": torch.tensor(batches["ref_labels"][k]).long(),
            }
        expected = theirs(x.to(precision), y.long(), **other)
        expected = _theirs(expected, isinstance(found, jm.Triplets))
        got = _ours(found, k)
        num_found += len(got)
        if name == "hard_pairs" and not has_references:
            # Both orders of a pair are equally far, and the cut may fall between.
            assert _unordered(got) == _unordered(expected)
        else:
            assert got == expected
    assert num_found > parity_batches.NUM_BATCHES


def test_every_miner_of_theirs_is_compared():
    named = {type(theirs).__name__ for *_, theirs in MINERS}
    drawn = {"DistanceWeightedMiner", "UniformHistogramMiner"}
    # What is no miner of its own.
    others = {"BaseMiner", "EmbeddingsAlreadyPackagedAsTriplets"}
    offered = {name for name in vars(P.miners) if name[:1].isupper()}
    assert offered == named | drawn | others


def test_distance_weighted_has_their_weights(monkeypatch):
    """Theirs draws other triplets; the weights of its negatives are ours.

    The positives are nearer than in a batch at random, where few are eligible.
    """
    from pytorch_metric_learning.miners import distance_weighted_miner

    batch = {key: array[0] for key, array in parity_batches.make("any").items()}
    batch["embeddings"][:, 0] += 1
    weights = []

    def keep(labels: Any, ref_labels: Any, weights_: Any) -> tuple:
        weights.append(weights_.numpy())
        return (torch.zeros(0, dtype=torch.int64),) * 3

    monkeypatch.setattr(
        distance_weighted_miner.lmu,
        "get_random_triplet_indices",
        lambda labels, ref_labels, weights: keep(labels, ref_labels, weights),
    )
    x = torch.tensor(batch["embeddings"]).double()
    P.miners.DistanceWeightedMiner()(x, torch.tensor(batch["labels"]).long())
    shares, draws = weights[0], 4000
    keys = jax.random.split(jax.random.key(0), draws)
    found = jax.jit(
        jax.vmap(lambda key: jm.miners.distance_weighted(key, **batch)),
        compiler_options=fast_options(),
    )(keys)
    valid, anchors = np.asarray(found.valid), np.asarray(found.anchor)
    negatives = np.asarray(found.negative)
    num_compared = 0
    for slot in np.flatnonzero(valid.any(0)):
        assert valid[:, slot].all()
        share = shares[anchors[0, slot]]
        counts = np.bincount(negatives[:, slot], minlength=len(share))
        spread = np.sqrt(draws * share * (1 - share))
        assert np.all(np.abs(counts - draws * share) < 5 * spread + 1)
        num_compared += np.count_nonzero(share > 0.01)
    assert num_compared > 50


@pytest.mark.parametrize("side", ["self", "references"])
def test_uniform_histogram_fills_the_same_bins(side):
    stack = parity_batches.make("any", has_references=side == "references", count=20)
    num_bins, per_bin = 8, 3
    theirs = P.miners.UniformHistogramMiner(
        num_bins, per_bin, per_bin, distance=P.euclidean
    )
    ours = jax.jit(
        jax.vmap(
            lambda batch: jm.miners.uniform_histogram(
                jax.random.key(1),
                **batch,
                num_bins=num_bins,
                positives_per_bin=per_bin,
                negatives_per_bin=per_bin,
            )
        ),
        compiler_options=fast_options(),
    )(stack)
    for k in range(20):
        batch = {key: array[k] for key, array in stack.items()}
        x, y = (torch.tensor(batch[key]) for key in ("embeddings", "labels"))
        rows, labels, other = batch["embeddings"], batch["labels"], {}
        if side == "references":
            rows, labels = batch["ref_embeddings"], batch["ref_labels"]
            ref_labels = torch.tensor(labels).long()
            other = {"ref_emb": torch.tensor(rows), "ref_labels": ref_labels}
        a, p, b, n = (found.numpy() for found in theirs(x, y.long(), **other))
        *columns, valid = (np.asarray(array[k]) for array in ours)
        i, j, is_positive = (column[valid] for column in columns)
        apart = np.linalg.norm(batch["embeddings"][:, None] - rows[None], axis=-1)
        is_equal = batch["labels"][:, None] == labels[None]
        is_pair = np.ones_like(is_equal)
        if side == "self":
            is_pair ^= np.eye(len(rows), dtype=bool)
        for kind, mine, other_pairs in (
            (True, (i[is_positive], j[is_positive]), (a, p)),
            (False, (i[~is_positive], j[~is_positive]), (b, n)),
        ):
            of_kind = is_pair & (is_equal == kind)
            low, high = apart[of_kind].min(), apart[of_kind].max()
            edges = np.linspace(low, high, num_bins + 1)
            # A rounding beyond the first and the last pair is still in their bins.
            edges[[0, -1]] += [-1e-4, 1e-4]
            bins = [
                np.histogram(apart[pairs], edges)[0] for pairs in (mine, other_pairs)
            ]
            np.testing.assert_array_equal(bins[0], bins[1])
            assert all(of_kind[pairs].all() for pairs in (mine, other_pairs))
