"""The contract battery: derivatives, their bounds, and the symmetries of distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import expected, full_case, random_cases
from degenerate import DIM, ROWS
from subjects import Subject, direction, each_kind, each_loss, run
from tolerances import (
    CLEARANCE,
    DIFFERENCE,
    PAIR_GRADIENT,
    SAME,
    STEP,
    gradient_bound,
)

MOVING = ("embeddings", "ref_embeddings", "proxies")


def moved(case: dict, name: str, where: tuple[int, ...], step: float) -> dict:
    """Return the case with one coordinate of an array or hyper-parameter moved."""
    if name in case["hyper"]:
        value = case["hyper"][name].astype(np.float64)
        value = value.copy()
        value[where] += step
        return {**case, "hyper": {**case["hyper"], name: value}}
    value = case[name].astype(np.float64)
    value[where] += step
    return {**case, name: value}


def coordinates(case: dict) -> list[tuple[str, tuple[int, ...]]]:
    """Return every coordinate that has a gradient."""
    arrays = {name: case[name] for name in MOVING if name in case} | case["hyper"]
    return [(name, at) for name, a in arrays.items() for at in np.ndindex(a.shape)]


@each_loss
def test_gradients_agree_with_central_differences_in_every_coordinate(subject):
    if subject.oracle.has_frozen_factors:
        return
    clearance = 10 * CLEARANCE["float64"]
    for case, _ in random_cases(subject, 4, seed=3, clearance=clearance):
        places = coordinates(case)
        steps = [
            moved(case, name, at, sign * STEP)
            for name, at in places
            for sign in (1, -1)
        ]
        center, *values = run(subject, [case, *steps], "float64")
        values = np.array([answer["value"] for answer in values])
        numeric = (values[0::2] - values[1::2]) / (2 * STEP)
        exact = np.array([center["grad"][name][at] for name, at in places])
        scale = subject.oracle.logit_scale(case["hyper"])
        bound = DIFFERENCE["float64"] * max(1.0, scale)
        np.testing.assert_allclose(exact, numeric, rtol=0, atol=bound)


def frozen_differences(subject: Subject, case: dict, **flags) -> np.ndarray:
    """Return the oracle's central differences, its factors those of the case itself."""
    reduction = subject.oracle.reduction or "sum"
    factors: dict = {}
    expected(subject, case, factors=factors, **flags)

    def value(name: str, at: tuple[int, ...], step: float) -> float:
        other = moved(case, name, at, step)
        return expected(subject, other, factors=factors, **flags).reduced(reduction)

    differences = [
        value(name, at, STEP) - value(name, at, -STEP) for name, at in coordinates(case)
    ]
    return np.array(differences) / (2 * STEP)


@each_loss
def test_gradients_agree_with_differences_where_factors_are_frozen(subject):
    if not subject.oracle.has_frozen_factors:
        return
    clearance = 10 * CLEARANCE["float64"]
    found = [c for c, _ in random_cases(subject, 4, seed=3, clearance=clearance)]
    for case, got in zip(found, run(subject, found, "float64"), strict=True):
        numeric = frozen_differences(subject, case)
        exact = np.array([got["grad"][name][at] for name, at in coordinates(case)])
        scale = subject.oracle.logit_scale(case["hyper"])
        bound = DIFFERENCE["float64"] * max(1.0, scale)
        np.testing.assert_allclose(exact, numeric, rtol=0, atol=bound)


@each_loss
def test_forward_and_second_derivatives_agree_with_differences(subject):
    clearance = 10 * CLEARANCE["float64"]
    found = [c for c, _ in random_cases(subject, 16, seed=4, clearance=clearance)]
    ways = [direction(case, k) for k, case in enumerate(found)]
    for case, way in zip(found, ways, strict=True):
        steps = [
            {**case, **{k: case[k].astype(float) + sign * STEP * way[k] for k in way}}
            for sign in (1, -1)
        ]
        steps = [case, *steps]
        center, up, down = run(subject, steps, "float64", directions=[way] * 3)
        forward = sum(np.sum(center["grad"][k] * way[k]) for k in way)
        scale = max(1.0, subject.oracle.logit_scale(case["hyper"])) ** 2
        assert abs(center["jvp"] - forward) <= SAME["float64"] * scale * 100
        # Factors without gradient move between two gradients, but not in a Hessian.
        for name in way if not subject.oracle.has_frozen_factors else ():
            numeric = (up["grad"][name] - down["grad"][name]) / (2 * STEP)
            table = DIFFERENCE
            # Third derivatives and rounding grow with the second.
            bound = gradient_bound("float64", numeric, scale, table) * 10
            np.testing.assert_allclose(center["hvp"][name], numeric, rtol=0, atol=bound)


@each_kind
def test_hessian_and_gradient_of_gradient_agree_with_forward_over_reverse(subject):
    case = full_case(subject)
    way = direction(case)["embeddings"]
    want = run(subject, [case], directions=[direction(case)])[0]
    hyper = {k: jnp.asarray(v) for k, v in case["hyper"].items()}
    arrays = {k: jnp.asarray(v) for k, v in case.items() if k != "hyper"}

    @jax.jit
    def second(x, way):
        def loss(x):
            return subject({**arrays, "embeddings": x}, **hyper)

        reverse = jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), way))(x)
        return reverse, jax.hessian(loss)(x)

    reverse, hessian = second(arrays["embeddings"], jnp.asarray(way))
    hessian = np.asarray(hessian).reshape(ROWS * DIM, ROWS * DIM)
    scale = max(1.0, subject.oracle.logit_scale(case["hyper"])) ** 2
    bound = gradient_bound("float32", hessian, scale) * 10
    np.testing.assert_allclose(hessian, hessian.T, rtol=0, atol=bound)
    if len(direction(case)) > 1:  # the jvp moved the other side as well
        others = {**direction(case), "embeddings": np.zeros_like(way)}
        only = run(subject, [case], directions=[others])[0]["hvp"]["embeddings"]
        want["hvp"]["embeddings"] = want["hvp"]["embeddings"] - only
    along = (hessian @ way.reshape(-1)).reshape(ROWS, DIM)
    np.testing.assert_allclose(along, want["hvp"]["embeddings"], rtol=0, atol=bound)
    np.testing.assert_allclose(reverse, want["hvp"]["embeddings"], rtol=0, atol=bound)


@each_loss
def test_float32_gradients_agree_with_float64(subject):
    cases = [case for case, _ in random_cases(subject, 300)]
    narrow, wide = run(subject, cases), run(subject, cases, "float64")
    for case, got, want in zip(cases, narrow, wide, strict=True):
        scale = subject.oracle.logit_scale(case["hyper"])
        for name, grad in want["grad"].items():
            bound = gradient_bound("float32", grad, scale)
            np.testing.assert_allclose(got["grad"][name], grad, rtol=0, atol=bound)


@each_loss
def test_gradients_at_duplicated_rows_are_those_of_the_rest(subject):
    """Rows 0 and 1 are one point: moving both, their own distance stays 0."""
    for labels in ([0, 0, 1, 1, 0, 1, 2, 2], [0, 1, 0, 1, 0, 1, 2, 2]):
        case = full_case(subject, 5)
        case["labels"] = np.asarray(labels, np.int32)
        case["embeddings"][1] = case["embeddings"][0]
        case["embeddings"] /= 2
        steps = []
        for row in range(1, ROWS):
            for column in range(DIM):
                for sign in (1, -1):
                    x = case["embeddings"].astype(np.float64)
                    x[row, column] += sign * STEP
                    x[0] = x[1]
                    steps.append({**case, "embeddings": x})
        center, *answers = run(subject, [case, *steps], "float64")
        values = np.array([answer["value"] for answer in answers])
        numeric = ((values[0::2] - values[1::2]) / (2 * STEP)).reshape(-1, DIM)
        grad = center["grad"]["embeddings"]
        exact = np.concatenate([grad[0:1] + grad[1:2], grad[2:]])
        scale = subject.oracle.logit_scale(case["hyper"])
        bound = DIFFERENCE["float64"] * max(1.0, scale)
        if not subject.oracle.has_frozen_factors:
            np.testing.assert_allclose(exact, numeric, rtol=0, atol=bound)
        assert all(np.isfinite(h).all() for h in center["hvp"].values())


def scaled(case: dict, factor: float) -> dict:
    """Return the case with all rows multiplied."""
    names = [name for name in MOVING if name in case]
    return {**case, **{name: case[name].astype(float) * factor for name in names}}


@each_loss
def test_gradients_are_bounded_at_every_scale_of_the_input(subject):
    case = full_case(subject, 6)
    defaults = {n: h.default for n, h in subject.oracle.hyper.items()}
    case["hyper"] = {
        name: case["hyper"][name] if value is None else np.float32(value)
        for name, value in defaults.items()
    }
    factors = [10.0**k for k in range(-8, 9)]
    answers = run(subject, [scaled(case, factor) for factor in factors])
    unscaled = answers[8]["grad"]
    is_cosine = subject.oracle.distance in (None, "cosine")
    for factor, got in zip(factors, answers, strict=True):
        assert np.isfinite(got["value"])
        assert all(np.isfinite(grad).all() for grad in got["grad"].values())
        grad = got["grad"]["embeddings"]
        if subject.oracle.bound is not None:
            limit = subject.oracle.bound * (1 + PAIR_GRADIENT["float32"])
            assert np.linalg.norm(grad) <= limit
        norms = np.linalg.norm(case["embeddings"] * factor, axis=-1)
        if is_cosine and norms.max() <= 1e-6:
            assert not grad.any()
        elif is_cosine and norms.min() > 2e-6:
            scale = subject.oracle.logit_scale(case["hyper"])
            want = unscaled["embeddings"]
            bound = gradient_bound("float32", want, scale)
            np.testing.assert_allclose(grad * factor, want, rtol=0, atol=bound)


@each_loss
def test_rows_without_direction_get_no_gradient(subject):
    if subject.oracle.distance not in (None, "cosine"):
        return
    cases = []
    for length in (0.0, 1e-7, 9e-7):
        case = full_case(subject)
        x = case["embeddings"]
        x[2] *= length / np.linalg.norm(x[2])
        cases.append(case)
    for dtype in ("float32", "float64"):
        answers = run(subject, cases, dtype)
        for got in answers:
            assert not got["grad"]["embeddings"][2].any()
            assert got["value"] == answers[0]["value"]


@each_loss
def test_the_loss_has_the_symmetries_of_its_distance(subject):
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    names = [name for name in MOVING if name in full_case(subject)]
    distance = subject.oracle.distance or "cosine"
    plain = [case for case, _ in random_cases(subject, 16, seed=8)]

    def mapped(function) -> list[dict]:
        return [
            {**c, **{n: function(c[n].astype(float)) for n in names}} for c in plain
        ]

    def check(changed: list[dict], factor: float = 1.0) -> None:
        one, two = run(subject, plain, "float64"), run(subject, changed, "float64")
        for a, b in zip(one, two, strict=True):
            bound = SAME["float64"] * (1 + abs(a["value"]) * factor) * 100
            assert abs(b["value"] - factor * a["value"]) <= bound

    if distance in ("euclidean", "sqeuclidean", "cosine", "dot"):
        check(mapped(lambda x: x @ turn))
    if distance in ("euclidean", "sqeuclidean", "manhattan"):
        check(mapped(lambda x: x + np.array([1.0, -2.0, 0.5, 3.0])))
    if distance == "cosine":
        check(mapped(lambda x: x * 3.0))
        check(mapped(lambda x: x * rng.uniform(0.5, 2, (*x.shape[:-1], 1))))
    if subject.oracle.scales is not None and distance == "euclidean":
        larger = [{**c, "hyper": dict(c["hyper"])} for c in mapped(lambda x: x * 3.0)]
        for case in larger:
            for name in subject.oracle.scales_with:
                case["hyper"][name] = 3.0 * case["hyper"][name].astype(float)
        check(larger, factor=3.0**subject.oracle.scales)


@each_loss
def test_every_hyper_parameter_matters_and_may_be_mapped_over(subject):
    case = full_case(subject, 9)
    case["embeddings"] /= 2
    arrays = {k: jnp.asarray(v) for k, v in case.items() if k != "hyper"}
    for name, hyper in subject.oracle.hyper.items():
        sweep = np.linspace(hyper.low, hyper.high, 3).astype(np.float32)
        if hyper.per_class:
            sweep = sweep[:, None] ** np.arange(ROWS, dtype=np.float32)
        other = {k: jnp.asarray(v) for k, v in case["hyper"].items() if k != name}

        def loss(value, name=name, other=other):
            return subject(arrays, **{name: value}, **other)

        mapped = jax.vmap(loss)(jnp.asarray(sweep))
        stacked = [{**case, "hyper": {**case["hyper"], name: v}} for v in sweep]
        looped = np.array([answer["value"] for answer in run(subject, stacked)])
        np.testing.assert_allclose(mapped, looped, rtol=SAME["float32"])
        assert len(set(looped.tolist())) == len(sweep), name


def test_this_file_can_fail():
    """A gradient 1e-6 too large in one coordinate is noticed."""
    subject = Subject("contrastive_loss")
    case, _ = random_cases(subject, 1, seed=3)[0]
    center, up, down = run(
        subject,
        [
            case,
            moved(case, "embeddings", (0, 0), STEP),
            moved(case, "embeddings", (0, 0), -STEP),
        ],
        "float64",
    )
    numeric = (up["value"] - down["value"]) / (2 * STEP)
    wrong = center["grad"]["embeddings"][0, 0] + 1e-6
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(wrong, numeric, rtol=0, atol=DIFFERENCE["float64"])
