"""A relation in place of labels: the same losses, and those that no label can say."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from cases import random_cases
from jax.sharding import NamedSharding, PartitionSpec
from oracle_rows import Row, batch_of, logsumexp, softplus
from subjects import ADAPTERS, SUBJECTS, by_kind
from tolerances import GRADIENT, VALUE

import jaxmetric as jm

CASES = 16

# They need more of a class than who belongs to it, and refuse a relation.
NEEDS_CLASSES = {
    "coupled_clusters_loss": "the means of classes",
    "cross_modal_triplet_loss": "row i belongs to row i; labels only leave keys out",
    "info_nce_loss": "likewise",
    "sigmoid_contrastive_loss": "likewise",
}
# With references a relation says less than labels: whether two of *them* are alike.
SELF_ONLY = {"n_pairs_loss": "one reference of each class, also of classes elsewhere"}
# Likewise, where a term is among the negatives of a negative: it is left out here.
WITHOUT = {"equidistant_triplet_loss": "equidistributed_weight"}
LABELLED = [subject for subject in SUBJECTS if subject.name not in ADAPTERS]


def stacked(cases):
    return jax.tree.map(lambda *a: jnp.stack([jnp.asarray(x) for x in a]), *cases)


def related(case):
    """Return a case whose labels have become the masks of a relation."""
    case = dict(case)
    labels = case.pop("labels")
    columns = case.pop("ref_labels", labels)
    is_equal = labels[:, None] == columns[None, :]
    return case | {"labels": jm.Relation(is_equal, ~is_equal)}


def value_and_grad(subject, cases):
    """Return the values and gradients of a stack of cases, as NumPy arrays."""

    def one(case):
        case = dict(case)
        hyper, x = case.pop("hyper"), case.pop("embeddings")
        return jax.value_and_grad(
            lambda x: subject({**case, "embeddings": x}, **hyper)
        )(x)

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(stacked(cases)))


@pytest.mark.parametrize("subject", by_kind(LABELLED))
@pytest.mark.parametrize("mode", ["self", pytest.param("ref", marks=pytest.mark.slow)])
def test_masks_of_labels_equal_the_labels(subject, mode):
    if mode == "ref" and (not subject.has_references or subject.name in SELF_ONLY):
        return
    cases = [dict(case) for case, _ in random_cases(subject, CASES, mode=mode)]
    for case in cases:
        case["hyper"] = dict(case["hyper"])
        case["hyper"].pop(WITHOUT.get(subject.name), None)
    others = [related(case) for case in cases]
    if "proxies" in subject.parameters or subject.name in NEEDS_CLASSES:
        told = f"{subject.name}: `labels` must be .*, got a Relation"
        with pytest.raises(TypeError, match=told):
            value_and_grad(subject, others)
        return
    one, two = value_and_grad(subject, cases), value_and_grad(subject, others)
    assert np.abs(one[0]).max() > 0
    for want, got, table in zip(one, two, (VALUE, GRADIENT), strict=True):
        for k, case in enumerate(cases):
            scale = max(1.0, np.max(subject.oracle.logit_scale(case["hyper"])))
            bound = table["float32"] * max(1.0, np.abs(want[k]).max()) * scale
            np.testing.assert_allclose(got[k], want[k], rtol=0, atol=bound)


BY_MASKS = [
    "batch_all_triplet_loss",
    "batch_hard_triplet_loss",
    "contrastive_loss",
    "nt_xent_loss",
    "semi_hard_triplet_loss",
    "supervised_contrastive_loss",
]


def random_relation(rng, shape, *, soft=False):
    """Return a relation that is neither symmetric nor complete, and one in doubt."""
    positive, negative = rng.random(shape) < 0.3, rng.random(shape) < 0.6
    if not soft:
        return jm.Relation(positive, negative)
    weights = rng.choice([0.25, 0.5, 1.0, 2.0], (2, *shape)).astype(np.float32)
    return jm.Relation(*np.where([positive, negative], weights, -0.5).astype("float32"))


def random_batch(rng, *, mode="self", soft=False):
    """Return a batch with a relation, some rows missing and some ids equal."""
    rows, others = 8, 8 if mode == "self" else 11
    batch = {
        "embeddings": rng.normal(size=(rows, 4)).astype(np.float32),
        "where": rng.random(rows) < 0.9,
        "ids": rng.integers(0, 30, rows).astype(np.int32),
        "labels": random_relation(rng, (rows, others), soft=soft),
    }
    if mode == "ref":
        batch |= {
            "ref_embeddings": rng.normal(size=(others, 4)).astype(np.float32),
            "ref_where": rng.random(others) < 0.9,
            "ref_ids": rng.integers(0, 30, others).astype(np.int32),
        }
    return batch


def rows_of(batch, distance):
    """Return the oracle's rows of a batch, with the positives of its relation."""
    positive, negative = (np.asarray(a) > 0 for a in batch["labels"])
    nobody = {"labels": [0] * 8, "ref_labels": [0] * positive.shape[1]}
    lists = batch_of({**batch, **nobody}, distance)

    def partners(i, *, same_class):
        mask = positive if same_class else negative & ~positive
        return [
            j
            for j in np.flatnonzero(mask[i]).tolist()
            if lists.where[i] and lists.ref_where[j] and not lists.same_sample(i, j)
        ]

    lists.partners = partners
    return [Row(lists, i) for i in range(8)]


@functools.cache
def compiled(name, block_size):
    loss = getattr(jm.losses, name)
    return jax.jit(lambda batch: loss(**batch, reduction="none", block_size=block_size))


@pytest.mark.parametrize("name", BY_MASKS)
@pytest.mark.parametrize(("mode", "block_size"), [("self", None), ("ref", 3)])
def test_any_relation_equals_loops(name, mode, block_size):
    rng, entry = np.random.default_rng(0), oracles.ORACLES[name]
    num_terms = 0
    for _ in range(20):
        batch = random_batch(rng, mode=mode)
        found = compiled(name, block_size)(batch)
        for i, row in enumerate(rows_of(batch, entry.distance)):
            terms = entry.function(row, **entry.defaults())
            total = math.fsum(terms)
            bound = VALUE["float32"] * (1 + abs(total)) * 20
            assert abs(float(found.total[i]) - total) < bound
            assert int(found.num_terms[i]) == len(terms)
            num_terms += len(terms)
    assert num_terms > 100


def weighted_terms(name, row, weights):
    """Return the terms of an anchor under soft weights, [2][rows][references]."""
    w_p, w_n = (a[row.i] for a in weights)
    if name == "contrastive_loss":
        terms = [float(w_p[j]) * row.d(j) ** 2 / 2 for j in row.positives]
        slack = {j: max(1 - row.d(j), 0) for j in row.negatives}
        return terms + [float(w_n[j]) * v**2 / 2 for j, v in slack.items()]
    if not row.has_both:
        return []
    t = 0.07 if name == "nt_xent_loss" else 0.1
    against = [row.s(j) / t + math.log(w_n[j]) for j in row.negatives]
    if name == "nt_xent_loss":
        opposed = logsumexp(against)
        return [float(w_p[j]) * softplus(opposed - row.s(j) / t) for j in row.positives]
    total = logsumexp(against + [row.s(j) / t for j in row.positives])
    count = math.fsum(float(w_p[j]) for j in row.positives)
    return [
        total - math.fsum(float(w_p[j]) * row.s(j) / t for j in row.positives) / count
    ]


@pytest.mark.parametrize(
    "name", ["contrastive_loss", "nt_xent_loss", "supervised_contrastive_loss"]
)
def test_soft_weights_scale_terms(name):
    rng, distance = np.random.default_rng(1), oracles.ORACLES[name].distance
    for _ in range(10):
        batch = random_batch(rng, soft=True)
        found = compiled(name, 3)(batch)
        for i, row in enumerate(rows_of(batch, distance)):
            terms = weighted_terms(name, row, batch["labels"])
            total = math.fsum(terms)
            assert abs(float(found.total[i]) - total) < 4e-5 * (1 + abs(total))
            assert int(found.num_terms[i]) == len(terms)


@pytest.mark.parametrize("name", ["nt_xent_loss", "supervised_contrastive_loss"])
def test_a_negative_of_weight_two_is_a_negative_that_is_there_twice(name):
    rng = np.random.default_rng(2)
    x, y = (jnp.asarray(rng.normal(size=(n, 4)), jnp.float32) for n in (5, 6))
    positive = np.arange(6)[None] % 5 == np.arange(5)[:, None]
    negative = ~positive
    weights = negative.astype(np.float32)
    weights[:, 3] *= 2
    loss = getattr(jm.losses, name)
    one = loss(x, jm.Relation(positive, weights), ref_embeddings=y)
    twice = [0, 1, 2, 3, 4, 5, 3]
    negative, positive = negative[:, twice], positive[:, twice].copy()
    positive[:, 6] = False
    negative[3, 6] = False
    two = loss(x, jm.Relation(positive, negative), ref_embeddings=y[jnp.array(twice)])
    np.testing.assert_allclose(one, two, rtol=2e-6)


def test_weights_elsewhere_are_masks():
    rng = np.random.default_rng(3)
    batch = random_batch(rng, soft=True)
    masks = jm.Relation(*(np.asarray(a) > 0 for a in batch["labels"]))
    for name in ("batch_all_triplet_loss", "batch_hard_triplet_loss"):
        one = compiled(name, None)(batch)
        two = compiled(name, None)(batch | {"labels": masks})
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)


def test_positive_wins_and_the_diagonal_is_nothing():
    x = jnp.array([[0.0], [1.0], [3.0]])
    everything, on_diagonal = np.ones((3, 3), bool), np.eye(3, dtype=bool)
    both = jm.Relation(everything, everything)
    loss: Any = functools.partial(jm.losses.contrastive_loss, reduction="none")
    stats = loss(x, both)
    np.testing.assert_array_equal(stats.num_terms, [2, 2, 2])
    np.testing.assert_allclose(stats.total, [5.0, 2.5, 6.5])
    hard: Any = jm.losses.batch_hard_triplet_loss
    assert not hard(x, both, reduction="none").num_terms.any()
    for side in (
        jm.Relation(on_diagonal, ~everything),
        jm.Relation(~everything, on_diagonal),
    ):
        stats = loss(x, side)
        assert not stats.num_terms.any()
        # Another side has no diagonal.
        stats = loss(x, side, ref_embeddings=x + 0.5)
        np.testing.assert_array_equal(stats.num_terms, [1, 1, 1])


@pytest.mark.parametrize("name", ["nt_xent_loss", "batch_hard_triplet_loss"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite(name, bad):
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    labels = np.array([0, 0, 1, 1, 2, 2])
    weights = (labels[:, None] == labels).astype(np.float32)
    where, ids = np.arange(6) != 5, np.array([0, 1, 2, 0, 4, 5])
    loss = jax.jit(
        jax.value_and_grad(
            lambda x, p, n: getattr(jm.losses, name)(
                x, jm.Relation(p, n), where=where, ids=ids
            )
        )
    )
    value, gradient = loss(x, weights, 1 - weights)
    # The diagonal, a row that does not exist, one sample twice: nothing to compare.
    for i, j in ((2, 2), (1, 5), (5, 0), (0, 3)):
        other = weights.copy()
        other[i, j] = bad
        again = loss(x, other, 1 - weights)
        np.testing.assert_array_equal(again[0], value)
        np.testing.assert_array_equal(again[1], gradient)
    other = weights.copy()
    other[1, 2] = bad
    assert np.isnan(loss(x, other, 1 - weights)[0])
    assert np.isnan(loss(x, weights, other)[0])


def test_weights_have_gradients():
    rng = np.random.default_rng(5)
    x = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    labels = np.array([0, 0, 1, 1, 2, 2])
    weights = jnp.asarray(labels[:, None] == labels, jnp.float32)
    gradient = jax.grad(
        lambda w: jm.losses.nt_xent_loss(x, jm.Relation(w, 1 - weights))
    )(weights)
    is_pair = (labels[:, None] == labels) & ~np.eye(6, dtype=bool)
    assert (np.asarray(gradient)[is_pair] > 0).all()
    assert not np.asarray(gradient)[~is_pair].any()
    assert np.isfinite(gradient).all()


def test_multi_hot_equals_loops():
    rng = np.random.default_rng(6)
    a, b = rng.random((7, 5)) < 0.3, rng.random((9, 5)) < 0.3
    shared = [[any(u and v for u, v in zip(p, q, strict=True)) for q in b] for p in a]
    for one, other in ((a, b), (a.astype(np.int32), jnp.asarray(b, jnp.bfloat16))):
        relation = jm.relation_from_multi_hot(one, other)
        np.testing.assert_array_equal(relation.positive, shared)
        np.testing.assert_array_equal(relation.negative, ~np.array(shared))
    own = jm.relation_from_multi_hot(a)
    np.testing.assert_array_equal(own.positive, a.astype(int) @ a.T.astype(int) > 0)


def test_one_hot_rows_equal_their_classes():
    rng = np.random.default_rng(7)
    x = jnp.asarray(rng.normal(size=(12, 4)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 4, 12))
    relation = jm.relation_from_multi_hot(jax.nn.one_hot(labels, 4))
    loss: Any = jm.losses.semi_hard_triplet_loss
    np.testing.assert_array_equal(loss(x, labels), loss(x, relation))


def test_batch_all_makes_no_cube():
    n = 256
    x = jnp.zeros((n, 4))
    labels = np.arange(n) % 3
    is_equal = labels[:, None] == labels
    largest = 0

    def walk(jaxpr: Any) -> None:
        nonlocal largest
        for equation in jaxpr.eqns:
            largest = max([largest, *(v.aval.size for v in equation.outvars)])
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
            ):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    walk(inner)

    def loss(x):
        relation: Any = jm.Relation(is_equal, ~is_equal)
        return jm.losses.batch_all_triplet_loss(x, relation, block_size=16)

    walk(jax.make_jaxpr(jax.value_and_grad(loss))(x).jaxpr)
    # The relation itself, 2 n^2 bools; the cube of a block would be 16 n^2.
    assert largest <= n * n


@pytest.mark.parametrize("mode", [pytest.param("self", marks=pytest.mark.slow), "ref"])
@pytest.mark.parametrize("name", ["batch_all_triplet_loss", "nt_xent_loss"])
def test_sharded_equals_one_device(name, mode):
    rng, rows = np.random.default_rng(8), 16
    x, y = (jnp.asarray(rng.normal(size=(n, 4)), jnp.float32) for n in (rows, 24))
    relation = random_relation(rng, (rows, rows if mode == "self" else 24), soft=True)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    shard = PartitionSpec("data")

    def loss(x, y, relation, **options):
        other = {} if mode == "self" else {"ref_embeddings": y}
        return getattr(jm.losses, name)(x, relation, **other, **options)

    with jax.set_mesh(mesh):
        arrays = jax.device_put((x, y, relation), NamedSharding(mesh, shard))
        mapped = jax.shard_map(
            functools.partial(loss, axis_name="data"),
            mesh=mesh,
            in_specs=(shard, shard, shard),
            out_specs=PartitionSpec(),
        )
        found = jax.jit(jax.value_and_grad(mapped, (0, 1)))(*arrays)
    expected = jax.jit(jax.value_and_grad(loss, (0, 1)))(x, y, relation)
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-6)
    for got, want in zip(found[1], expected[1], strict=True):
        bound = 15e-6 * max(np.abs(want).max(), 1e-3)
        np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=bound)


def test_bad_relations_are_told():
    x, masks = jnp.ones((4, 2)), np.ones((4, 4), bool)
    loss: Any = jm.losses.contrastive_loss
    shape = r"contrastive_loss: `labels.negative` must have shape \(4, 4\), a row for"
    with pytest.raises(ValueError, match=shape):
        loss(x, jm.Relation(masks, masks[:2]))
    with pytest.raises(ValueError, match=r"a column for each of `ref_embeddings`, got"):
        loss(x, jm.Relation(masks, masks), ref_embeddings=jnp.ones((5, 2)))
    with pytest.raises(ValueError, match="`ref_labels` must be None where `labels`"):
        loss(x, jm.Relation(masks, masks), ref_embeddings=x, ref_labels=np.zeros(4))
    with pytest.raises(TypeError, match="`labels.positive` must be bool or floating"):
        loss(x, jm.Relation(masks.astype(int), masks))
    with pytest.raises(TypeError, match="`is_positive` must be integer or bool, got a"):
        jm.losses.pair_loss(x, x, jm.Relation(masks, masks))  # pyright: ignore
    with pytest.raises(TypeError, match="one integer class a row, got a Relation"):
        jm.losses.proxy_anchor_loss(x, jm.Relation(masks, masks), x)  # pyright: ignore
    with pytest.raises(ValueError, match="`b` must have 3 columns like `a`"):
        jm.relation_from_multi_hot(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"`a` must have shape \(rows, num_classes\)"):
        jm.relation_from_multi_hot(np.ones(3))
    with pytest.raises(TypeError, match="`a` must be bool or real numbers, got"):
        jm.relation_from_multi_hot(np.array([["cat"]]))
    with pytest.raises(ValueError, match="`labels.positive` must have shape"):
        jm.miners.random_triplets(
            jax.random.key(0), jm.Relation(masks[0], masks[0]), num_triplets=2
        )
