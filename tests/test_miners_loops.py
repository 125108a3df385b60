"""Miners against loops: what they choose, in which slots, from which rows."""

import functools
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles_miners
import pytest
from cases import REFERENCES
from degenerate import DIM, ROWS

import jaxmetric as jm

STACK = 24
SIDE = ("embeddings", "labels", "where", "ids")
REFS = ("ref_embeddings", "ref_labels", "ref_where", "ref_ids")


@dataclass(frozen=True, eq=False)
class Mined:
    """A miner with options, and the loops that say what it chooses."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    slots: int = 2  # axes of [batch, n, n] that a slot has
    is_exact: bool = True  # rows on a grid of integers, where distances tie

    def __call__(self, case: dict[str, Any], **more: Any) -> Any:
        return getattr(jm.miners, self.name)(**case, **self.options, **more)

    def expected(self, case: dict[str, Any]) -> list[tuple]:
        loops = {"batch_easy_hard": "easy_hard"}.get(self.name, self.name)
        options = self.options
        if "fraction" in options:
            options = options | {"fraction": Fraction(str(options["fraction"]))}
        found = getattr(oracles_miners, f"mined_{loops}")(case, **options)
        return [tuple(slot[:3]) for slot in found if len(slot) < 4 or slot[3]]


def easy_hard(positive, negative, **ranges):
    options = {"positive": positive, "negative": negative} | ranges
    return Mined("batch_easy_hard", options, slots=1)


MINERS = [
    Mined("batch_hard", slots=1),
    Mined("semi_hard"),
    easy_hard("easy", "semihard"),
    easy_hard("semihard", "hard"),
    easy_hard("semihard", "easy", negative_range=(2.0, 4.0)),
    easy_hard("easy", "easy"),
    easy_hard("hard", "hard", positive_range=(1.0, 3.0), negative_range=(2.0, 9.0)),
    Mined("triplet_margin", {"margin": 1.0, "distance": "sqeuclidean"}, slots=3),
    Mined("triplet_margin", {"margin": 1.0, "kind": "semihard"}, slots=3),
    Mined("triplet_margin", {"margin": 0.5, "kind": "easy"}, slots=3),
    Mined("triplet_margin", {"kind": "hard", "distance": "manhattan"}, slots=3),
    Mined("angular", {"angle": 33.0}, slots=3),
    Mined("pair_margin", {"positive_margin": 2.0, "negative_margin": 3.0}),
    Mined("multi_similarity", is_exact=False),
    Mined("multi_similarity", {"epsilon": 0.5, "distance": "sqeuclidean"}),
    Mined("hard_pairs", {"fraction": 0.5}),
    Mined("hard_pairs", {"fraction": 0.1}),
]


def name_of(miner):
    return "-".join([miner.name, *map(str, miner.options.values())])


# Session scope brings the tests of a miner together, so that it is compiled once.
each_miner = pytest.mark.parametrize("miner", MINERS, ids=name_of, scope="session")


def random_case(rng, *, mode, is_exact):
    """Return a random batch, on a grid of integers or away from ties."""

    def side(rows):
        x = rng.integers(-2, 3, size=(rows, DIM)).astype(np.float32)
        if not is_exact:
            x = rng.normal(size=(rows, DIM)).astype(np.float32)
        labels = rng.integers(0, rng.integers(1, 5), rows).astype(np.int32)
        return x, labels, rng.random(rows) < 0.8, rng.integers(0, 12, rows)

    case: dict[str, Any] = dict(zip(SIDE, side(ROWS), strict=True))
    if mode == "ref":
        case |= dict(zip(REFS, side(REFERENCES), strict=True))
    return case


def random_cases(miner, mode):
    rng = np.random.default_rng(0)
    cases = [random_case(rng, mode=mode, is_exact=miner.is_exact) for _ in range(STACK)]
    return cases


@functools.cache
def program(miner, **options):
    """Return a miner compiled for a stack of cases, one program for many tests."""
    return jax.jit(jax.vmap(lambda case: miner(case, **options)))


def mined(miner, cases, **options):
    """Return what a miner finds in up to STACK cases, as NumPy arrays."""
    filled = cases + [cases[-1]] * (STACK - len(cases))
    arrays = jax.tree.map(lambda *a: jnp.stack(a), *filled)
    return jax.tree.map(np.asarray, program(miner, **options)(arrays))


def slots_of(found, k):
    """Return the valid slots of case k as tuples of Python numbers, and where."""
    *indices, valid = (a[k] for a in found)
    kept = np.flatnonzero(valid)
    for index in indices:
        assert not index[~valid].any(), "an invalid slot holds index 0"
    return [tuple(a[s].item() for a in indices) for s in kept], kept


def place(miner, slot, n):
    """Return the slot in which a choice belongs where every slot is returned."""
    position = slot[0]
    for other in slot[1 : miner.slots]:
        position = position * n + other
    return position


@each_miner
@pytest.mark.parametrize(("mode", "block_size"), [("self", None), ("ref", 3)])
def test_miner_equals_loops(miner, mode, block_size):
    cases = random_cases(miner, mode)
    found = mined(miner, cases, block_size=block_size)
    n = REFERENCES if mode == "ref" else ROWS
    assert found[0].shape == (STACK, ROWS * n ** (miner.slots - 1))
    num_chosen = 0
    for k, case in enumerate(cases):
        chosen, places = slots_of(found, k)
        expected = miner.expected(case)
        assert chosen == expected
        assert places.tolist() == [place(miner, slot, n) for slot in expected]
        num_chosen += len(expected)
    assert num_chosen > 20


@pytest.mark.parametrize(
    ("mode", "size"),
    [("self", 50), ("ref", 3), pytest.param("self", 3, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "miner", [m for m in MINERS if m.slots > 1 and "kind" not in m.options], ids=name_of
)
def test_size_keeps_the_first_chosen(miner, mode, size):
    cases = random_cases(miner, mode)
    found = mined(miner, cases, size=size, block_size=3)
    for k, case in enumerate(cases):
        chosen, places = slots_of(found, k)
        expected = miner.expected(case)[:size]
        assert chosen == expected
        assert places.tolist() == list(range(len(expected)))


@each_miner
def test_what_masked_rows_hold_changes_nothing(miner):
    cases = random_cases(miner, "self")
    others = []
    for case in cases:
        x = np.where(case["where"][:, None], case["embeddings"], np.float32(np.nan))
        others.append(case | {"embeddings": x})
    found, other = (mined(miner, some, block_size=None) for some in (cases, others))
    for one, two in zip(found, other, strict=True):
        np.testing.assert_array_equal(one, two)


@each_miner
def test_rows_that_are_not_finite_are_not_chosen(miner):
    cases = random_cases(miner, "self")
    others = []
    for case, bad in zip(cases, [np.nan, np.inf, -np.inf] * STACK, strict=False):
        x = case["embeddings"].copy()
        x[2, 1] = bad
        others.append(case | {"embeddings": x})
    found = mined(miner, others, block_size=None)
    for k, case in enumerate(cases):
        # As if the row did not exist.
        where = case["where"] & (np.arange(ROWS) != 2)
        assert slots_of(found, k)[0] == miner.expected(case | {"where": where})


@each_miner
def test_relabelling_changes_nothing(miner):
    cases = random_cases(miner, "ref")
    names = np.array([7, -(2**31), 2**31 - 1, 0], np.int32)
    labels = ("labels", "ref_labels")
    others = [case | {key: names[case[key]] for key in labels} for case in cases]
    found, other = (mined(miner, some, block_size=3) for some in (cases, others))
    for one, two in zip(found, other, strict=True):
        np.testing.assert_array_equal(one, two)


@each_miner
def test_nothing_to_choose_is_no_valid_slot(miner):
    case = random_cases(miner, "self")[0]
    x = np.arange(ROWS * DIM, dtype=np.float32).reshape(ROWS, DIM)
    everything, nothing = np.ones(ROWS, bool), np.zeros(ROWS, bool)
    same, other = np.zeros(ROWS, np.int32), np.arange(ROWS, dtype=np.int32)
    cases = [
        case | {"embeddings": x, "ids": other, "labels": labels, "where": where}
        for labels, where in ((same, everything), (other, everything), (same, nothing))
    ]
    found = mined(miner, cases, block_size=None)
    assert not found.valid[2].any()
    if isinstance(found, jm.Triplets) or miner.name == "multi_similarity":
        assert not found.valid.any()
        return
    # Pairs of one kind stand alone.
    np.testing.assert_array_equal(found.is_positive[0], found.valid[0])
    assert not found.is_positive[1].any()
    assert found.valid[0].any()


@each_miner
@pytest.mark.parametrize("mode", ["self", pytest.param("ref", marks=pytest.mark.slow)])
def test_a_relation_equals_its_labels(miner, mode):
    cases = random_cases(miner, mode)
    others = []
    for case in cases:
        columns = case["ref_labels" if mode == "ref" else "labels"]
        is_equal = case["labels"][:, None] == columns[None, :]
        other = {k: v for k, v in case.items() if k not in ("labels", "ref_labels")}
        others.append(other | {"labels": jm.Relation(is_equal, ~is_equal)})
    options = {"block_size": 3 if mode == "ref" else None}
    found, other = (mined(miner, some, **options) for some in (cases, others))
    for one, two in zip(found, other, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_margin_may_be_one_an_anchor():
    miner = Mined("triplet_margin", slots=3)
    case = random_cases(miner, "self")[3]
    margins = np.linspace(0.0, 3.5, ROWS).astype(np.float32)
    found = jm.miners.triplet_margin(**case, margin=margins, block_size=3)
    chosen, _ = slots_of([np.asarray(a)[None] for a in found], 0)
    expected = []
    for i, m in enumerate(margins.tolist()):
        every = oracles_miners.mined_triplet_margin(case, margin=m)
        expected += [slot for slot in every if slot[0] == i]
    assert chosen == expected


def test_gradients_do_not_pass_through_a_miner():
    x = jnp.asarray(random_cases(MINERS[0], "self")[0]["embeddings"])
    labels = jnp.arange(ROWS) % 3

    def value(x, triplets):
        return jm.losses.triplet_loss(x, triplets, margin=3.0)

    def mine(x):
        return jm.miners.angular(x, labels, size=40, block_size=3)

    gradient = jax.jit(jax.grad(lambda x: value(x, mine(x))))(x)
    expected = jax.jit(jax.grad(value))(x, mine(x))
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
