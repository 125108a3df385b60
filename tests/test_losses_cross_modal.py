"""Queries and keys: values by hand, both directions, further keys, labels, masks."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import PRINTED, SAME

import jaxmetric as jm

losses: Any = jm.losses
U, V = [1.0, 0.0], [0.0, 1.0]
F3 = jnp.array([U, V])
E = math.e
NAMES = ["info_nce_loss", "sigmoid_contrastive_loss", "cross_modal_triplet_loss"]
CALLS = [
    ("info_nce_loss", {"temperature": 0.3}),
    ("info_nce_loss", {"temperature": 0.3, "symmetric": True}),
    ("sigmoid_contrastive_loss", {}),
    ("cross_modal_triplet_loss", {}),
    ("cross_modal_triplet_loss", {"hardest": False}),
]
each_call = pytest.mark.parametrize(("name", "options"), CALLS)


def sides(seed: int = 0, rows: int = 6, keys: int = 6) -> tuple[jax.Array, jax.Array]:
    """Return [rows, 3] queries and [keys, 3] keys."""
    one, two = jax.random.split(jax.random.key(seed))
    return jax.random.normal(one, (rows, 3)), jax.random.normal(two, (keys, 3))


@pytest.mark.parametrize(
    ("name", "keys", "options", "value"),
    [
        ("info_nce_loss", [U, V], {"temperature": 1.0}, math.log(1 + 1 / E)),
        (
            "info_nce_loss",
            [U, V],
            {"temperature": 1.0, "symmetric": True},
            math.log(1 + 1 / E),
        ),
        (
            "sigmoid_contrastive_loss",
            [U, V],
            {"scale": 1.0, "bias": 0.0},
            math.log(1 + 1 / E) + math.log(2),
        ),
        ("cross_modal_triplet_loss", [U, U], {}, (0.2 + 0.2 + 0 + 1.2) / 4),
        ("cross_modal_triplet_loss", [U, U], {"reduction": "sum"}, 1.6),
        ("cross_modal_triplet_loss", [U, U], {"hardest": False}, 0.4),
        # One more key on v: a tie of the first query, and of the second a negative.
        ("info_nce_loss", [U, V, V], {"temperature": 1.0}, math.log(1 + 2 / E) / 2
         + math.log(2 + 1 / E) / 2),
    ],
)  # fmt: skip
def test_hand_values(name, keys, options, value):
    got = getattr(losses, name)(F3, jnp.array(keys), **options)
    assert got == pytest.approx(value, rel=PRINTED["float32"])
    case = {"embeddings": F3, "labels": [0, 1], "ref_embeddings": keys}
    case["ref_labels"] = list(range(len(keys)))
    assert oracles.value(name, case, **options) == pytest.approx(value, rel=1e-6)


def test_symmetric_info_nce_is_the_loss_of_clip():
    x, y = sides()
    logits = jm.l2_normalize(x) @ jm.l2_normalize(y).T / 0.1
    rows, columns = (jnp.diag(jax.nn.log_softmax(logits, axis)) for axis in (1, 0))
    got = losses.info_nce_loss(x, y, temperature=0.1, symmetric=True)
    assert got == pytest.approx(float(-jnp.mean(rows + columns) / 2), rel=1e-5)


def test_symmetric_info_nce_is_the_mean_of_both_directions():
    x, y = sides(1)
    one, two = losses.info_nce_loss(x, y), losses.info_nce_loss(y, x)
    both = losses.info_nce_loss(x, y, symmetric=True)
    assert both == pytest.approx(float(one + two) / 2, rel=SAME["float32"])


def test_sigmoid_is_a_sum_over_keys_and_a_mean_over_queries():
    x, y = sides(2)
    z = 4 * jm.l2_normalize(x) @ jm.l2_normalize(y).T - 3
    signs = 2 * jnp.eye(6) - 1
    want = -jnp.sum(jax.nn.log_sigmoid(signs * z)) / 6
    got = losses.sigmoid_contrastive_loss(x, y, scale=4.0, bias=-3.0)
    assert got == pytest.approx(float(want), rel=1e-5)


@pytest.mark.parametrize("hardest", [True, False])
def test_ranking_in_both_directions_is_symmetric(hardest):
    x, y = sides(3)
    one = losses.cross_modal_triplet_loss(x, y, hardest=hardest)
    two = losses.cross_modal_triplet_loss(y, x, hardest=hardest)
    assert one == pytest.approx(float(two), rel=SAME["float32"])
    stats = losses.cross_modal_triplet_loss(x, y, hardest=hardest, reduction="none")
    assert stats.num_terms.tolist() == [2 if hardest else 2 * (6 - 1)] * 6


@each_call
def test_one_pair_alone(name, options):
    x, y = sides(4, 1, 1)

    def loss(x, y):
        return getattr(losses, name)(x, y, **options)

    value, grads = jax.value_and_grad(loss, argnums=(0, 1))(x, y)
    stats = loss_stats(name, x, y, **options)
    if name == "sigmoid_contrastive_loss":  # a decision needs no other
        assert value > 0
        assert stats.num_terms.tolist() == [1]
    else:
        assert value == 0
        assert not any(grad.any() for grad in grads)
        assert stats.num_terms.tolist() == [0]


def loss_stats(name: str, x: jax.Array, y: jax.Array, **options: Any) -> jm.LossStats:
    return getattr(losses, name)(x, y, **options, reduction="none")


@each_call
def test_further_keys_are_negatives_of_every_query(name, options):
    x, y = sides(5, 4, 7)
    if options.get("symmetric"):
        with pytest.raises(ValueError, match="symmetric"):
            getattr(losses, name)(x, y, **options)
        return
    got = getattr(losses, name)(x, y, **options)
    case = {"embeddings": x, "labels": range(4), "ref_embeddings": y}
    case = {**case, "labels": list(range(4)), "ref_labels": list(range(7))}
    want = oracles.value(name, case, **options)
    assert got == pytest.approx(want, rel=1e-5)


@each_call
def test_masked_pairs_are_as_if_they_were_not_there(name, options):
    x, y = sides(6)
    where = jnp.array([True, False, True, True, False, True])
    bad = jnp.where(where[:, None], y, jnp.nan)

    def loss(x, y, **more):
        return getattr(losses, name)(x, y, **options, **more)

    value, grads = jax.value_and_grad(loss, argnums=(0, 1))(x, bad, where=where)
    want, kept = jax.value_and_grad(loss, argnums=(0, 1))(x[where], y[where])
    assert value == pytest.approx(float(want), rel=SAME["float32"])
    for grad, part in zip(grads, kept, strict=True):
        assert not grad[~where].any()
        np.testing.assert_allclose(grad[where], part, atol=1e-5)


@each_call
def test_a_key_without_its_query_is_still_a_negative(name, options):
    x, y = sides(7)
    where = jnp.array([True, False, True, True, True, True])
    both = getattr(losses, name)(x, y, where=where, ref_where=where, **options)
    default = getattr(losses, name)(x, y, where=where, **options)
    assert both == pytest.approx(float(default), rel=SAME["float32"])
    more = getattr(losses, name)(x, y, where=where, ref_where=where | True, **options)
    case = {"embeddings": x, "labels": list(range(6)), "ref_embeddings": y}
    case |= {"ref_labels": list(range(6)), "where": where, "ref_where": [True] * 6}
    want = oracles.value(name, case, **options)
    assert more == pytest.approx(want, rel=1e-5)
    assert more != pytest.approx(float(both), rel=1e-3)


@each_call
def test_rows_of_one_label_are_no_negatives_of_each_other(name, options):
    x, y = sides(8)
    loss = getattr(losses, name)
    names = jnp.array([3, 1, 4, 15, 9, 2])
    plain = loss(x, y, **options)
    got = loss(x, y, labels=names, **options)
    assert got == pytest.approx(float(plain), rel=SAME["float32"])
    labels = jnp.array([0, 1, 0, 2, 1, 3])
    case = {"embeddings": x, "labels": labels, "ref_embeddings": y}
    want = oracles.value(name, {**case, "ref_labels": labels}, **options)
    got = loss(x, y, labels=labels, **options)
    assert got == pytest.approx(want, rel=1e-5)
    both = loss(x, y, labels=labels, ref_labels=labels, **options)
    assert got == pytest.approx(float(both), rel=SAME["float32"])
    # A label says what is no negative, never what belongs together: that is the index.
    other = jnp.array([5, 5, 0, 5, 5, 1])
    want = oracles.value(name, {**case, "ref_labels": other}, **options)
    got = loss(x, y, labels=labels, ref_labels=other, **options)
    assert got == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_one_label_for_all_leaves_no_negative(name):
    x, y = sides(9)
    labels = jnp.zeros(6, jnp.int32)
    loss = getattr(losses, name)(x, y, labels=labels, reduction="sum")
    if name != "sigmoid_contrastive_loss":
        assert loss == 0
        return
    s = jnp.sum(jm.l2_normalize(x) * jm.l2_normalize(y), -1)
    want = jnp.sum(jax.nn.softplus(-(10 * s - 10)))
    assert loss == pytest.approx(float(want), rel=1e-5)


def test_a_distance_with_a_side_is_asked_from_the_query_in_both_directions():
    def distance(x, y):  # not symmetric: the query is measured by its first coordinate
        return jnp.sum(jnp.square(x[:, None] - y[None]), -1) * jnp.exp(x[:, :1])

    x, y = sides(10)
    d = distance(x, y)
    rows, columns = (jnp.diag(jax.nn.log_softmax(-d, axis)) for axis in (1, 0))
    got = losses.info_nce_loss(x, y, temperature=1.0, symmetric=True, distance=distance)
    assert got == pytest.approx(float(-jnp.mean(rows + columns) / 2), rel=1e-5)


@each_call
def test_no_direction_forms_the_whole_matrix(name, options):
    """By blocks of 4 rows out of 64, with 8 columns: nothing of 64 x 64 numbers."""
    x, y = sides(11, 64, 64)

    def loss(x, y):
        return getattr(losses, name)(x, y, block_size=4, **options)

    largest = 0

    def walk(jaxpr) -> None:
        nonlocal largest
        for equation in jaxpr.eqns:
            for out in equation.outvars:
                largest = max(largest, getattr(out.aval, "size", 0))
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
            ):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    walk(inner)

    walk(jax.make_jaxpr(jax.value_and_grad(loss, argnums=(0, 1)))(x, y).jaxpr)
    assert 0 < largest < 64 * 64


def test_a_wrongly_ranked_pair_costs_its_gap_over_the_temperature():
    x, y = jnp.array([U, V]), jnp.array([V, U])

    def loss(x):
        return losses.info_nce_loss(x, y, temperature=1e-3, symmetric=True)

    value, grad = jax.value_and_grad(loss)(x)
    assert value == pytest.approx(1000, rel=1e-6)
    assert jnp.abs(grad).max() > 100


def test_equally_hard_keys_the_first_gets_the_gradient():
    x, y = jnp.array([U, V]), jnp.array([U, V, V])
    y = jnp.concatenate([y, jnp.array([V])])
    grad = jax.grad(
        lambda y: losses.cross_modal_triplet_loss(x, y, margin=3.0, reduction="sum")
    )(y)
    assert grad[1].any()
    assert not grad[2:].any()


def frequencies(seed: int = 0, keys: int = 6) -> jax.Array:
    """Return [keys] log-frequencies that add up to 1, far apart."""
    return jax.nn.log_softmax(3 * jax.random.normal(jax.random.key(seed), (keys,)))


@pytest.mark.parametrize("block_size", [None, 1, 4])
def test_frequencies_are_taken_off_the_logit_of_every_key(block_size):
    """The oracle: loops over the formula of the paper, own key included."""
    x, y = sides(20, 5, 7)
    log_p = frequencies(1, 7)
    labels, names = [0, 1, 2, 3, 1], [0, 1, 2, 3, 1, 2, 9]
    where = [True, True, False, True, True]
    want = []
    for i in range(5):
        s = [float(v) for v in jm.l2_normalize(y) @ jm.l2_normalize(x[i])]
        z = [a / 0.3 - float(b) for a, b in zip(s, log_p, strict=True)]
        keys = [j for j in range(7) if j == i or names[j] != labels[i]]
        keys = [j for j in keys if j != 2]  # whose query does not exist
        total = math.fsum(math.exp(z[j]) for j in keys)
        want.append(math.log(total) - z[i] if where[i] else 0.0)
    options: dict[str, Any] = {"temperature": 0.3, "block_size": block_size}
    options |= {"labels": jnp.array(labels), "ref_labels": jnp.array(names)}
    options |= {"where": jnp.array(where), "reduction": "none"}
    stats = losses.info_nce_loss(x, y, log_frequencies=log_p, **options)
    np.testing.assert_allclose(stats.total, want, rtol=1e-5, atol=1e-6)
    assert stats.num_terms.tolist() == [1, 1, 0, 1, 1]


@pytest.mark.slow
def test_with_frequencies_the_loss_is_the_softmax_over_all_items_in_expectation():
    """A large batch drawn by frequency stands for the catalogue, each item once."""
    random = np.random.default_rng(0)
    items = jnp.asarray(random.normal(size=(5, 3)), jnp.float32)
    user = items[2:3] + 0.5
    p = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
    drawn = np.concatenate([[2], random.choice(5, 20_000, p=p)])
    z = jm.l2_normalize(items) @ jm.l2_normalize(user)[0] / 0.5
    want = float(jax.nn.logsumexp(z) - z[2])

    def loss(**more):
        total = losses.info_nce_loss(
            user, items[drawn], temperature=0.5, symmetric=False, **more
        )
        # The mean of exp(z) / p over the batch is the sum over all items.
        return float(total) - math.log(len(drawn))

    log_p = jnp.asarray(np.log(p), jnp.float32)[drawn]
    # The logit of its own key is corrected too: log p of it is left over.
    corrected = loss(log_frequencies=log_p) - math.log(p[2])
    assert corrected == pytest.approx(want, abs=0.03)
    assert abs(loss() - want) > 0.3


def test_only_differences_of_frequencies_matter():
    x, y = sides(21)
    log_p = frequencies()
    plain = losses.info_nce_loss(x, y)
    same = losses.info_nce_loss(x, y, log_frequencies=jnp.full(6, -7.0))
    assert same == pytest.approx(float(plain), rel=1e-5)
    one, two = (
        losses.info_nce_loss(x, y, log_frequencies=log_p + shift) for shift in (0, 5)
    )
    assert one == pytest.approx(float(two), rel=1e-5)
    assert one != pytest.approx(float(plain), rel=1e-2)


def test_frequencies_cancel_in_the_direction_from_the_keys():
    x, y = sides(22)
    log_p = frequencies()
    both = losses.info_nce_loss(x, y, symmetric=True, log_frequencies=log_p)
    one = losses.info_nce_loss(x, y, log_frequencies=log_p)
    other = losses.info_nce_loss(y, x)
    assert both == pytest.approx(float(one + other) / 2, rel=1e-5)


def test_frequencies_of_keys_that_do_not_exist_change_nothing():
    x, y = sides(23)
    log_p = frequencies()
    where = jnp.array([True, True, False, True, True, True])

    def loss(y, log_p, **more):
        return losses.info_nce_loss(x, y, log_frequencies=log_p, **more)

    for masks in ({"where": where}, {"ref_where": where}):
        good = jax.value_and_grad(loss, argnums=(0, 1))(y, log_p, **masks)
        bad = jax.value_and_grad(loss, argnums=(0, 1))(
            y, log_p.at[2].set(-jnp.inf), **masks
        )
        jax.tree.map(np.testing.assert_array_equal, good, bad)
        assert bad[1][1][2] == 0
    assert jnp.isnan(loss(y, log_p.at[2].set(-jnp.inf)))
    assert jnp.isnan(loss(y, log_p.at[2].set(jnp.nan), reduction="none").total).all()


@pytest.mark.slow
def test_derivatives_by_frequencies_are_those_of_the_formula():
    x, y = sides(24)
    log_p = frequencies()

    def formula(x, y, log_p):
        z = jm.l2_normalize(x) @ jm.l2_normalize(y).T / 0.3 - log_p[None, :]
        return -jnp.mean(jnp.diag(jax.nn.log_softmax(z)))

    def loss(x, y, log_p):
        return losses.info_nce_loss(
            x, y, temperature=0.3, log_frequencies=log_p, block_size=4
        )

    arguments = (x, y, log_p)
    for derive, argnums in ((jax.grad, (0, 1, 2)), (jax.hessian, (2,))):
        got, want = (derive(f, argnums=argnums)(*arguments) for f in (loss, formula))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
            got,
            want,
        )
    several = jnp.stack([log_p, -log_p])
    batched = jax.vmap(loss, (None, None, 0))(x, y, several)
    np.testing.assert_allclose(batched, [loss(x, y, a) for a in several], rtol=1e-6)


BAD_CALLS = [
    (
        lambda x, y: losses.info_nce_loss(x, y[:5]),
        "info_nce_loss: `keys` must have at least the 6 rows of `queries`, got 5 rows. "
        "Row i of the queries belongs to row i of the keys.",
    ),
    (
        lambda x, y: losses.info_nce_loss(x[:4], y, symmetric=True),
        "info_nce_loss: `symmetric` must be False with 6 keys for 4 queries, got True. "
        "Further keys have no query to pick.",
    ),
    (
        lambda x, y: losses.sigmoid_contrastive_loss(x, y[:, :2]),
        "sigmoid_contrastive_loss: `keys` must have 3 columns like `queries`, got "
        "shape (6, 2). Embed both sides to the same width.",
    ),
    (
        lambda x, y: losses.cross_modal_triplet_loss(x, y, ref_labels=[0] * 6),
        "cross_modal_triplet_loss: `ref_labels` must come with `labels`, got it alone. "
        "Pass both, or neither.",
    ),
    (
        lambda x, y: losses.info_nce_loss(x[:4], y, labels=[0] * 4),
        "info_nce_loss: `ref_labels` must come with `labels` where there are further "
        "keys, got None. Pass one integer a key.",
    ),
    (
        lambda x, y: losses.info_nce_loss(x, y, where=jnp.ones(5, bool)),
        "info_nce_loss: `where` must have shape (6,) to match `queries` of shape "
        "(6, 3), got (5,). Give one bool a row.",
    ),
    (
        lambda x, y: losses.info_nce_loss(x, y, temperature=0.0),
        "info_nce_loss: `temperature` must be > 0, got 0.0. Typical values are 0.05 to "
        "0.5.",
    ),
    (
        lambda x, y: losses.info_nce_loss(x, y, log_frequencies=jnp.zeros(5)),
        "info_nce_loss: `log_frequencies` must have shape (6,), got (5,). Give the "
        "logarithm of how often each key occurs.",
    ),
]


@pytest.mark.parametrize("number", range(len(BAD_CALLS)))
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_bad_calls(number, wrap):
    call, text = BAD_CALLS[number]
    with pytest.raises(ValueError, match=".") as error:
        wrap(call)(*sides())
    assert str(error.value) == text
