"""The memory bank: a ring of references that goes wherever a pytree goes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType

import jaxmetric as jm
from jaxmetric.training import (
    MemoryBank,
    TrainState,
    embed_by_chunks,
    grad_cache,
    make_train_step,
    momentum_update,
    restore_checkpoint,
    save_checkpoint,
)

losses: Any = jm.losses
SIZE, BATCH, DIM = 8, 3, 4


def batch_of(step: int, rows: int = BATCH) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return embeddings, labels and ids of a step; no sample comes twice."""
    rng = np.random.default_rng([step, 5])
    x = jnp.asarray(rng.normal(size=(rows, DIM)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, rows), jnp.int32)
    return x, labels, step * rows + jnp.arange(rows, dtype=jnp.int32)


def explicit(steps: range) -> dict[str, jax.Array]:
    """Return the batches of some steps as references, joined by hand."""
    x, labels, ids = (
        jnp.concatenate(part) for part in zip(*map(batch_of, steps), strict=True)
    )
    return {"ref_embeddings": x, "ref_labels": labels, "ref_ids": ids}


def test_rows_go_round_and_the_oldest_are_overwritten():
    bank = MemoryBank.create(SIZE, DIM)
    assert int(bank.num_stored) == 0
    stored: list[Any] = [None] * SIZE
    for step in range(7):
        x, labels, ids = batch_of(step)
        bank = bank.push(x, labels, ids)
        for row in zip(np.asarray(x), labels.tolist(), ids.tolist(), strict=True):
            place = row[2] % SIZE  # rows are numbered as they come
            stored[place] = (*row, step)
        for place, row in enumerate(stored):
            if row is None:
                assert int(bank.age[place]) == -1
                continue
            np.testing.assert_array_equal(bank.embeddings[place], row[0])
            assert int(bank.labels[place]) == row[1]
            assert int(bank.ids[place]) == row[2]
            assert int(bank.age[place]) == step - row[3]
        assert int(bank.num_stored) == min(SIZE, 3 * (step + 1))
        assert int(bank.cursor) == 3 * (step + 1) % SIZE


def test_a_batch_as_large_as_the_bank_replaces_it_and_a_larger_one_is_refused():
    bank = MemoryBank.create(BATCH, DIM).push(*batch_of(0)).push(*batch_of(1))
    np.testing.assert_array_equal(bank.embeddings, batch_of(1)[0])
    with pytest.raises(ValueError, match="at most 3 rows") as e:
        bank.push(*batch_of(0, rows=4))
    assert str(e.value) == (
        "MemoryBank.push: `embeddings` must have at most 3 rows, which is all that the "
        "bank holds, got 4. Make the bank larger, or push the last rows alone."
    )


def test_only_rows_that_exist_and_are_finite_are_stored_without_gaps():
    x, labels, ids = batch_of(0, rows=6)
    where = jnp.array([True, False, True, True, False, True])
    bad = x.at[2, 1].set(jnp.nan).at[1].set(jnp.inf)
    bank = MemoryBank.create(SIZE, DIM).push(bad, labels, ids, where=where)
    assert bank.ids[:3].tolist() == [0, 3, 5]
    assert int(bank.num_stored) == int(bank.cursor) == 3
    assert bool(jnp.all(jnp.isfinite(bank.embeddings)))


LOSSES = [
    functools.partial(losses.batch_hard_triplet_loss, margin=1.0),
    functools.partial(losses.supervised_contrastive_loss, temperature=0.5),
]


@pytest.mark.parametrize("loss", LOSSES, ids=["batch hard", "supervised contrastive"])
def test_the_loss_is_that_of_explicit_references(loss):
    bank = MemoryBank.create(SIZE, DIM)
    x, labels, ids = batch_of(9)

    @jax.jit
    def with_bank(x, bank):
        return loss(x, labels, ids=ids, **bank.references())

    value_and_grad = jax.jit(jax.value_and_grad(with_bank))
    assert value_and_grad(x, bank)[0] == 0  # nothing is in it yet
    for step in range(2):
        bank = bank.push(*batch_of(step))

    def by_hand(x):
        return loss(x, labels, ids=ids, **explicit(range(2)))

    value, gradient = value_and_grad(x, bank)
    want, expected = jax.value_and_grad(by_hand)(x)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    assert np.any(expected)


def test_a_row_is_never_compared_with_its_own_stored_copy():
    x, labels, ids = batch_of(0)
    # A copy at another place, pushed an epoch ago, is the same sample still.
    one = (x[:1] + 0.5, labels[:1], ids[:1])
    bank = MemoryBank.create(SIZE, DIM).push(*batch_of(1)).push(*one)
    stats = losses.contrastive_loss(
        x, labels, ids=ids, reduction="none", **bank.references()
    )
    assert stats.num_terms.tolist() == [3, 4, 4]


def test_stored_rows_are_constants():
    x, labels, ids = batch_of(0)
    bank = MemoryBank.create(SIZE, DIM).push(*batch_of(1))

    def loss(x, stored):
        own = bank._replace(embeddings=stored).push(x, labels, ids + 100)
        return losses.contrastive_loss(x, labels, ids=ids, **own.references())

    _, of_stored = jax.grad(loss, (0, 1))(x, bank.embeddings)
    assert not of_stored.any()
    # Of the copies of x only the anchors move.
    own = bank.push(x, labels, ids + 100).references()
    want = jax.grad(lambda x: losses.contrastive_loss(x, labels, ids=ids, **own))(x)
    np.testing.assert_allclose(jax.grad(loss)(x, bank.embeddings), want, rtol=1e-6)


def test_the_bank_is_not_used_before_it_holds_its_share():
    bank = MemoryBank.create(SIZE, DIM)
    for step in range(3):
        where = bank.references(warm_up=0.75)["ref_where"]
        assert bool(where.any()) == (3 * step >= 6)
        bank = bank.push(*batch_of(step))
    assert bool(bank.references(warm_up=1.0)["ref_where"].all())
    with pytest.raises(ValueError, match="warm_up") as e:
        bank.references(warm_up=2)
    assert str(e.value) == (
        "MemoryBank.references: `warm_up` must be between 0 and 1, got 2. Use 0.5 to "
        "wait for half a bank."
    )


def embed_fn(params, model_state, inputs, *, key, train):
    return jm.l2_normalize(inputs @ params["w"]), model_state


OPTIMIZER = optax.sgd(0.1)


def training_step(carry, batch, *, embed_fn=embed_fn, loss=losses.contrastive_loss):
    """One step with references from the bank, which a momentum encoder fills."""
    state, average, bank = carry

    def loss_fn(loss_params, embeddings, labels, ids=None):
        references = bank.references(warm_up=0.5)
        return loss(embeddings, labels) + loss(
            embeddings, labels, ids=ids, **references
        )

    state, metrics = make_train_step(embed_fn, loss_fn, OPTIMIZER)(state, batch)
    average = momentum_update(average, state.params, decay=0.9)
    inputs, labels, ids = batch
    stored, _ = embed_fn(average, {}, inputs, key=None, train=False)
    return (state, average, bank.push(stored, labels, ids)), metrics["loss"]


def start(size: int = SIZE) -> Any:
    params = {"w": jnp.eye(DIM)}
    state = TrainState.create(params, {}, OPTIMIZER, key=jax.random.key(0))
    average = jax.tree.map(jnp.copy, params)
    return state, average, MemoryBank.create(size, DIM)


def batches(steps: range) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *map(batch_of, steps))


def assert_equal(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_a_hundred_steps_are_one_compilation_and_go_on_from_a_checkpoint(tmp_path):
    traces = []

    def step(carry, batch):
        traces.append(None)
        return training_step(carry, batch)

    scan = jax.jit(functools.partial(lax.scan, step))
    half = range(50), range(50, 100)
    middle, _ = scan(start(), batches(half[0]))
    end, values = scan(middle, batches(half[1]))
    num_traces = len(traces)
    assert bool(jnp.all(jnp.isfinite(values)))
    assert int(end[2].num_stored) == SIZE

    save_checkpoint(tmp_path, 50, middle, metadata={})
    restored, _ = restore_checkpoint(tmp_path, start())
    assert_equal(restored, middle)
    again, _ = scan(jax.tree.map(jnp.asarray, restored), batches(half[1]))
    assert_equal(again, end)
    assert scan._cache_size() == 1  # pyright: ignore (JAX's own count)
    assert len(traces) == num_traces
    # One step at a time, donated, is the same walk.
    single = jax.jit(training_step, donate_argnums=0)
    carry = start()
    for i in range(4):
        carry, _ = single(carry, batch_of(i))
    scanned, _ = jax.jit(functools.partial(lax.scan, training_step))(
        start(), batches(range(4))
    )
    for a, b in zip(carry[2], scanned[2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert single._cache_size() == 1  # pyright: ignore (JAX's own count)


def test_chunks_and_devices_and_the_bank_together():
    mesh = jax.make_mesh(
        (2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2]
    )
    x, labels, ids = batch_of(9, rows=6)
    bank = MemoryBank.create(SIZE, DIM).push(*batch_of(0)).push(*batch_of(1))

    def value_and_grad(loss, chunk_size):
        def loss_fn(loss_params, embeddings, labels, ids):
            return loss(embeddings, labels, ids=ids, **bank.references())

        return jax.jit(grad_cache(embed_fn, loss_fn, chunk_size=chunk_size))

    contrastive = losses.contrastive_loss
    parallel = jm.sharding.data_parallel(contrastive, mesh=mesh)
    params = {"w": jnp.eye(DIM)}
    got = value_and_grad(parallel, 2)(params, {}, x, labels, ids=ids)
    want = value_and_grad(contrastive, 6)(params, {}, x, labels, ids=ids)
    assert want[0] > 0
    np.testing.assert_allclose(got[0], want[0], rtol=2e-6)
    np.testing.assert_allclose(
        got[1]["params"]["w"], want[1]["params"]["w"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_a_training_step_with_all_three():
    mesh = jax.make_mesh(
        (2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2]
    )
    parallel = jm.sharding.data_parallel(losses.contrastive_loss, mesh=mesh)
    x, labels, ids = batch_of(9, rows=6)
    step = functools.partial(
        training_step, embed_fn=embed_by_chunks(embed_fn, chunk_size=2), loss=parallel
    )
    first = start()
    for i in range(3):
        first, value = jax.jit(step)(first, (x, labels, ids + 6 * i))
    second = start()
    for i in range(3):
        second, want = jax.jit(training_step)(second, (x, labels, ids + 6 * i))
    np.testing.assert_allclose(value, want, rtol=1e-5)


def test_momentum_update_is_the_weighted_mean():
    average = {"w": jnp.zeros(2), "half": jnp.zeros(2, jnp.bfloat16)}
    params = {"w": jnp.ones(2), "half": jnp.ones(2, jnp.bfloat16)}
    for decay in (0.75, jnp.float32(0.75)):
        got = momentum_update(average, params, decay=decay)
        np.testing.assert_array_equal(got["w"], [0.25, 0.25])
        assert got["half"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(got["half"].astype(jnp.float32), [0.25, 0.25])
    with pytest.raises(ValueError, match="decay") as e:
        momentum_update(average, params, decay=1.5)
    assert str(e.value) == (
        "momentum_update: `decay` must be between 0 and 1, got 1.5. The paper has "
        "0.999."
    )


def test_mistakes_are_told():
    x, labels, ids = batch_of(0)
    bank = MemoryBank.create(SIZE, DIM)
    cases: list[Any] = [
        (lambda: MemoryBank.create(0, 4), ValueError, "`size` must be a positive int"),
        (lambda: MemoryBank.create(4, 2.0), ValueError, "`dim` must be a positive"),  # pyright: ignore
        (
            lambda: MemoryBank.create(4, 2, dtype=jnp.int32),
            TypeError,
            "MemoryBank.create: `dtype` must be floating, got int32. Use jnp.float32.",
        ),
        (
            lambda: bank.push(x[:, :2], labels, ids),
            ValueError,
            "`embeddings` must have 4 columns like the bank, got shape (3, 2).",
        ),
        (
            lambda: bank.push(x, labels[:2], ids),
            ValueError,
            "MemoryBank.push: `labels` must have shape (3,) to match `embeddings`",
        ),
        (
            lambda: bank.push(x, labels, jnp.ones(3)),
            TypeError,
            "`ids` must be integer or bool, got float32.",
        ),
    ]
    for call, kind, message in cases:
        with pytest.raises(kind) as e:
            call()
        assert message in str(e.value)
    with jax.enable_x64(True), pytest.raises(TypeError) as e:
        bank.push(x, labels, jnp.arange(3, dtype=jnp.int64))
    assert str(e.value) == (
        "MemoryBank.push: `ids` must have at most 32 bits, got int64. Use "
        "ids.astype(jnp.int32)."
    )
