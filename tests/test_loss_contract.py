"""The contract battery: what every loss promises, over all that are discovered.

Here: that each has an oracle and agrees with it in value and counts. What masks,
labels, reductions, derivatives, blocks and programs promise is in the files
`test_loss_contract_*.py`, over the same losses.
"""

import inspect
import pathlib

import degenerate
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from cases import expected, full_case, random_cases
from subjects import (
    ADAPTERS,
    ELSEWHERE,
    SUBJECTS,
    Subject,
    each_kind,
    each_loss,
    first_order,
    reductions,
    run,
)
from tolerances import CLEARANCE, gradient_bound, value_bound

import jaxmetric as jm


def logit_scale(subject: Subject, case: dict, distance: str | None = None) -> float:
    """Return by how much rounding of a similarity is magnified in a case."""
    hyper = {k: v if v is None else np.max(v) for k, v in case["hyper"].items()}
    scale = subject.oracle.logit_scale(hyper)
    if (distance or subject.oracle.distance) == "dot":
        rows = case["embeddings"].astype(float)[case["where"]]
        others = case.get("proxies", case["embeddings"]).astype(float)
        scale *= np.linalg.norm(rows, axis=-1).max(initial=1)
        scale *= np.linalg.norm(others, axis=-1).max(initial=1)
    return float(scale)


def assert_like_oracle(
    subject: Subject,
    case: dict,
    result: oracles.Result,
    got: dict,
    dtype: str,
    *,
    check_active: bool | None = None,
    distance: str | None = None,
    magnitude: float = 0.0,
) -> None:
    """Compare value and statistics of a case with its oracle.

    A tolerance grows with the value and, where given, the magnitude of the distances
    whose differences the loss adds.
    """
    scale = logit_scale(subject, case, distance)
    reduction = subject.oracle.reduction
    value = result.reduced(reduction or "sum")
    if check_active is None:
        check_active = result.clearance > CLEARANCE[dtype]
    if reduction != "mean_active" or check_active:
        bound = value_bound(dtype, abs(value) + magnitude, scale)
        assert got["value"] == pytest.approx(value, abs=bound, rel=0, nan_ok=True)
    if np.isnan(value) or "stats" not in got:
        return
    stats = got["stats"]
    rows = zip(stats["total"], result.total, result.num_terms, strict=True)
    for t, want, count in rows:
        bound = value_bound(dtype, abs(want) + count * magnitude, scale)
        assert abs(float(t) - want) <= bound
    assert_counts(stats["num_terms"], result.num_terms)
    if check_active:
        assert_counts(stats["num_active"], result.num_active)


def assert_counts(got: np.ndarray, want: list[float]) -> None:
    """Compare counts, which are integers unless classes are weighted."""
    if got.dtype == np.int32:
        assert got.tolist() == want
    else:
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_every_loss_is_under_test():
    names = [n for n in jm.losses.__all__ if callable(getattr(jm.losses, n))]
    missing = set(names) - {subject.name for subject in SUBJECTS} - set(ELSEWHERE)
    assert not missing, f"no adapter in tests/subjects.py for {sorted(missing)}"
    assert set(ADAPTERS) | set(ELSEWHERE) <= set(names)
    for name, file in ELSEWHERE.items():
        assert name in (pathlib.Path(__file__).parent / file).read_text(), file


@each_loss
def test_every_loss_has_an_oracle_of_the_same_hyper_parameters(subject):
    defaults = subject.oracle.defaults()
    assert subject.hyper == set(defaults)
    parameters = subject.parameters
    assert {name: parameters[name].default for name in defaults} == defaults
    for name in ("distance", "reduction"):
        if name in parameters:
            assert parameters[name].default == getattr(subject.oracle, name)


@each_loss
def test_arrays_come_first_and_everything_else_is_keyword_only(subject):
    for name, parameter in subject.parameters.items():
        if parameter.default is inspect.Parameter.empty:
            assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD, name
        else:
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, name


@each_loss
def test_values_agree_with_the_oracle_on_300_random_batches(subject):
    _check_values(subject, "float32")


@each_kind
def test_doubles_agree_with_the_oracle_on_300_random_batches(subject):
    _check_values(subject, "float64")


def _check_values(subject, dtype):
    pairs = random_cases(subject, 300)
    answers = run(subject, [case for case, _ in pairs], dtype)
    for (case, result), got in zip(pairs, answers, strict=True):
        assert_like_oracle(subject, case, result, got, dtype)
    # The cases would prove nothing if most of them were empty or inactive.
    counted = [result for _, result in pairs if sum(result.num_terms) > 0]
    assert len(counted) > 150
    active = [sum(r.num_active) / sum(r.num_terms) for r in counted]
    assert np.mean(active) > 0.2


@each_loss
def test_references_and_margins_of_each_anchor_agree_with_the_oracle(subject):
    if not subject.has_references:
        return
    pairs = random_cases(subject, 64, mode="ref")
    answers = run(subject, [c for c, _ in pairs], "float64", body=first_order)
    for (case, result), got in zip(pairs, answers, strict=True):
        assert_like_oracle(subject, case, result, got, "float64")


@each_loss
def test_flags_agree_with_the_oracle(subject):
    for flag, (default, other) in subject.oracle.flags.items():
        if other == default:  # has no other value here, and a test beside the loss
            continue
        pairs = random_cases(subject, 64, flags=((flag, other),))
        answers = run(
            subject,
            [case for case, _ in pairs],
            "float64",
            body=first_order,
            **{flag: other},
        )
        for (case, result), got in zip(pairs, answers, strict=True):
            assert_like_oracle(subject, case, result, got, "float64")


def _check_distance(subject: Subject, distance: str) -> None:
    if "distance" not in subject.parameters:
        return
    pairs = random_cases(subject, 64, distance=distance)
    answers = run(
        subject,
        [case for case, _ in pairs],
        "float64",
        body=first_order,
        distance=distance,
    )
    for (case, result), got in zip(pairs, answers, strict=True):
        assert_like_oracle(subject, case, result, got, "float64", distance=distance)


@each_loss
def test_another_distance_agrees_with_the_oracle(subject):
    # Which one rotates over the losses, so that every name is taken by some of them.
    others = [d for d in oracles.DISTANCES if d != subject.oracle.distance]
    _check_distance(subject, others[SUBJECTS.index(subject) % len(others)])


@each_loss
@pytest.mark.slow
@pytest.mark.parametrize("distance", oracles.DISTANCES)
def test_every_distance_agrees_with_the_oracle(subject, distance):
    _check_distance(subject, distance)


@each_loss
def test_every_reduction_agrees_with_the_oracle(subject):
    if "reduction" not in subject.parameters:
        return
    pairs = random_cases(subject, 64)
    answers = run(subject, [case for case, _ in pairs], "float64", body=reductions)
    for (case, result), got in zip(pairs, answers, strict=True):
        for name in set(oracles.REDUCTIONS) - set(subject.oracle.own_reductions):
            want = result.reduced(name)
            bound = value_bound("float64", want, logit_scale(subject, case))
            assert abs(got[name] - want) <= bound, name
        weights = np.asarray(result.weights)
        stats = got["stats"]
        np.testing.assert_allclose(stats["num_terms"], weights * result.num_terms)
        np.testing.assert_allclose(stats["num_active"], weights * result.num_active)
        # What "none" returns gives the scalars back.
        total, count = stats["total"].sum(), stats["num_terms"].sum()
        assert total == pytest.approx(got["sum"], rel=1e-12, abs=1e-14)
        mean = total / count if count > 0 else 0
        assert mean == pytest.approx(got["mean"], rel=1e-12, abs=1e-14)


@each_kind
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_equals_float32_of_the_rounded_rows(subject, dtype):
    names = ("embeddings", "proxies", "ref_embeddings")
    cases, results = [], []
    for case, _ in random_cases(subject, 64, seed=1):
        case = dict(case)
        for name in names:
            if name in case:
                rounded = case[name].astype(jnp.dtype(dtype))
                case[name] = rounded.astype(np.float32)
        result = expected(subject, case)
        if result.clearance > CLEARANCE[dtype]:
            cases.append(case)
            results.append(result)
    assert len(cases) > 40
    answers = run(subject, cases, dtype, body=first_order)
    wide = run(subject, cases, "float32")
    for case, result, got, like in zip(cases, results, answers, wide, strict=True):
        assert got["value"].dtype == np.float32
        assert_like_oracle(subject, case, result, got, dtype)
        # The adapters gather rows into slots: those gradients add up in half precision.
        for name in set(names) & set(case) if subject.name not in ADAPTERS else ():
            grad = got["grad"][name]
            assert grad.dtype == jnp.dtype(dtype)
            bound = gradient_bound(dtype, like["grad"][name])
            grad = grad.astype(np.float32)
            np.testing.assert_allclose(grad, like["grad"][name], rtol=0, atol=bound)


def _default(hyper: oracles.Hyper) -> np.ndarray:
    """Return a default as an array; None is one a class, or taken from the width."""
    if hyper.default is None and hyper.per_class:
        return np.ones(degenerate.NUM_CLASSES)
    # Twice the width: antipodal rows are at the width, where a cost has its pole.
    return np.asarray(2 * degenerate.DIM if hyper.default is None else hyper.default)


def _degenerate_cases(subject: Subject, dtype: str) -> list[tuple]:
    hyper = {name: _default(h) for name, h in subject.oracle.hyper.items()}
    found = []
    for shape in degenerate.shapes(jnp.dtype(dtype)):
        case: dict = degenerate.padded(shape)
        case["hyper"] = dict(hyper)
        if shape.name == "integers" and "margin" in hyper:
            case["hyper"]["margin"] = np.asarray(1.0)
        # The default of a float32 loss is the float32 nearest to the sheet's number.
        case["hyper"] = {k: v.astype(np.float32) for k, v in case["hyper"].items()}
        if subject.oracle.has_proxies:
            size = subject.oracle.proxies_shape(degenerate.NUM_CLASSES, degenerate.DIM)
            proxies = np.random.default_rng(1).normal(size=size)
            case["proxies"] = proxies.astype(jnp.dtype(dtype)).astype(np.float32)
        case["weights"] = np.ones(degenerate.ROWS)
        found.append((shape, case))
    return found


@each_loss
@pytest.mark.parametrize(
    "dtype",
    [
        "float32",
        pytest.param("float64", marks=pytest.mark.slow),
        pytest.param("bfloat16", marks=pytest.mark.slow),
        pytest.param("float16", marks=pytest.mark.slow),
    ],
)
def test_degenerate_shapes(subject, dtype):
    pairs = _degenerate_cases(subject, dtype)
    is_wide = dtype.startswith("float") and dtype != "float16"
    body = None if is_wide else first_order
    answers = run(subject, [case for _, case in pairs], dtype, body=body)
    for (shape, case), got in zip(pairs, answers, strict=True):
        result = expected(subject, case)
        assert_like_oracle(
            subject,
            case,
            result,
            got,
            dtype,
            check_active=shape.is_exact or None,
            magnitude=result.magnitude,
        )
        if any(np.isnan(result.total)):
            assert np.isnan(got["value"]), shape.name
            continue
        assert all(np.isfinite(g).all() for g in got["grad"].values()), shape.name
        assert not got["grad"]["embeddings"][~case["where"]].any(), shape.name
        if sum(result.num_terms) == 0:
            assert got["value"] == 0, shape.name
            assert not any(g.any() for g in got["grad"].values()), shape.name


@each_kind
def test_true_shapes_eager_and_compiled(subject):
    wrap = {"one row": lambda f: f, "one pair and singletons": jax.jit}
    for shape in degenerate.shapes():
        if shape.name not in wrap:
            continue
        case = {"embeddings": shape.embeddings, "labels": shape.labels}
        if subject.oracle.has_proxies:
            eye = np.eye(8, 4, dtype=np.float32)
            case["proxies"] = np.resize(eye, subject.oracle.proxies_shape(8, 4))
        want = oracles.value(subject.name, case)
        hyper = subject.oracle.defaults()
        bound = value_bound("float32", want, subject.oracle.logit_scale(hyper))
        case = {key: jnp.asarray(value) for key, value in case.items()}
        assert abs(wrap[shape.name](subject.__call__)(case) - want) <= bound


@each_kind
def test_plain_calls_agree_however_they_are_made(subject):
    """Eager, jitted, vmapped, under value_and_grad, and sliced instead of masked."""
    case = full_case(subject)
    case["where"] = np.arange(degenerate.ROWS) < 6
    stacked = run(subject, [case], "float32")[0]
    hyper = {k: jnp.asarray(v) for k, v in case["hyper"].items()}
    rows = ("embeddings", "labels", "weights", "ids", "ref_embeddings", "ref_labels")
    sliced = {k: jnp.asarray(v[:6]) for k, v in case.items() if k in rows}
    if "proxies" in case:
        sliced["proxies"] = jnp.asarray(case["proxies"])

    def plain(embeddings):
        return subject({**sliced, "embeddings": embeddings}, **hyper)

    x = sliced["embeddings"]
    eager, compiled = plain(x), jax.jit(plain)(x)
    inside, grad = jax.value_and_grad(plain)(x)
    assert inside == eager  # bitwise: a guard never changes the value
    bound = value_bound("float32", float(eager), logit_scale(subject, case))
    assert abs(compiled - eager) <= bound
    assert abs(stacked["value"] - eager) <= bound
    np.testing.assert_allclose(stacked["grad"]["embeddings"][:6], grad, atol=bound)
    assert not stacked["grad"]["embeddings"][6:].any()


def test_the_battery_can_fail(monkeypatch):
    """A loss with the wrong sign of the margin does not pass."""
    subject = Subject("batch_all_triplet_loss")
    real = jm.losses.batch_all_triplet_loss

    def broken(embeddings, labels, *, margin=0.2, **options):
        return real(embeddings, labels, margin=-margin, **options)

    pairs = random_cases(subject, 8)
    case, result = next(pair for pair in pairs if sum(pair[1].num_active) > 0)
    hyper = {key: float(value) for key, value in case["hyper"].items()}
    arrays = {key: value for key, value in case.items() if key != "hyper"}
    monkeypatch.setattr(jm.losses, "batch_all_triplet_loss", broken)
    broken.__signature__ = inspect.signature(real)
    got = {"value": np.asarray(subject(arrays, **hyper))}
    with pytest.raises(AssertionError):
        assert_like_oracle(subject, case, result, got, "float32")
