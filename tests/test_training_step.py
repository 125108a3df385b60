"""The training step: pure, donatable, and harmless when a number is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxmetric.reductions import LossStats
from jaxmetric.training import TrainState, make_train_step

METRICS = {
    "loss",
    "active_fraction",
    "positive_distance",
    "negative_distance",
    "embedding_norm",
    "grad_norm",
    "skipped",
}
X = jax.random.normal(jax.random.key(1), (6, 3))
Y = jnp.array([0, 0, 1, 1, 2, 2])
OPTIMIZER = optax.chain(optax.add_noise(1e-3, 0.5, key=3), optax.adam(0.1))


def embed_fn(params, model_state, inputs, *, key, train):
    """A linear map with noise, and a running mean as its state."""
    noise = 1e-3 * jax.random.normal(key, inputs.shape)
    embeddings = (inputs + noise) @ params["w"]
    mean = 0.9 * model_state["mean"] + 0.1 * jnp.mean(embeddings, axis=0)
    return embeddings, {"mean": lax.stop_gradient(mean)}


def loss_fn(loss_params, embeddings, labels):
    """Squared distance to the proxy of the class; above 1 counts as active."""
    terms = jnp.sum((embeddings - loss_params["proxies"][labels]) ** 2, axis=-1)
    stats = LossStats(terms, jnp.ones(6, jnp.int32), (terms > 1).astype(jnp.int32))
    return jnp.mean(terms), stats


def create(optimizer=OPTIMIZER, seed=0, params=None):
    params = {"w": jnp.eye(3, 2)} if params is None else params
    proxies = jax.random.normal(jax.random.key(2), (3, 2))
    return TrainState.create(
        params,
        {"mean": jnp.zeros(2)},
        optimizer,
        key=jax.random.key(seed),
        loss_params={"proxies": proxies},
    )


def numbers(tree):
    """Return all leaves as NumPy arrays, keys as their data."""
    return [
        np.asarray(
            jax.random.key_data(x)
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
            else x
        )
        for x in jax.tree.leaves(tree)
    ]


def assert_same(a, b, **tolerance):
    for x, y in zip(numbers(a), numbers(b), strict=True):
        if tolerance:
            np.testing.assert_allclose(x, y, **tolerance)
        else:
            np.testing.assert_array_equal(x, y)


STEP = make_train_step(embed_fn, loss_fn, OPTIMIZER)
TRACES = []


@jax.jit
def compiled(state, batch):
    """The step, counting how often it is traced for a compilation."""
    TRACES.append(None)
    return STEP(state, batch)


def test_metrics_are_float32_scalars_with_the_values_of_the_batch():
    optimizer = optax.sgd(0.1)
    state = create(optimizer)
    after, metrics = jax.jit(make_train_step(embed_fn, loss_fn, optimizer))(
        state, (X, Y)
    )
    assert set(metrics) == METRICS
    assert all(m.shape == () and m.dtype == jnp.float32 for m in metrics.values())

    _, step_key = jax.random.split(state.key)
    noise = 1e-3 * jax.random.normal(step_key, X.shape)
    e = np.asarray((X + noise) @ state.params["w"], np.float64)
    proxies = np.asarray(state.loss_params["proxies"], np.float64)[np.asarray(Y)]
    terms = ((e - proxies) ** 2).sum(-1)
    grad_e = 2 * (e - proxies) / 6
    grad_w = np.asarray(X + noise, np.float64).T @ grad_e
    grad_p = np.stack([-grad_e[np.asarray(Y) == c].sum(0) for c in range(3)])
    d = np.sqrt(((e[:, None] - e[None]) ** 2).sum(-1))
    same = np.asarray(Y)[:, None] == np.asarray(Y)[None]
    expected = {
        "loss": terms.mean(),
        "active_fraction": (terms > 1).mean(),
        "positive_distance": d[same & ~np.eye(6, dtype=bool)].mean(),
        "negative_distance": d[~same].mean(),
        "embedding_norm": np.sqrt((e**2).sum(-1)).mean(),
        "grad_norm": np.sqrt((grad_w**2).sum() + (grad_p**2).sum()),
        "skipped": 0.0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(
        after.params["w"], state.params["w"] - 0.1 * grad_w, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        after.loss_params["proxies"],
        state.loss_params["proxies"] - 0.1 * grad_p,
        rtol=1e-5,
        atol=1e-6,
    )
    assert int(after.step) == 1


def test_step_trains_encoder_and_loss_parameters_with_one_compilation():
    state, losses = create(), []
    for _ in range(60):
        state, metrics = compiled(state, (X, Y))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.2 * losses[0]
    assert len(TRACES) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_inputs_change_nothing_but_step_key_and_count(bad):
    state, _ = compiled(create(), (X, Y))
    after, metrics = compiled(state, (X.at[2, 1].set(bad), Y))
    for field in ("params", "model_state", "loss_params", "opt_state"):
        assert_same(getattr(state, field), getattr(after, field))
    assert (int(after.step), int(after.skipped)) == (2, 1)
    assert float(metrics["skipped"]) == 1
    old, new = map(jax.random.key_data, (state.key, after.key))
    assert not np.array_equal(old, new)
    assert not np.isfinite(float(metrics["loss"]))
    assert np.isnan(float(metrics["positive_distance"]))
    again, metrics = compiled(after, (X, Y))
    assert (int(again.skipped), float(metrics["skipped"])) == (1, 0)
    assert not np.array_equal(again.params["w"], after.params["w"])


def root(x):
    """Return sqrt(x), whose derivative at 0 is infinite and whose value is 0."""
    return jnp.sqrt(x)


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, e, y: jnp.sum(root(0 * e)) + jnp.sum(p["proxies"] ** 2),
        lambda p, e, y: jnp.sum(e**2) + jnp.sum(root(0 * p["proxies"])),
    ],
    ids=["in params", "in loss_params"],
)
def test_a_finite_loss_with_a_gradient_that_is_not_is_skipped(loss):
    state = create(optax.sgd(0.1))
    step = jax.jit(make_train_step(embed_fn, loss, optax.sgd(0.1)))
    after, metrics = step(state, (X, Y))
    assert np.isfinite(float(metrics["loss"]))
    assert float(metrics["skipped"]) == 1
    assert_same(state.params, after.params)
    assert_same(state.loss_params, after.loss_params)


def test_a_loss_that_is_not_finite_with_a_finite_gradient_is_skipped():
    def loss(loss_params, embeddings, labels):
        return jnp.mean(embeddings**2) + jnp.inf

    state = create(optax.sgd(0.1))
    after, metrics = jax.jit(make_train_step(embed_fn, loss, optax.sgd(0.1)))(
        state, (X, Y)
    )
    assert np.isfinite(float(metrics["grad_norm"]))
    assert int(after.skipped) == 1
    assert_same(state.params, after.params)


def test_scan_equals_a_loop():
    batches = (jnp.stack([X, 2 * X, X * jnp.nan, -X]), jnp.stack([Y] * 4))
    scanned, metrics = jax.jit(lambda s, b: lax.scan(STEP, s, b))(create(), batches)
    looped = create()
    for i in range(4):
        looped, _ = compiled(looped, (batches[0][i], batches[1][i]))
    assert_same(scanned, looped, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(metrics["skipped"], [0, 0, 1, 0])


def test_vmap_trains_models_that_do_not_know_of_each_other():
    states = [create(seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    inputs = jnp.stack([X, jnp.nan * X, 3 * X])
    after, metrics = jax.jit(jax.vmap(STEP, in_axes=(0, (0, None))))(
        stacked, (inputs, Y)
    )
    np.testing.assert_array_equal(metrics["skipped"], [0, 1, 0])
    for i, state in enumerate(states):
        alone, _ = compiled(state, (inputs[i], Y))
        one = jax.tree.map(lambda x, i=i: x[i], after)
        assert_same(one, alone, rtol=1e-5, atol=1e-6)


def test_donated_states_are_reused_and_memory_stays_flat():
    step = jax.jit(STEP, donate_argnums=0)
    params = {"w": jnp.eye(3, 2)}
    state = create(params=params)
    given = jax.tree.leaves(state)
    state, _ = step(state, (X, Y))
    assert all(x.is_deleted() for x in given)
    live = len(jax.live_arrays())
    for _ in range(1000):
        state, metrics = step(state, (X, Y))
    del metrics
    assert len(jax.live_arrays()) <= live
    assert not params["w"].is_deleted()


def test_ids_reach_the_loss_and_take_pairs_out_of_the_distances():
    seen = {}

    def loss(loss_params, embeddings, labels, ids=None):
        seen["ids"] = ids
        return jnp.mean(embeddings**2)

    def plain(params, model_state, inputs, *, key, train):
        return inputs * params["a"], model_state

    optimizer = optax.sgd(0.1)
    state = TrainState.create({"a": jnp.ones(())}, {}, optimizer, key=jax.random.key(0))
    step = make_train_step(plain, loss, optimizer)
    # A repeated row, as a class with too few examples gives: distance 0, one sample.
    x = jnp.concatenate([X[:2], X[1:2]])
    y, ids = jnp.zeros(3, jnp.int32), jnp.array([4, 5, 5])
    _, metrics = step(state, {"inputs": x, "labels": y, "ids": ids})
    assert seen["ids"] is ids
    expected = float(jnp.linalg.norm(X[0] - X[1]))
    np.testing.assert_allclose(metrics["positive_distance"], expected, rtol=1e-6)
    _, tuple_metrics = step(state, (x, y, ids))
    np.testing.assert_array_equal(metrics["loss"], tuple_metrics["loss"])
    _, metrics = step(state, {"inputs": x, "labels": y})
    assert seen["ids"] is None
    np.testing.assert_allclose(
        metrics["positive_distance"], expected * 2 / 3, rtol=1e-6
    )


def test_transformations_that_need_the_loss_are_given_it():
    optimizer = optax.chain(
        optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1, cooldown=0)
    )
    state, step = create(optimizer), make_train_step(embed_fn, loss_fn, optimizer)
    after, _ = jax.jit(step)(state, (X, Y))
    assert not np.array_equal(after.params["w"], state.params["w"])


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (
            X,
            "train step: `batch` must be a tuple of 2 or 3 entries or a mapping, got "
            "ArrayImpl. Give (inputs, labels) or (inputs, labels, ids).",
        ),
        (
            (X,),
            "train step: `batch` must be a tuple of 2 or 3 entries or a mapping, got "
            "1 entries. Give (inputs, labels) or (inputs, labels, ids).",
        ),
        (
            {"inputs": X, "targets": Y},
            "train step: `batch` must have the keys 'inputs', 'labels' and at most "
            "'ids', got the keys ['inputs', 'targets']. "
            "Give (inputs, labels) or (inputs, labels, ids).",
        ),
    ],
)
def test_batches_of_another_form_are_refused(batch, text):
    with pytest.raises(ValueError, match="batch") as e:
        STEP(create(), batch)
    assert str(e.value) == text


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (lambda e: e[:, 0], "shape (6,)"),
        (lambda e: LossStats(e[:, 0], Y, Y), "LossStats"),
        (lambda e: (jnp.sum(e), {"a": 1}), "tuple"),
        (lambda e: None, "NoneType"),
    ],
)
def test_losses_that_are_no_scalar_are_refused(result, got):
    step = make_train_step(embed_fn, lambda p, e, y: result(e), OPTIMIZER)
    with pytest.raises(ValueError, match="loss_fn") as e:
        step(create(), (X, Y))
    assert str(e.value) == (
        "make_train_step: `loss_fn` must return a scalar or (scalar, LossStats), got "
        f"{got}. Use reduction='mean' for the scalar, jm.reduce(stats, 'mean') of both."
    )


def test_model_state_that_changes_its_form_is_refused():
    def grows(params, model_state, inputs, *, key, train):
        return inputs @ params["w"], {**model_state, "more": jnp.zeros(1)}

    with pytest.raises(ValueError, match="make_train_step: `embed_fn` must return a"):
        make_train_step(grows, loss_fn, OPTIMIZER)(create(), (X, Y))
