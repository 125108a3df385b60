"""Correlation: the promises of every loss, for a loss of predictions and targets."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from tolerances import DIFFERENCE, SAME, STEP, VALUE

import jaxmetric as jm

loss: Any = jm.losses.correlation_loss
ROWS = 9


def sides(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 17])
    x = rng.normal(size=(2, ROWS))
    return x[0].astype(np.float32), (x[1] + x[0]).astype(np.float32)


def loop(p, t, where=None, weights=None) -> float:
    """Return 1 - r by sums in float64."""
    where = [True] * len(p) if where is None else where
    weights = [1.0] * len(p) if weights is None else weights
    rows = [
        (float(a), float(b), float(w))
        for a, b, w, e in zip(p, t, weights, where, strict=True)
        if e
    ]
    total = math.fsum(w for *_, w in rows)
    if not total:
        return 0.0
    mean_p = math.fsum(a * w for a, _, w in rows) / total
    mean_t = math.fsum(b * w for _, b, w in rows) / total
    cov = math.fsum(w * (a - mean_p) * (b - mean_t) for a, b, w in rows)
    var_p = math.fsum(w * (a - mean_p) ** 2 for a, _, w in rows)
    var_t = math.fsum(w * (b - mean_t) ** 2 for _, b, w in rows)
    if not var_t:
        return 0.0
    return 1 - cov / math.sqrt(var_p * var_t) if var_p else 1.0


def test_by_hand():
    up = jnp.array([1.0, 2.0, 3.0])
    assert loss(up, 5 * up - 7) == pytest.approx(0, abs=1e-6)
    assert loss(-up, up) == pytest.approx(2, rel=1e-6)
    assert loss(jnp.array([0.0, 1.0, 0.0]), up) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_values_agree_with_loops_and_gradients_have_the_dtype(dtype):
    compiled = jax.jit(jax.value_and_grad(lambda p, t, w: loss(p, t, where=w)))
    with jax.enable_x64(dtype == "float64"):
        for seed in range(10):
            p, t = (jnp.asarray(side).astype(dtype) for side in sides(seed))
            where = np.random.default_rng(seed).random(ROWS) < 0.7
            value, grad = compiled(p, t, where)
            want = loop(p.astype(float), t.astype(float), where)
            assert value == pytest.approx(want, abs=4 * VALUE[dtype], rel=0)
            assert grad.dtype == dtype
            assert not np.asarray(grad)[~where].any()


def test_weights_count_as_repeated_rows_whatever_their_scale():
    p, t = sides()
    weights = np.array([1, 2, 0, 3, 1, 1, 2, 1, 1], np.float32)
    want = loop(np.repeat(p, weights.astype(int)), np.repeat(t, weights.astype(int)))
    for scale in (1e-6, 1, 1e6):
        got = loss(p, t, weights=weights * np.float32(scale))
        assert got == pytest.approx(want, abs=1e-5)


def test_derivatives_agree_with_differences():
    with jax.enable_x64(True):
        p, t = (jnp.asarray(side, jnp.float64) for side in sides(3))
        where = np.arange(ROWS) != 2
        value = lambda p, t: loss(p, t, where=where)  # noqa: E731
        grads = jax.grad(value, argnums=(0, 1))(p, t)
        steps = np.eye(ROWS) * STEP
        for k, grad in enumerate(grads):
            of_both = jax.vmap(value, (0, None) if k == 0 else (None, 0))
            up, down = (
                of_both(*(x[None] + s * steps if j == k else x for j, x in both))
                for s in (1, -1)
                for both in [list(enumerate((p, t)))]
            )
            numeric = np.asarray(up - down) / (2 * STEP)
            bound = 10 * DIFFERENCE["float64"]
            np.testing.assert_allclose(grad, numeric, rtol=0, atol=bound)


def test_masked_rows_change_no_bit_and_existing_bad_rows_make_nan():
    where = np.arange(ROWS) != 3
    compiled = jax.jit(jax.value_and_grad(lambda p, t, w: loss(p, t, where=w), (0, 1)))
    plain = compiled(*sides(), where)
    for bad in (np.nan, np.inf):
        for k in range(2):
            filled = [side.copy() for side in sides()]
            filled[k][3] = bad
            jax.tree.map(np.testing.assert_array_equal, compiled(*filled, where), plain)
            assert np.isnan(compiled(*filled, ~where)[0])


@pytest.mark.parametrize(
    ("p", "t", "where", "value"),
    [
        ([1.0, 2.0], [3.0, 3.0], [True, True], 0),  # targets say nothing
        ([1.0, 2.0], [3.0, 4.0], [True, False], 0),  # one row
        ([1.0, 2.0], [3.0, 4.0], [False, False], 0),
        ([1.0, 1.0], [3.0, 4.0], [True, True], 1),  # collapsed
    ],
)
def test_degenerate_batches_have_a_finite_value_and_no_gradient(p, t, where, value):
    function = lambda p, t: loss(p, t, where=np.array(where))  # noqa: E731
    found, grads = jax.value_and_grad(function, (0, 1))(jnp.array(p), jnp.array(t))
    assert found == value
    assert not any(np.asarray(g).any() for g in grads)


def test_a_common_offset_and_any_scale_change_nothing():
    p, t = sides()
    want = float(loss(p, t))
    assert loss(p * np.float32(1e-12), t) == pytest.approx(want, abs=1e-5)
    assert loss(p, t * np.float32(1e12)) == pytest.approx(want, abs=1e-5)
    assert loss(p + np.float32(100), t) == pytest.approx(want, abs=1e-4)


def test_eager_compiled_and_mapped_calls_agree():
    pairs = [sides(seed) for seed in range(3)]
    eager = [float(loss(*pair)) for pair in pairs]
    compiled = [float(jax.jit(loss)(*pair)) for pair in pairs]
    mapped = jax.vmap(loss)(*(jnp.stack(side) for side in zip(*pairs, strict=True)))
    np.testing.assert_allclose(compiled, eager, atol=SAME["float32"])
    np.testing.assert_allclose(mapped, eager, atol=SAME["float32"])


def test_eight_devices_give_what_one_gives():
    rng = np.random.default_rng(0)
    p, t = (jnp.asarray(x, jnp.float32) for x in rng.normal(size=(2, 24)))
    where = rng.random(24) < 0.8
    where[:3], where[3:6] = True, False  # a device without any row
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = jm.sharding.data_parallel(loss, mesh=mesh)
    compiled = jax.jit(jax.value_and_grad(lambda p: spread(p, t, where=where)))
    value, grad = compiled(p)
    want, like = jax.value_and_grad(lambda p: loss(p, t, where=where))(p)
    np.testing.assert_allclose(value, want, rtol=2e-6)
    np.testing.assert_allclose(grad, like, atol=2e-6)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda x: loss(x, x[:2]),
            ValueError,
            "correlation_loss: `targets` must have shape (9,) like `predictions`, got "
            "(2,). Give one target a prediction.",
        ),
        (
            lambda x: loss(x[:, None], x),
            ValueError,
            "correlation_loss: `predictions` must have shape (batch,), got (9, 1). "
            "Give one number a row.",
        ),
        (
            lambda x: loss(x, x.astype(jnp.int32)),
            TypeError,
            "correlation_loss: `targets` must be floating point, got int32. Use "
            "targets.astype(jnp.float32).",
        ),
    ],
)
def test_mistakes_are_told(call, error, text):
    with pytest.raises(error) as caught:
        call(jnp.ones(ROWS))
    assert str(caught.value) == text
