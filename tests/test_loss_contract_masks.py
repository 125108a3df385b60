"""The contract battery: masked, broken, permuted and renamed rows; weights; parts."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from cases import REFERENCES, full_case, random_cases
from degenerate import NUM_CLASSES, ROWS
from subjects import ROWS_UNSEEN, Subject, each_loss, first_order, reductions, run
from tolerances import SAME

import jaxmetric as jm

BAD = (np.nan, np.inf, -np.inf)


def assert_same_bits(one: dict, other: dict) -> None:
    """Require two answers to be equal in every bit, signs of zeros apart."""
    jax.tree.map(np.testing.assert_array_equal, one, other)


def assert_close(got, want, dtype: str, largest: float | None = None) -> None:
    """Compare two computations of the same numbers in the same dtype."""
    largest = max(1.0, float(np.max(np.abs(want), initial=0)) if largest is None else 0)
    np.testing.assert_allclose(got, want, rtol=0, atol=SAME[dtype] * largest)


def fill_masked_rows(case: dict, seed: int, *, side: str = "") -> dict:
    """Return the case with anything at all in the rows that do not exist."""
    rng = np.random.default_rng(seed)
    gone = ~case[f"{side}where"]
    embeddings = case[f"{side}embeddings"].copy()
    content = rng.choice([*BAD, 1e38, -1e-40, 0.0], size=embeddings.shape)
    embeddings[gone] = content.astype(np.float32)[gone]
    labels, ids = case[f"{side}labels"].copy(), case.get(f"{side}ids")
    labels[gone] = rng.integers(-(2**31), 2**31, gone.sum())
    filled = {**case, f"{side}embeddings": embeddings, f"{side}labels": labels}
    if ids is not None:
        filled[f"{side}ids"] = np.where(gone, ids[0], ids).astype(np.int32)
    return filled


@each_loss
def test_the_content_of_masked_rows_changes_no_bit(subject):
    cases = [case for case, _ in random_cases(subject, 64)]
    cases = [case for case in cases if not case["where"].all()]
    assert len(cases) > 20
    filled = [fill_masked_rows(case, seed) for seed, case in enumerate(cases)]
    plain, other = run(subject, cases), run(subject, filled)
    for case, one, two in zip(cases, plain, other, strict=True):
        assert_same_bits(one, two)
        assert not two["grad"]["embeddings"][~case["where"]].any()


@each_loss
def test_the_content_of_masked_references_changes_no_bit(subject):
    if not subject.has_references:
        return
    cases = [case for case, _ in random_cases(subject, 64, mode="ref")]
    filled = [fill_masked_rows(c, k, side="ref_") for k, c in enumerate(cases)]
    plain = run(subject, cases, "float64", body=first_order)
    other = run(subject, filled, "float64", body=first_order)
    for case, one, two in zip(cases, plain, other, strict=True):
        assert_same_bits(one, two)
        assert not two["grad"]["ref_embeddings"][~case["ref_where"]].any()


@each_loss
def test_a_row_that_exists_and_is_not_finite_makes_the_loss_nan(subject):
    cases = []
    for bad in BAD:
        for row in (0, ROWS - 1):
            case = full_case(subject, row)
            case["embeddings"][row, 1] = bad
            cases.append(case)
        # Nothing is valid here, and the loss is NaN all the same.
        case = full_case(subject)
        case["labels"] = np.zeros(ROWS, np.int32)
        case["embeddings"][2, 0] = bad
        if subject.name not in ROWS_UNSEEN:
            cases.append(case)
        if subject.oracle.has_proxies:
            case = full_case(subject)
            case["proxies"][NUM_CLASSES - 1, 0] = bad
            cases.append(case)
    for got in run(subject, cases):
        assert np.isnan(got["value"])
        if "stats" in got and subject.name not in ROWS_UNSEEN:
            assert np.isnan(got["stats"]["total"]).all()
    if "reduction" not in subject.parameters:
        return
    for got in run(subject, cases, "float64", body=reductions):
        assert all(np.isnan(got[name]) for name in oracles.REDUCTIONS)


@each_loss
def test_a_reference_that_exists_and_is_not_finite_makes_the_loss_nan(subject):
    if not subject.has_references:
        return
    cases = []
    for bad in BAD:
        case = full_case(subject, mode="ref")
        case["ref_embeddings"][REFERENCES - 1, 0] = bad
        cases.append(case)
    for got in run(subject, cases, "float64", body=first_order):
        assert np.isnan(got["value"])


@each_loss
def test_a_permutation_of_the_batch_permutes_the_gradient(subject):
    if not subject.oracle.order_free:
        return
    cases = [case for case, _ in random_cases(subject, 64)]
    rng = np.random.default_rng(0)
    orders = [rng.permutation(ROWS) for _ in cases]
    rows = ("embeddings", "labels", "where", "weights", "ids")
    rows += ("ref_embeddings", "ref_labels")  # of keys, which belong to the rows
    permuted = [
        {k: v[order] if k in rows else v for k, v in case.items()}
        for case, order in zip(cases, orders, strict=True)
    ]
    plain, other = run(subject, cases, "float64"), run(subject, permuted, "float64")
    for one, two, order in zip(plain, other, orders, strict=True):
        assert_close(two["value"], one["value"], "float64")
        assert_close(
            two["grad"]["embeddings"], one["grad"]["embeddings"][order], "float64"
        )


@each_loss
def test_other_names_for_the_classes_change_no_bit(subject):
    cases = [case for case, _ in random_cases(subject, 64)]
    rng = np.random.default_rng(0)
    renamed = []
    for case in cases:
        case = dict(case)
        if subject.oracle.has_proxies:
            names = rng.permutation(NUM_CLASSES)
            of_classes = [k for k, h in subject.oracle.hyper.items() if h.per_class]
            for key in ("proxies", *of_classes):
                side = case if key == "proxies" else dict(case["hyper"])
                if key in side:
                    side[key] = side[key][np.argsort(names)]
                    case.update({"hyper": side} if side is not case else {})
        else:
            names = rng.choice(2**32, NUM_CLASSES, replace=False) - 2**31
        for side in {"labels", "ref_labels"} & set(case):
            case[side] = names[case[side]].astype(np.int32)
        if "ids" in case:
            case["ids"] = (-7 - 1000 * case["ids"]).astype(np.int32)
        renamed.append(case)
    plain, other = run(subject, cases), run(subject, renamed)
    for one, two in zip(plain, other, strict=True):
        if subject.oracle.has_proxies:
            assert_close(two["value"], one["value"], "float32")
            grads = one["grad"]["embeddings"], two["grad"]["embeddings"]
            assert_close(*grads, "float32")
        else:
            assert_same_bits(one, two)


@each_loss
def test_a_label_without_a_proxy_makes_the_loss_nan(subject):
    if not subject.oracle.has_proxies:
        return
    cases = []
    for label in (-1, NUM_CLASSES, 2**31 - 1, -(2**31)):
        case = full_case(subject)
        case["labels"][3] = label
        cases += [case, {**case, "where": np.arange(ROWS) != 3}]
    got = [np.isnan(answer["value"]) for answer in run(subject, cases)]
    assert got == [True, False] * 4


@each_loss
def test_weights_of_one_change_nothing_and_weight_zero_drops_the_anchor(subject):
    if "weights" not in subject.parameters or "reduction" not in subject.parameters:
        return
    cases = []
    for case, _ in random_cases(subject, 32):
        case = {**case, "weights": np.ones(ROWS)}
        # Any scale of the weights gives the same mean.
        cases += [case, {**case, "weights": np.full(ROWS, 2.0**-20)}]
        kept = np.arange(ROWS) < 5
        cases.append({**case, "weights": kept.astype(float)})
    got = run(subject, cases, "float64")
    reduced = run(subject, cases, "float64", body=reductions)
    is_mean = subject.oracle.reduction != "sum"
    for k in range(0, len(cases), 3):
        ones, tiny, dropped = got[k : k + 3]
        stats = jm.LossStats(**ones["stats"])
        with jax.enable_x64(True):
            value = jm.reduce(
                jm.LossStats(*map(jnp.asarray, stats)), subject.oracle.reduction
            )
        assert_close(ones["value"], value, "float64")
        assert ones["stats"]["num_terms"].dtype in (np.int32, np.float64)
        if is_mean:
            assert_close(tiny["value"], ones["value"], "float64")
            assert_close(
                tiny["grad"]["embeddings"], ones["grad"]["embeddings"], "float64"
            )
        anchors = len(stats.total) // ROWS
        kept = np.repeat(np.arange(ROWS) < 5, anchors)
        assert_close(reduced[k + 2]["sum"], stats.total[kept].sum(), "float64")
        count = stats.num_terms[kept].sum()
        mean = stats.total[kept].sum() / count if count > 0 else 0.0
        assert_close(reduced[k + 2]["mean"], mean, "float64")
        assert np.isfinite(dropped["value"])


@each_loss
def test_weights_of_any_scale_give_one_value_where_there_is_no_reduction(subject):
    if "weights" not in subject.parameters or "reduction" in subject.parameters:
        return
    cases = [c for c, _ in random_cases(subject, 64)]
    # The second half has weights of 1, which is what leaving them out means.
    ones = [{**case, "weights": np.ones(ROWS)} for case in cases[:32]]
    tiny = [{**case, "weights": 2.0**-20 * case["weights"]} for case in cases[32:]]
    absent = [{k: v for k, v in c.items() if k != "weights"} for c in cases[:32]]
    plain = run(subject, ones + cases[32:], "float64")
    others = run(subject, absent, "float64") + run(subject, tiny, "float64")
    for one, two in zip(plain, others, strict=True):
        assert_close(two["value"], one["value"], "float64")
        grads = two["grad"]["embeddings"], one["grad"]["embeddings"]
        assert_close(*grads, "float64")


@each_loss
def test_statistics_of_parts_of_a_batch_add_up(subject):
    """Anchors in two halves against all rows, ids in place of self exclusion."""
    if not subject.has_references or "reduction" not in subject.parameters:
        return
    # The part decides what is first, what the anchors are compared with, what is self.
    if not subject.oracle.order_free or subject.is_paired or subject.oracle.has_self:
        return
    if not subject.oracle.is_additive:
        return
    empty = REFERENCES - ROWS
    parts, wholes = [], []
    for case, _ in random_cases(subject, 16, seed=2):
        case = {**case, "ids": np.arange(ROWS, dtype=np.int32)}
        case["weights"] = np.ones(ROWS)
        hyper = {
            k: np.broadcast_to(v, ROWS) if k in subject.oracle.per_anchor else v
            for k, v in case["hyper"].items()
        }
        wholes.append(case)
        refs = {
            f"ref_{key}": np.concatenate([case[key], np.zeros_like(case[key][:empty])])
            for key in ("embeddings", "labels", "where", "ids")
        }
        for half in (np.arange(ROWS) < 3, np.arange(ROWS) >= 3):
            part = {**case, **refs, "where": case["where"] & half, "hyper": hyper}
            parts.append(part)
    split = run(subject, parts, "float64", body=first_order)
    whole = run(subject, wholes, "float64")
    for k, want in enumerate(whole):
        halves = [answer["stats"] for answer in split[2 * k : 2 * k + 2]]
        with jax.enable_x64(True):
            stats = jm.LossStats(
                *(
                    jnp.concatenate([half[name] for half in halves])
                    for name in ("total", "num_terms", "num_active")
                )
            )
            value = jm.reduce(stats, subject.oracle.reduction)
        assert_close(value, want["value"], "float64")


def test_this_file_can_fail():
    """A masked row that leaks is noticed."""
    subject = Subject("contrastive_loss")
    case = random_cases(subject, 1)[0][0]
    case = {**case, "where": np.arange(ROWS) < 6}
    leaking = {**case, "where": np.arange(ROWS) < 7}
    one, two = run(subject, [case, leaking])
    with pytest.raises(AssertionError):
        assert_same_bits(one, two)
