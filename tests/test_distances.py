"""Geometry: exact zeros, exact symmetry, digits at any offset and scale, gradients."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import DISTANCE, DISTANCE_OFFSET, PAIR_GRADIENT, SAME

import jaxmetric as jm

NAMES = oracles.DISTANCES
METRICS = ("euclidean", "manhattan")
HALVES = (jnp.bfloat16, jnp.float16)

# Narrow rows are computed in difference form, wide ones as a product.
WIDTHS = (3, 33)


# Compiled: op by op, the same calls cost ten times as much. The examples in the
# docstrings run eagerly.
pairwise = jax.jit(jm.pairwise_distance, static_argnames=("distance", "precision"))
paired = jax.jit(jm.paired_distance, static_argnames="distance")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Return standard normal numbers in float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def exact(x: np.ndarray, y: np.ndarray, name: str) -> np.ndarray:
    """Return the matrix of the oracle's distances in float64."""
    rows, others = x.astype(np.float64).tolist(), y.astype(np.float64).tolist()
    return np.array([[oracles.distance(a, b, name) for b in others] for a in rows])


def assert_relative(got, want: np.ndarray, bound: float, floor: float = 0.0) -> None:
    """Require entries to agree relative to their size, down to a floor."""
    np.testing.assert_array_less(
        np.abs(np.asarray(got, np.float64) - want),
        bound * np.maximum(want, floor) + 1e-300,
    )


@pytest.mark.parametrize("dim", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_every_distance_is_that_of_the_oracle(name, dim):
    x, y = normal(7, dim), normal(5, dim, seed=1)
    want = exact(x, y, name)
    size = np.abs(want).max()
    got = pairwise(jnp.asarray(x), jnp.asarray(y), distance=name)
    assert got.shape == (7, 5)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=DISTANCE["float32"] * size)
    pairs = paired(jnp.asarray(x[:5]), jnp.asarray(y), distance=name)
    atol = DISTANCE["float32"] * size
    np.testing.assert_allclose(pairs, np.diag(want), rtol=0, atol=atol)
    with jax.enable_x64(True):
        wide = jnp.asarray(x, jnp.float64), jnp.asarray(y, jnp.float64)
        got = pairwise(*wide, distance=name)
        assert got.dtype == jnp.float64
        atol = DISTANCE["float64"] * size
        np.testing.assert_allclose(got, want, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [jnp.float32, *HALVES])
@pytest.mark.parametrize("dim", [3, 33])
@pytest.mark.parametrize("name", NAMES)
def test_self_distances_are_symmetric_and_zero_on_the_diagonal(name, dim, dtype):
    x = jnp.asarray(normal(33, dim)).astype(dtype)
    d = np.asarray(pairwise(x, distance=name))
    assert d.dtype == np.float32
    np.testing.assert_array_equal(d, d.T)
    if name == "dot":
        want = -np.sum(np.square(np.asarray(x, float)), -1)
        np.testing.assert_allclose(np.diag(d), want, rtol=DISTANCE["float32"])
    else:
        assert not np.diag(d).any()
        assert (d >= 0).all()


@pytest.mark.parametrize("dim", WIDTHS)
@pytest.mark.parametrize("name", ["euclidean", "sqeuclidean", "cosine", "manhattan"])
def test_duplicated_rows_are_at_distance_zero(name, dim):
    x = normal(6, dim) + 3
    x[4] = x[1]
    rows = jnp.asarray(x)
    assert pairwise(rows, distance=name)[1, 4] == 0
    assert pairwise(rows, rows, distance=name)[1, 4] == 0
    assert paired(rows[1:2], rows[4:5], distance=name)[0] == 0
    # Distinct rows never are.
    other = ~np.eye(6, dtype=bool)
    other[1, 4] = other[4, 1] = False
    assert (np.asarray(pairwise(rows, distance=name))[other] > 0).all()


@pytest.mark.parametrize("offset", [1e2, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("dim", WIDTHS)
@pytest.mark.parametrize("name", ["euclidean", "sqeuclidean", "manhattan"])
def test_close_rows_keep_their_digits_at_an_offset(name, dim, offset):
    x = (normal(9, dim) + offset).astype(np.float32)
    y = (normal(6, dim, seed=1) + offset).astype(np.float32)
    for got, want in (
        (pairwise(jnp.asarray(x), distance=name), exact(x, x, name)),
        (
            pairwise(jnp.asarray(x), jnp.asarray(y), distance=name),
            exact(x, y, name),
        ),
    ):
        assert_relative(got, want, DISTANCE_OFFSET["float32"])


@pytest.mark.parametrize("dim", WIDTHS)
def test_a_close_cluster_far_from_the_mean_keeps_its_digits(dim):
    """Centring does not help here: two clusters, 1e4 apart, of spread 1."""
    x = normal(8, dim)
    x[4:] += 1e4
    got = pairwise(jnp.asarray(x))
    assert_relative(got, exact(x, x, "euclidean"), DISTANCE_OFFSET["float32"])


@pytest.mark.parametrize("dim", WIDTHS)
def test_gradients_of_single_pairs_have_norm_one_at_an_offset(dim):
    x = jnp.asarray((normal(6, dim) + 1e5).astype(np.float32))
    jacobian = np.asarray(jax.jacrev(pairwise)(x))
    for i, j in itertools.permutations(range(6), 2):
        for row in (i, j):
            norm = np.linalg.norm(jacobian[i, j, row].astype(np.float64))
            assert abs(norm - 1) <= PAIR_GRADIENT["float32"]
        others = [k for k in range(6) if k not in (i, j)]
        assert not jacobian[i, j, others].any()
    assert not jacobian[range(6), range(6)].any()


@pytest.mark.parametrize("scale", [1e30, 1e15, 1e-15, 1e-30])
@pytest.mark.parametrize("dim", WIDTHS)
def test_any_scale_of_the_format_is_right(dim, scale):
    x = (normal(6, dim) * scale).astype(np.float32)
    x[3] *= np.float32(1e-5)
    want = exact(x, x, "euclidean")
    got = pairwise(jnp.asarray(x))
    assert_relative(got, want, DISTANCE["float32"])
    pairs = paired(jnp.asarray(x), jnp.asarray(x[::-1].copy()))
    assert_relative(pairs, np.diag(want[:, ::-1]), DISTANCE["float32"])
    gradient = jax.grad(lambda x: pairwise(x).sum())(jnp.asarray(x))
    assert jnp.isfinite(gradient).all()


def test_entries_that_differ_by_a_factor_of_1e15_are_right():
    x = np.array([[1e30, 0], [0, 1e15], [0, 3e15], [1e30, 1e15]], np.float32)
    got = pairwise(jnp.asarray(x))
    assert_relative(got, exact(x, x, "euclidean"), DISTANCE["float32"])


def test_cosine_is_right_from_1e_minus_6_to_1e30():
    directions = normal(5, 40)
    lengths = np.array([1e30, 1.0, 1e-5, 1e10, 2e-6])
    units = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    x = (units * lengths[:, None]).astype(np.float32)
    got = pairwise(jnp.asarray(x), distance="cosine")
    want = exact(x, x, "cosine")
    np.testing.assert_allclose(got, want, rtol=0, atol=DISTANCE["float32"])


@pytest.mark.parametrize("length", [0.0, 1e-7, 1e-6])
def test_rows_without_direction_are_at_cosine_distance_one(length):
    x = np.array([[1.0, 2.0], [length, 0.0], [-1.0, 0.5]], np.float32)
    rows = jnp.asarray(x)
    for d in (
        pairwise(rows, distance="cosine")[1, ::2],
        pairwise(rows, rows, distance="cosine")[1],
        paired(rows[jnp.array([1, 1])], rows[:2], distance="cosine"),
    ):
        assert (d == 1).all()

    @jax.jit
    def loss(x):
        return jm.pairwise_distance(x, distance="cosine").sum()

    gradient = jax.grad(loss)(rows)
    assert not gradient[1].any()
    assert gradient[0].any()


def test_l2_normalize_keeps_zero_rows_with_a_zero_gradient():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [1e-7, 0.0], [3e30, 4e30], [3e-5, 4e-5]])
    y = jm.l2_normalize(x)
    want = [[0.6, 0.8], [0, 0], [0, 0], [0.6, 0.8], [0.6, 0.8]]
    np.testing.assert_allclose(y, want, rtol=DISTANCE["float32"])
    jacobian = np.asarray(jax.jacrev(jm.l2_normalize)(x))
    jacobian = jacobian[range(5), :, range(5)]
    assert not jacobian[1:3].any()
    for row in (0, 3, 4):
        norm = np.linalg.norm(jacobian[row].astype(np.float64), 2)
        length = np.linalg.norm(np.asarray(x[row], np.float64))
        assert norm * length == pytest.approx(1, rel=PAIR_GRADIENT["float32"])


def test_l2_normalize_along_another_axis_and_in_half_precision():
    x = jnp.asarray(normal(3, 4))
    one, other = jm.l2_normalize(x, axis=0), jm.l2_normalize(x.T).T
    np.testing.assert_array_equal(one, other)
    for dtype in HALVES:
        half = x.astype(dtype)
        y = jm.l2_normalize(half)
        assert y.dtype == jnp.float32
        np.testing.assert_array_equal(y, jm.l2_normalize(half.astype(jnp.float32)))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_equals_float32_of_the_rounded_rows(name, dtype):
    x = jnp.asarray(300 * normal(6, 40)).astype(dtype)
    got = pairwise(x, distance=name)
    want = pairwise(x.astype(jnp.float32), distance=name)
    np.testing.assert_array_equal(got, want)
    assert jnp.isfinite(got).all()
    gradient = jax.grad(lambda x: pairwise(x, distance=name).sum())(x)
    assert gradient.dtype == dtype


@pytest.mark.parametrize("function", [pairwise, paired])
@pytest.mark.parametrize("dim", [3, pytest.param(33, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", METRICS)
def test_gradients_are_at_most_one_in_each_argument(function, dim, name):
    x, y = normal(5, dim), normal(5, dim, seed=1)
    y[2] = x[2]
    for side in (0, 1):
        jacobian = np.asarray(
            jax.jacrev(lambda x, y: function(x, y, distance=name), argnums=side)(x, y)
        )
        # One row against one row, whatever the shape of the distances.
        norms = np.sqrt(np.sum(np.square(jacobian, dtype=float), axis=-1))
        limit = 1 if name == "euclidean" else math.sqrt(dim)
        assert norms.max() <= limit * (1 + PAIR_GRADIENT["float32"])


@pytest.mark.parametrize("dim", [pytest.param(3, marks=pytest.mark.slow), 33])
@pytest.mark.parametrize(
    "name",
    [
        "euclidean",
        pytest.param("sqeuclidean", marks=pytest.mark.slow),
        "cosine",
        pytest.param("manhattan", marks=pytest.mark.slow),
    ],
)
def test_duplicates_have_zero_gradients_and_finite_hessians(name, dim):
    x = normal(4, dim)
    x[2] = x[0]
    rows = jnp.asarray(x)

    def between(x):
        return pairwise(x, distance=name)[0, 2]

    gradient = jax.grad(between)(rows)
    tolerance = 0 if name != "cosine" else SAME["float32"]
    assert np.abs(gradient).max() <= tolerance
    _, forward = jax.jvp(between, (rows,), (jnp.asarray(normal(4, dim, seed=2)),))
    assert abs(forward) <= 10 * tolerance

    def everything(x):
        return (pairwise(x, distance=name) ** 2).sum()

    assert jnp.isfinite(jax.grad(everything)(rows)).all()
    way = jnp.asarray(normal(4, dim, seed=2))

    @jax.jit
    def second(x):
        def reversed_pairs(x):
            return paired(x, x[::-1], distance=name).sum()

        losses = everything, between, reversed_pairs
        return [jax.jvp(jax.grad(loss), (x,), (way,))[1] for loss in losses] + [
            jax.grad(lambda x: jnp.vdot(jax.grad(everything)(x), way))(x)
        ]

    assert all(jnp.isfinite(h).all() for h in second(rows))


@pytest.mark.parametrize("dim", [3, 33])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_central_differences(name, dim):
    with jax.enable_x64(True):
        x = jnp.asarray(normal(4, dim), jnp.float64)
        y = jnp.asarray(normal(3, dim, seed=1), jnp.float64)
        weights = jnp.asarray(normal(4, 3, seed=2), jnp.float64)

        @jax.jit
        def loss(x, y):
            return (weights * pairwise(x, y, distance=name)).sum()

        gradient = np.asarray(jax.grad(loss)(x, y))
        steps = 1e-6 * jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
        up, down = (jax.vmap(lambda s: loss(x + s, y))(d) for d in (steps, -steps))
        numeric = np.asarray((up - down) / 2e-6).reshape(x.shape)
    np.testing.assert_allclose(gradient, numeric, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_obey_the_axioms(name):
    x = np.random.default_rng(0).integers(-3, 4, (12, 3)).astype(np.float32)
    d = np.asarray(pairwise(jnp.asarray(x), distance=name), np.float64)
    slack = 4 * np.spacing(d.max().astype(np.float32))
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + slack).all()
    assert (d >= 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dim", [3, 33])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_becomes_no_plausible_number(name, dim, bad):
    good = normal(5, dim)
    x = good.copy()
    x[1, 2] = bad
    d = np.asarray(pairwise(jnp.asarray(x), distance=name))
    touched = np.zeros((5, 5), bool)
    touched[1] = touched[:, 1] = True
    assert not np.isfinite(d[touched]).any()
    # The other rows are at the distances that they have without it.
    want = exact(good, good, name)[~touched]
    atol = DISTANCE["float32"] * np.abs(want).max()
    np.testing.assert_allclose(d[~touched], want, rtol=0, atol=atol)
    pairs = paired(jnp.asarray(x), jnp.asarray(good), distance=name)
    assert not np.isfinite(pairs[1])
    pairs = paired(jnp.asarray(x), jnp.asarray(x), distance=name)
    assert not np.isfinite(pairs[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_no_unit_row(bad):
    y = np.asarray(jm.l2_normalize(jnp.array([[bad, 1.0], [3.0, 4.0]])))
    assert np.isnan(y[0]).any()
    assert np.isfinite(y[1]).all()


def _precisions(jaxpr) -> list:
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(equation.params["precision"])
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found += _precisions(inner)
    return found


@pytest.mark.parametrize("name", ["euclidean", "sqeuclidean", "cosine", "dot"])
def test_products_are_at_the_highest_precision_unless_asked_otherwise(name):
    def products(**options):
        def loss(x):
            return pairwise(x, distance=name, **options).sum()

        return _precisions(
            jax.make_jaxpr(jax.value_and_grad(loss))(jnp.ones((4, 64))).jaxpr
        )

    precision = jax.lax.Precision
    assert set(products()) == {(precision.HIGHEST,) * 2}
    assert set(products(precision="high")) == {(precision.HIGH,) * 2}
    assert set(products(precision=precision.DEFAULT)) == {(precision.DEFAULT,) * 2}
    preset = jax.lax.DotAlgorithmPreset.F32_F32_F32
    assert set(products(precision=preset)) == {preset}


def test_a_callable_distance_is_used_as_it_is():
    def chebyshev(x, y):
        return jnp.max(jnp.abs(x[:, None] - y[None]), axis=-1)

    x, y = jnp.asarray(normal(4, 3)), jnp.asarray(normal(5, 3, seed=1))
    d = pairwise(x, y, distance=chebyshev)
    np.testing.assert_array_equal(d, chebyshev(x, y))
    pairs = paired(x, y[:4], distance=chebyshev)
    np.testing.assert_array_equal(pairs, jnp.diag(chebyshev(x, y)))
    assert not jnp.diag(pairwise(x, distance=chebyshev)).any()


def test_the_blocks_of_a_large_matrix_are_one_matrix():
    """More rows than one block holds, not a multiple of it, one duplicate."""
    x = normal(1100, 40)
    x[1099] = x[3]
    d = np.asarray(pairwise(jnp.asarray(x)))
    picked = [0, 3, 400, 1098, 1099]
    want = exact(x[picked], x[:50], "euclidean")
    np.testing.assert_allclose(d[picked, :50], want, rtol=DISTANCE["float32"], atol=0)
    assert d[3, 1099] == d[1099, 3] == 0
    np.testing.assert_array_equal(d, d.T)


@pytest.mark.slow
@pytest.mark.fusion
def test_products_past_32768_rows_are_right():
    """A fused product and reduction of jaxlib 0.10 gave a wrong last entry there."""
    x, y = normal(32769, 33), normal(3, 33, seed=1)
    d = np.asarray(pairwise(jnp.asarray(x), jnp.asarray(y)))
    want = exact(x[-9:], y, "euclidean")
    np.testing.assert_allclose(d[-9:], want, rtol=DISTANCE["float32"])


def test_near_pairs_are_found_in_blocks_of_doubles():
    x = np.random.default_rng(0).normal(size=(3000, 40))
    x[7] = x[2900]
    with jax.enable_x64(True):
        d = np.asarray(jm.pairwise_distance(jnp.asarray(x), distance="cosine"))
    assert d.dtype == np.float64
    assert d[7, 2900] == 0
