"""Regularizers: values against loops, and the promises that losses make as well."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles_unlabelled as loops
import pytest
from oracles import REDUCTIONS, Result
from tolerances import DIFFERENCE, SAME, STEP, VALUE

import jaxmetric as jm

regularizers: Any = jm.regularizers

# Name, options, and the terms of each existing row from all of them, as loops.
SUBJECTS: list[tuple[str, dict, Callable[[list], list[list[float]]]]] = [
    ("lp", {}, lambda rows: [[loops.lp(x, 2, 1)] for x in rows]),
    ("lp", {"p": 1}, lambda rows: [[loops.lp(x, 1, 1)] for x in rows]),
    ("lp", {"p": 3, "power": 2}, lambda rows: [[loops.lp(x, 3, 2)] for x in rows]),
    ("lp", {"power": 2}, lambda rows: [[loops.lp(x, 2, 2)] for x in rows]),
    (
        "lp",
        {"p": math.inf, "power": 0.7},
        lambda rows: [[loops.lp(x, math.inf, 0.7)] for x in rows],
    ),
    ("zero_mean", {}, lambda rows: [[loops.zero_mean(x)] for x in rows]),
    ("center_invariant", {}, lambda rows: [[t] for t in loops.center_invariant(rows)]),
    ("regular_face", {}, lambda rows: [[t] for t in loops.regular_face(rows)]),
    ("sparse_centers", {}, lambda rows: [loops.sparse_centers(x) for x in rows]),
]
each_regularizer = pytest.mark.parametrize(
    ("name", "options", "loop"),
    SUBJECTS,
    ids=[
        "-".join([name, *map(str, options.values())]) for name, options, _ in SUBJECTS
    ],
)
ROWS, CENTERS, DIM = 7, 3, 4


def rows_of(name: str, seed: int = 0) -> np.ndarray:
    """Return random rows [ROWS, DIM], or centers [ROWS, CENTERS, DIM]."""
    shape = (ROWS, CENTERS, DIM) if name == "sparse_centers" else (ROWS, DIM)
    return np.random.default_rng([seed, 5]).normal(size=shape).astype(np.float32)


def expected(x: np.ndarray, where: np.ndarray, weights: np.ndarray, loop) -> Result:
    """Return the statistics of the loop, rows that do not exist without terms."""
    found = iter(loop(x[where].astype(float).tolist()))
    terms = [next(found, []) if exists else [] for exists in where]
    return Result(
        [math.fsum(t) for t in terms],
        [len(t) for t in terms],
        [sum(v > 0 for v in t) for t in terms],
        weights.tolist(),
        math.inf,
        0.0,
    )


@each_regularizer
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_values_agree_with_loops(name, options, loop, dtype):
    function = jax.jit(
        lambda x, where: getattr(regularizers, name)(x, where=where, **options)
    )
    rng = np.random.default_rng(0)
    with jax.enable_x64(dtype == "float64"):
        for seed in range(20):
            x = rows_of(name, seed).astype(dtype)
            where = rng.random(ROWS) < rng.choice([0.3, 0.8, 1.0])
            want = expected(x, where, np.ones(ROWS), loop).reduced("mean")
            got = function(jnp.asarray(x), jnp.asarray(where))
            assert got.dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
            bound = VALUE[dtype] * (1 + abs(want))
            assert got == pytest.approx(want, abs=bound, rel=0)


@each_regularizer
def test_reductions_and_weights_agree_with_loops(name, options, loop):
    x, where = rows_of(name), np.arange(ROWS) != 2
    weights = np.array([1, 0, 2, 0.5, 1, 1, 3.0])
    want = expected(x, where, weights, loop)
    function = getattr(regularizers, name)
    options = options | {"where": where, "weights": weights}
    with jax.enable_x64(True):
        rows = jnp.asarray(x, jnp.float64)
        for reduction in REDUCTIONS:
            got = function(rows, reduction=reduction, **options)
            assert got == pytest.approx(want.reduced(reduction), rel=VALUE["float64"])
        stats = function(rows, reduction="none", **options)
        np.testing.assert_allclose(stats.total, weights * want.total, rtol=1e-9)
        np.testing.assert_allclose(stats.num_terms, weights * want.num_terms)
    options.pop("weights")
    stats = function(jnp.asarray(x), reduction="none", **options)
    assert stats.num_terms.dtype == stats.num_active.dtype == jnp.int32
    assert stats.num_active.tolist() == want.num_active


@each_regularizer
def test_gradients_agree_with_differences(name, options, loop):
    del loop
    x, where = rows_of(name, 1).astype(np.float64), jnp.arange(ROWS) != 2
    function = getattr(regularizers, name)
    way = rows_of(name, 2).astype(np.float64)

    def value(x):
        return function(x, where=where, **options)

    with jax.enable_x64(True):
        steps = np.eye(x.size).reshape(-1, *x.shape) * STEP
        values = jax.vmap(value)(jnp.asarray(np.concatenate([x + steps, x - steps])))
        up, down = np.split(np.asarray(values), 2)
        grad, hvp = jax.jvp(jax.grad(value), (jnp.asarray(x),), (jnp.asarray(way),))
        sides = [jax.grad(value)(jnp.asarray(x + s * STEP * way)) for s in (1, -1)]
    numeric = (up - down).reshape(x.shape) / (2 * STEP)
    np.testing.assert_allclose(grad, numeric, rtol=0, atol=DIFFERENCE["float64"])
    numeric = (np.asarray(sides[0]) - np.asarray(sides[1])) / (2 * STEP)
    np.testing.assert_allclose(hvp, numeric, rtol=0, atol=10 * DIFFERENCE["float64"])
    assert not np.asarray(grad)[2].any()


@each_regularizer
def test_masked_rows_change_nothing_and_existing_bad_ones_make_nan(name, options, loop):
    del loop
    function = getattr(regularizers, name)
    x, where = rows_of(name), np.arange(ROWS) != 3
    value_and_grad = jax.jit(
        jax.value_and_grad(lambda x, where: function(x, where=where, **options))
    )
    plain = value_and_grad(x, where)
    for bad in (np.nan, np.inf, -np.inf):
        other = x.copy()
        other[3] = bad
        value, grad = value_and_grad(other, where)
        assert value == plain[0]
        np.testing.assert_array_equal(grad, plain[1])
        assert not grad[3].any()
        other[4] = bad
        assert np.isnan(value_and_grad(other, where)[0])
        # Nothing but the bad row exists: it is told all the same.
        assert np.isnan(value_and_grad(other, np.arange(ROWS) == 4)[0])
    padded = np.concatenate([x, x[:2]])
    value, grad = value_and_grad(padded, np.append(where, [False, False]))
    np.testing.assert_allclose(value, plain[0], rtol=SAME["float32"])
    np.testing.assert_allclose(grad[:ROWS], plain[1], atol=SAME["float32"])


@each_regularizer
def test_nothing_to_count_gives_zero_and_zero_rows_no_gradient(name, options, loop):
    del loop
    function = getattr(regularizers, name)
    value_and_grad = jax.value_and_grad(lambda x, w: function(x, where=w, **options))
    value, grad = value_and_grad(rows_of(name), np.zeros(ROWS, bool))
    assert value == 0
    assert not grad.any()
    value, grad = value_and_grad(jnp.zeros_like(rows_of(name)), np.ones(ROWS, bool))
    assert np.isfinite(value)
    assert not grad.any()


@each_regularizer
@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_values_and_gradients_are_finite_at_any_scale(name, options, loop, scale):
    del loop
    if name == "center_invariant" and scale > 1:
        pytest.skip("norms to the fourth power do not fit the format")
    function = getattr(regularizers, name)
    x = jnp.asarray(rows_of(name) * np.float32(scale))
    value, grad = jax.value_and_grad(lambda x: function(x, **options))(x)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
    if name == "lp":
        power = options.get("power", 1)
        want = function(rows_of(name), **options) * np.float64(scale) ** power
        np.testing.assert_allclose(value, want, rtol=1e-5)


@pytest.mark.slow
def test_the_curvature_of_a_norm_is_right_where_a_coordinate_is_zero():
    x = jnp.array([[3.0, 0.0]])
    for power, want in ((1, 1 / 3), (2, 2.0)):
        second = jax.hessian(lambda x, power=power: regularizers.lp(x, power=power))(x)
        assert second[0, 1, 0, 1] == pytest.approx(want, rel=1e-6)


def test_one_proxy_has_no_other_and_one_center_no_pair():
    one = jnp.array([[3.0, 4.0]])
    for name, x in (
        ("regular_face", one),
        ("center_invariant", one),
        ("sparse_centers", one[:, None]),
    ):
        function = getattr(regularizers, name)
        value, grad = jax.value_and_grad(function)(x)
        assert value == 0
        assert not grad.any()


def test_merged_centers_cost_nothing_and_pull_nothing():
    x = jnp.array([[[0.3, -0.8], [0.3, -0.8], [1.0, 1.0]]])
    value, grad = jax.value_and_grad(regularizers.sparse_centers)(x)
    cosine = (0.3 - 0.8) / math.sqrt(2 * (0.3**2 + 0.8**2))
    assert value == pytest.approx(2 * math.sqrt(2 - 2 * cosine) / 6, rel=1e-6)
    assert np.isfinite(grad).all()
    merged = jax.grad(regularizers.sparse_centers)(x[:, :2])
    assert not merged.any()


def test_equally_near_proxies_choose_the_lowest():
    x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    stats = regularizers.regular_face(x, reduction="none")
    assert stats.total.tolist() == [0.0, 0.0, 0.0]
    grad = jax.grad(lambda x: regularizers.regular_face(x, reduction="none").total[0])
    # cos(w_0, w_1) alone is differentiated.
    np.testing.assert_allclose(grad(x), [[0, 1], [1, 0], [0, 0]], atol=1e-7)


@pytest.mark.parametrize("block_size", [1, 3, 7])
def test_blocks_give_what_one_block_gives(block_size):
    x = jnp.asarray(rows_of("regular_face"))
    one = jax.value_and_grad(regularizers.regular_face)(x)
    function = jax.value_and_grad(
        lambda x: regularizers.regular_face(x, block_size=block_size)
    )
    for got, want in zip(function(x), one, strict=True):
        np.testing.assert_allclose(got, want, atol=SAME["float32"])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda x: regularizers.lp(x, p=0.5),
            ValueError,
            "lp: `p` must be >= 1, got 0.5. It is a Python number, part of the "
            "formula.",
        ),
        (
            lambda x: regularizers.lp(x, power=0),
            ValueError,
            "lp: `power` must be > 0, got 0. It is a Python number, part of the "
            "formula.",
        ),
        (
            lambda x: regularizers.zero_mean(x, where=[1, 0]),
            TypeError,
            "zero_mean: `where` must be bool, got int64. Use where > 0 if nonzero "
            "means that the row exists.",
        ),
        (
            lambda x: regularizers.regular_face(x[0]),
            ValueError,
            "regular_face: `proxies` must have shape (rows, dim), got (3,). Use "
            "proxies[:, None] for rows of one number.",
        ),
        (
            lambda x: regularizers.sparse_centers(x),
            ValueError,
            "sparse_centers: `proxies` must have shape (classes, centers, dim), got "
            "(2, 3). Use proxies[:, None, :] for one center a class.",
        ),
        (
            lambda x: regularizers.center_invariant(x, reduction="avg"),
            ValueError,
            "center_invariant: `reduction` must be one of 'mean', 'mean_active', "
            "'mean_per_anchor', 'sum', 'none', got 'avg'. Use 'mean'.",
        ),
    ],
)
def test_mistakes_are_told(call, error, text):
    with pytest.raises(error) as caught:
        call(jnp.ones((2, 3)))
    assert str(caught.value) == text
