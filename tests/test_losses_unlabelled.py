"""VICReg and shrinkage: the promises of every loss, for losses without labels.

Their arrays are two views, or predictions and targets, so they are not in the contract
battery: the same is tested here, over both at once where it can be.
"""

import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles_unlabelled as loops
import pytest
from oracles import REDUCTIONS, Result
from tolerances import DIFFERENCE, GRADIENT, PRINTED, SAME, STEP, VALUE

import jaxmetric as jm

losses: Any = jm.losses

ROWS, DIM = 7, 3
NAMES = ["vicreg_loss", "shrinkage_loss"]
BAD = (np.nan, np.inf, -np.inf)
each_loss = pytest.mark.parametrize("name", NAMES)


def two_sides(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 3])
    x = rng.normal(size=(2, ROWS, DIM)) * rng.uniform(0.3, 2, DIM)
    return x[0].astype(np.float32), x[1].astype(np.float32)


def mask(seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 4])
    return rng.random(ROWS) < rng.choice([0.2, 0.6, 1.0])


def loop(name: str, x, y, where, **options) -> float:
    """Return the value of the loop, with other hyper-parameters than the defaults."""
    x, y = (np.asarray(side, float).tolist() for side in (x, y))
    if name == "vicreg_loss":
        given = {"weights": (25, 25, 1), "epsilon": 1e-4} | options
        return loops.vicreg_loss(x, y, list(where), **given)
    given = {"a": 10.0, "c": 0.2, "target_weight": True} | options
    rows = [loops.shrinkage_terms(p, t, **given) for p, t in zip(x, y, strict=True)]
    terms = [v for row, e in zip(rows, where, strict=True) if e for v in row]
    return math.fsum(terms) / len(terms) if terms else 0.0


def test_vicreg_by_hand():
    x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    assert losses.vicreg_loss(x, x) == pytest.approx(25 * 0.99 / 2, rel=1e-6)
    # Two coordinates that are one: variance 2, covariance 2, nothing else.
    x = jnp.array([[1.0, 1.0], [-1.0, -1.0]])
    assert losses.vicreg_loss(x, x) == pytest.approx(2 * 2 * 2**2 / 2, rel=1e-6)
    # One sample: the first part alone.
    y = jnp.array([[1.0, 2.0]])
    assert losses.vicreg_loss(x[:1], y) == pytest.approx(25 / 2, rel=1e-6)


def test_shrinkage_by_hand():
    value = losses.shrinkage_loss(jnp.array([0.2]), jnp.array([0.0]))
    assert value == pytest.approx(0.02, rel=PRINTED["float32"])
    value = losses.shrinkage_loss(jnp.array([0.8]), jnp.array([1.0]))
    assert value == pytest.approx(0.02 * math.e, rel=PRINTED["float32"])


@each_loss
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_values_agree_with_loops_and_gradients_have_the_dtype(name, dtype):
    function = getattr(losses, name)
    compiled = jax.jit(jax.value_and_grad(lambda x, y, w: function(x, y, where=w)))
    wide = jax.jit(jax.grad(lambda x, y, w: function(x, y, where=w)))
    with jax.enable_x64(dtype == "float64"):
        for seed in range(20):
            x, y = (jnp.asarray(side).astype(dtype) for side in two_sides(seed))
            value, grad = compiled(x, y, mask(seed))
            want = loop(name, x, y, mask(seed))
            assert value.dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
            assert value == pytest.approx(want, abs=VALUE[dtype] * (1 + want), rel=0)
            assert grad.dtype == dtype
            if dtype in ("bfloat16", "float16"):
                x, y = x.astype(jnp.float32), y.astype(jnp.float32)
                like = np.asarray(wide(x, y, mask(seed)))
                atol = GRADIENT[dtype] * max(1.0, np.abs(like).max())
                grad = np.asarray(grad.astype(jnp.float32))
                np.testing.assert_allclose(grad, like, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("name", "options", "given"),
    [
        (
            "vicreg_loss",
            {"weights": (3, 5, 7), "epsilon": 0.01},
            {
                "invariance_weight": 3,
                "variance_weight": 5,
                "covariance_weight": 7.0,
                "epsilon": 0.01,
            },
        ),
        ("shrinkage_loss", {"a": 3.0, "c": 0.5}, {"a": 3, "c": 0.5}),
        ("shrinkage_loss", {"target_weight": False}, {"target_weight": False}),
    ],
)
def test_hyper_parameters_agree_with_loops(name, options, given):
    with jax.enable_x64(True):
        for seed in range(4):
            x, y = (jnp.asarray(side, jnp.float64) for side in two_sides(seed))
            got = getattr(losses, name)(x, y, where=mask(seed), **given)
            want = loop(name, x, y, mask(seed), **options)
            assert got == pytest.approx(want, rel=VALUE["float64"], abs=1e-15)


def test_the_signatures():
    hyper = {
        "vicreg_loss": (25.0, 25.0, 1.0, 1e-4),
        "shrinkage_loss": (10.0, 0.2, True),
    }
    for name, defaults in hyper.items():
        parameters = list(inspect.signature(getattr(losses, name)).parameters.values())
        first, rest = parameters[:2], parameters[2:]
        assert all(p.default is inspect.Parameter.empty for p in first)
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in rest)
        assert tuple(p.default for p in rest[: len(defaults)]) == defaults


@each_loss
def test_derivatives_agree_with_differences(name):
    function = getattr(losses, name)
    sides = np.stack(two_sides(5)).astype(float)
    where = np.arange(ROWS) != 2
    way = np.random.default_rng(1).normal(size=sides.shape)
    hyper = ["a", "c"]
    if name == "vicreg_loss":
        hyper = ["invariance_weight", "variance_weight", "covariance_weight", "epsilon"]
    numbers = np.array([0.7, 0.3, 0.4, 0.1])[: len(hyper)]

    def value(sides, numbers):
        options = dict(zip(hyper, numbers, strict=True))
        return function(*sides, where=where, **options)

    with jax.enable_x64(True):
        point = jnp.asarray(sides), jnp.asarray(numbers)
        grads = jax.grad(value, argnums=(0, 1))(*point)
        for k in range(2):
            size, shape = point[k].size, point[k].shape
            steps = np.eye(size).reshape(size, *shape) * STEP
            moved = [jnp.asarray(np.asarray(point[k]) + s * steps) for s in (1, -1)]
            axes = (0, None) if k == 0 else (None, 0)
            both = [
                jax.vmap(value, axes)(*(m if j == k else point[j] for j in range(2)))
                for m in moved
            ]
            numeric = np.asarray(both[0] - both[1]).reshape(shape) / (2 * STEP)
            bound = 10 * DIFFERENCE["float64"]
            np.testing.assert_allclose(grads[k], numeric, rtol=0, atol=bound)
        gradient = jax.grad(value)
        _, hvp = jax.jvp(lambda x: gradient(x, point[1]), point[:1], (way,))
        up, down = (gradient(point[0] + s * STEP * way, point[1]) for s in (1, -1))
    numeric = np.asarray(up - down) / (2 * STEP)
    np.testing.assert_allclose(hvp, numeric, rtol=0, atol=100 * DIFFERENCE["float64"])
    assert not np.asarray(grads[0])[:, 2].any()


@each_loss
def test_masked_rows_change_no_bit_and_existing_bad_rows_make_nan(name):
    function = getattr(losses, name)
    where = np.arange(ROWS) != 3
    compiled = jax.jit(
        jax.value_and_grad(lambda x, y, w: function(x, y, where=w), argnums=(0, 1))
    )
    sides = two_sides()
    plain = compiled(*sides, where)
    for bad in BAD:
        for k in range(2):
            filled = [side.copy() for side in sides]
            filled[k][3] = bad
            other = compiled(*filled, where)
            jax.tree.map(np.testing.assert_array_equal, other, plain)
            assert not any(grad[3].any() for grad in other[1])
            assert np.isnan(compiled(*filled, ~where)[0])
            filled[k][4, 0] = bad
            assert np.isnan(compiled(*filled, where)[0])
    padded = [np.concatenate([side, side[:2]]) for side in sides]
    value, grads = compiled(*padded, np.append(where, [False, False]))
    np.testing.assert_allclose(value, plain[0], rtol=SAME["float32"])
    for got, want in zip(grads, plain[1], strict=True):
        np.testing.assert_allclose(got[:ROWS], want, atol=1e2 * SAME["float32"])


@each_loss
def test_no_row_gives_zero_and_a_permutation_nothing_new(name):
    function = getattr(losses, name)
    x, y = map(jnp.asarray, two_sides())
    none = jnp.zeros(ROWS, bool)
    value, grad = jax.value_and_grad(lambda x: function(x, y, where=none))(x)
    assert value == 0
    assert not grad.any()
    order = np.random.default_rng(0).permutation(ROWS)
    one, two = function(x, y), function(x[order], y[order])
    assert two == pytest.approx(float(one), rel=SAME["float32"])


@each_loss
def test_eager_compiled_and_mapped_calls_agree(name):
    function = getattr(losses, name)
    pairs = [two_sides(seed) for seed in range(3)]
    eager = [float(function(*pair)) for pair in pairs]
    compiled = [float(jax.jit(function)(*pair)) for pair in pairs]
    mapped = jax.vmap(function)(*(jnp.stack(side) for side in zip(*pairs, strict=True)))
    np.testing.assert_allclose(compiled, eager, rtol=SAME["float32"])
    np.testing.assert_allclose(mapped, eager, rtol=SAME["float32"])


def test_equal_rows_of_vicreg_have_a_finite_gradient():
    """Total collapse: variance 0, and epsilon alone is under the root."""
    x = jnp.ones((4, 3))
    for epsilon in (1e-4, 0.0):
        value, grad = jax.value_and_grad(
            lambda x, e=epsilon: losses.vicreg_loss(x, x, epsilon=e)
        )(x)
        assert value == pytest.approx(25 * (1 - math.sqrt(epsilon)), rel=1e-6)
        assert not grad.any()


def test_vicreg_keeps_its_digits_under_a_common_offset():
    x, y = two_sides()
    want = loop("vicreg_loss", x + np.float32(1e3), y + np.float32(1e3), [True] * ROWS)
    got = losses.vicreg_loss(x + np.float32(1e3), y + np.float32(1e3))
    assert got == pytest.approx(want, rel=1e-4)


def test_every_matrix_product_asks_for_the_highest_precision():
    x, y = map(jnp.asarray, two_sides())
    program = str(jax.make_jaxpr(jax.grad(losses.vicreg_loss))(x, y))
    assert program.count("dot_general[") == 4
    assert program.count("precision=(Precision.HIGHEST") == 4


def test_a_far_error_of_shrinkage_is_its_square():
    value, grad = jax.value_and_grad(losses.shrinkage_loss)(
        jnp.array([1e3, -1e3]), jnp.zeros(2)
    )
    assert value == pytest.approx(1e6, rel=1e-6)
    np.testing.assert_allclose(grad, [1e3, -1e3], rtol=1e-6)


def test_an_exact_prediction_has_the_curvature_of_the_square():
    second = jax.hessian(losses.shrinkage_loss)(jnp.zeros(1), jnp.zeros(1))
    assert second[0, 0] == pytest.approx(2 / (1 + math.exp(2)), rel=1e-6)


def test_reductions_and_weights_of_shrinkage():
    x, y = two_sides()
    where, weights = np.arange(ROWS) != 1, np.array([1, 1, 0, 2, 0.5, 3, 1.0])
    rows = zip(x.astype(float).tolist(), y.astype(float).tolist(), strict=True)
    terms = [loops.shrinkage_terms(p, t, 10.0, 0.2, True) for p, t in rows]
    terms = [t if e else [] for t, e in zip(terms, where, strict=True)]
    totals, counts = [math.fsum(t) for t in terms], [float(len(t)) for t in terms]
    want = Result(totals, counts, counts, weights.tolist(), math.inf, 0.0)
    options = {"where": where, "weights": weights}
    for reduction in REDUCTIONS:
        got = losses.shrinkage_loss(x, y, reduction=reduction, **options)
        assert got == pytest.approx(want.reduced(reduction), rel=VALUE["float32"])
    stats = losses.shrinkage_loss(x, y, where=where, reduction="none")
    assert stats.num_terms.tolist() == counts
    np.testing.assert_allclose(stats.total, totals, rtol=1e-5)


def test_predictions_may_have_any_number_of_axes():
    x, y = two_sides()
    flat = losses.shrinkage_loss(x.reshape(-1), y.reshape(-1))
    deep = losses.shrinkage_loss(x.reshape(ROWS, 1, DIM), y.reshape(ROWS, 1, DIM))
    assert flat == pytest.approx(float(deep), rel=SAME["float32"])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda x: losses.vicreg_loss(x, x[:2]),
            ValueError,
            "vicreg_loss: `y` must have shape (7, 3) like `x`, got (2, 3). Row i of "
            "both is the same sample.",
        ),
        (
            lambda x: losses.vicreg_loss(x, x, epsilon=-1),
            ValueError,
            "vicreg_loss: `epsilon` must be >= 0, got -1. Give a finite number.",
        ),
        (
            lambda x: losses.shrinkage_loss(x, x[:, :1]),
            ValueError,
            "shrinkage_loss: `targets` must have shape (7, 3) like `predictions`, got "
            "(7, 1). Give one target an element.",
        ),
        (
            lambda x: losses.shrinkage_loss(x, x.astype(jnp.int32)),
            TypeError,
            "shrinkage_loss: `targets` must be floating point, got int32. Use "
            "targets.astype(jnp.float32).",
        ),
        (
            lambda x: losses.shrinkage_loss(x[:0], x[:0]),
            ValueError,
            "shrinkage_loss: `predictions` must have shape (rows, ...), got (0, 3). "
            "Give at least one number.",
        ),
    ],
)
def test_mistakes_are_told(call, error, text):
    for wrap in (lambda f: f, jax.jit):
        with pytest.raises(error) as caught:
            wrap(call)(jnp.ones((ROWS, DIM)))
        assert str(caught.value) == text
