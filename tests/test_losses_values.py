"""Values of single losses that can be checked by hand, and stored regression values.

The fixtures are those of the formula sheet: F1 four numbers in two classes, F2 two
equal pairs of unit vectors, F4 three numbers, F5 four equal rows. The regression values
are from PyTorch Metric Learning 2.9.0 in float64, or from loops where it has none.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import PRINTED, SAME

import jaxmetric as jm

U, V = (1.0, 0.0), (0.0, 1.0)
PAIRS = jnp.array([0, 0, 1, 1])


def column(*values: float) -> jax.Array:
    """Return rows of one coordinate."""
    return jnp.array(values, jnp.float32)[:, None]


F1 = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
F2 = np.array([U, U, V, V], np.float32)
F5 = np.tile(np.array([[0.3, -0.8]], np.float32), (4, 1))


def sp(v: float) -> float:
    """Return log(1 + exp(v))."""
    return math.log1p(math.exp(v))


# Untyped: a loss returns a scalar or statistics, as the options say.
losses: Any = jm.losses
E = math.e

HAND = [
    ("batch_all_triplet_loss", F1, {"margin": 2.0}, 8 / 3),
    ("batch_all_triplet_loss", F1, {"margin": 2.0, "reduction": "mean"}, 1.0),
    ("batch_all_triplet_loss", F1, {"margin": 2.0, "reduction": "sum"}, 8.0),
    ("batch_hard_triplet_loss", F1, {"margin": 2.0}, 5 / 4),
    ("batch_hard_triplet_loss", F1, {"soft": True}, (2 * sp(-2) + sp(-1) + sp(2)) / 4),
    ("semi_hard_triplet_loss", F1, {"margin": 2.0}, (0 + 1 + 3 + 0) / 4),
    ("contrastive_loss", F1, {"margin": 4.0}, 22 / 12),
    ("contrastive_loss", F1, {"margin": 4.0, "squared": False}, 16 / 12),
    ("nt_xent_loss", F2, {"temperature": 1.0}, math.log(1 + 2 / E)),
    ("supervised_contrastive_loss", F2, {"temperature": 1.0}, math.log(1 + 2 / E)),
    # Total collapse: the margin, or the log of the number of candidates.
    ("batch_all_triplet_loss", F5, {"margin": 0.3}, 0.3),
    ("batch_hard_triplet_loss", F5, {"margin": 0.3}, 0.3),
    ("semi_hard_triplet_loss", F5, {"margin": 0.3}, 0.3),
    ("nt_xent_loss", F5, {}, math.log(3)),
    ("nt_xent_loss", F5, {"temperature": 1e-3}, math.log(3)),
    ("supervised_contrastive_loss", F5, {}, math.log(3)),
]


@pytest.mark.parametrize(
    ("name", "rows", "options", "value"),
    HAND,
    ids=[f"{k}-{case[0]}" for k, case in enumerate(HAND)],
)
def test_hand_values(name, rows, options, value):
    got = getattr(losses, name)(jnp.asarray(rows), PAIRS, **options)
    # At temperature t a similarity is rounded 1 / t times more coarsely.
    bound = PRINTED["float32"] * (1 + value / min(1, options.get("temperature", 1)))
    assert got == pytest.approx(value, abs=bound)
    case = {"embeddings": rows, "labels": [0, 0, 1, 1]}
    assert oracles.value(name, case, **options) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "batch_all_triplet_loss",
        "batch_hard_triplet_loss",
        "semi_hard_triplet_loss",
        "nt_xent_loss",
        "supervised_contrastive_loss",
    ],
)
def test_total_collapse_has_a_gradient_of_exactly_zero(name):
    grad = jax.grad(lambda x: getattr(losses, name)(x, PAIRS))(jnp.asarray(F5))
    assert not grad.any()


def test_collapse_is_visible_in_the_statistics():
    stats = losses.batch_all_triplet_loss(jnp.asarray(F5), PAIRS, reduction="none")
    assert stats.num_active.tolist() == stats.num_terms.tolist() == [2, 2, 2, 2]


def test_batch_all_counts_terms_and_active_terms():
    stats = losses.batch_all_triplet_loss(
        jnp.asarray(F1), PAIRS, margin=2.0, reduction="none"
    )
    assert int(stats.num_terms.sum()) == 8
    assert int(stats.num_active.sum()) == 3
    assert stats.num_terms.dtype == stats.num_active.dtype == jnp.int32


def test_terms_exactly_on_the_margin_are_inactive_and_have_no_gradient():
    x = column(0, 1, 2, 3)
    value, grad = jax.value_and_grad(
        lambda x: losses.batch_all_triplet_loss(x, PAIRS, margin=1.0)
    )(x)
    stats = losses.batch_all_triplet_loss(x, PAIRS, margin=1.0, reduction="none")
    assert int(stats.num_active.sum()) == 2
    assert value == 1.0
    np.testing.assert_array_equal(grad[:, 0], [-0.5, 1.5, -1.5, 0.5])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("batch_all_triplet_loss", {"margin": 2.0}),
        ("batch_hard_triplet_loss", {"margin": 2.0}),
        ("semi_hard_triplet_loss", {"margin": 2.0}),
        ("contrastive_loss", {"margin": 3.0, "positive_margin": 1.0, "squared": False}),
    ],
)
def test_a_hinge_at_exactly_zero_is_inactive_and_has_no_gradient(name, options):
    """One anchor at 0, its positive at 1, its negative at 3: the gap is the margin."""

    def loss(x, refs, **more):
        return getattr(losses, name)(
            x, jnp.array([0]), ref_embeddings=refs, ref_labels=jnp.array([0, 1]),
            **options, **more,
        )  # fmt: skip

    sides = column(0), column(1, 3)
    gradients = jax.grad(loss, argnums=(0, 1))(*sides, reduction="sum")
    assert not any(grad.any() for grad in gradients)
    stats = loss(*sides, reduction="none")
    assert stats.num_active.tolist() == [0]
    assert stats.num_terms.tolist() == [2 if name == "contrastive_loss" else 1]


def test_a_negative_as_far_as_the_positive_is_not_semi_hard():
    """Anchor 0, positive at 1, negatives at -1 and 2: the one at 2 is taken."""
    refs = {"ref_embeddings": column(1, -1, 2), "ref_labels": jnp.array([0, 1, 1])}
    loss = losses.semi_hard_triplet_loss(column(0), jnp.array([0]), margin=2.0, **refs)
    assert loss == 1 + 2 - 2
    miner: Any = jm.miners.semi_hard
    mined = miner(column(0), jnp.array([0]), **refs)
    assert mined.negative[0] == 2


def test_an_explicit_term_at_exactly_zero_has_no_gradient():
    a, p, n = column(0), column(1), column(3)
    for side in range(3):
        grad = jax.grad(losses.triplet_margin_loss, argnums=side)(a, p, n, margin=2.0)
        assert not grad.any()
    is_positive = jnp.array([False])
    grad = jax.grad(losses.pair_loss)(a, n, is_positive, margin=3.0, squared=False)
    assert not grad.any()


def test_one_sided_contrastive_losses_are_the_form_of_pml():
    """Each side averaged over its own active terms: 2.5 + 1.5."""

    def side(**weight):
        return losses.contrastive_loss(
            jnp.asarray(F1), PAIRS, margin=4.0, squared=False,
            reduction="mean_active", **weight,
        )  # fmt: skip

    assert side(negative_weight=0.0) == pytest.approx(2.5)
    assert side(positive_weight=0.0) == pytest.approx(1.5)


def test_pair_loss_in_its_three_forms():
    x, y = column(0, 0, 0), column(2, 0.5, 3)
    is_positive = jnp.array([True, False, False])
    halves = losses.pair_loss(x, y, is_positive, margin=1.0)
    hinge = losses.pair_loss(x, y, is_positive, margin=1.0, squared=False)
    assert halves == pytest.approx((2 + 0.125 + 0) / 3)
    assert hinge == pytest.approx((2 + 0.5 + 0) / 3)


def test_pair_loss_with_cosine_is_torch_cosine_embedding_loss():
    x, y = jnp.array([U, U]), jnp.array([V, (0.6, 0.8)])
    is_positive = jnp.array([True, False])
    loss = losses.pair_loss(
        x, y, is_positive, distance="cosine", squared=False, margin=1 - 0.25
    )
    assert loss == pytest.approx((1 + (0.6 - 0.25)) / 2)


def test_softmax_over_two_orthogonal_proxies():
    x, proxies, label = jnp.array([U]), jnp.array([U, V]), jnp.array([0])
    loss = losses.normalized_softmax_loss(x, label, proxies, temperature=0.5)
    assert loss == pytest.approx(math.log(1 + math.exp(-2)), rel=PRINTED["float32"])
    loss = losses.weighted_softmax_loss(3 * x, label, proxies)
    assert loss == pytest.approx(math.log(1 + math.exp(-3)), rel=PRINTED["float32"])


def test_weighted_softmax_is_the_weighted_mean_of_torch():
    x, proxies = jnp.array([U, V, U]), jnp.array([U, V])
    labels, weights = jnp.array([0, 1, 1]), jnp.array([1.0, 3.0])
    near, far = math.log(1 + math.exp(-1)), math.log(1 + E)
    loss = losses.weighted_softmax_loss(x, labels, proxies, class_weights=weights)
    want = (1 * near + 3 * near + 3 * far) / 7
    assert loss == pytest.approx(want, rel=PRINTED["float32"])


def test_a_single_class_of_proxies_is_certain():
    x, labels, proxies = jnp.array([U, V]), jnp.array([0, 0]), jnp.array([V])
    assert losses.normalized_softmax_loss(x, labels, proxies) == 0
    assert losses.weighted_softmax_loss(x, labels, proxies) == 0


def test_with_one_positive_an_anchor_nt_xent_equals_supervised_contrastive():
    x = jax.random.normal(jax.random.key(0), (8, 4))
    labels = jnp.arange(8) % 4
    one = losses.nt_xent_loss(x, labels, temperature=0.3)
    two = losses.supervised_contrastive_loss(x, labels, temperature=0.3)
    assert one == pytest.approx(float(two), rel=SAME["float32"])


def test_triplet_loss_over_all_triplets_is_batch_all():
    x = jax.random.normal(jax.random.key(0), (6, 3))
    labels = jnp.array([0, 0, 0, 1, 1, 2])
    a, p, n = (jnp.asarray(i.reshape(-1)) for i in np.indices((6, 6, 6)))
    valid = (labels[a] == labels[p]) & (a != p) & (labels[a] != labels[n])
    loss = losses.triplet_loss(x, jm.Triplets(a, p, n, valid), reduction="mean_active")
    want = losses.batch_all_triplet_loss(x, labels)
    assert loss == pytest.approx(float(want), rel=SAME["float32"])


@pytest.mark.slow
def test_mined_triplets_in_triplet_loss_give_the_mined_loss():
    x = jax.random.normal(jax.random.key(1), (8, 3))
    labels = jnp.array([0, 0, 0, 1, 1, 2, 2, 3])
    for miner, loss in (
        (jm.miners.batch_hard, losses.batch_hard_triplet_loss),
        (jm.miners.semi_hard, losses.semi_hard_triplet_loss),
    ):
        got = losses.triplet_loss(x, miner(x, labels))
        assert got == pytest.approx(float(loss(x, labels)), rel=SAME["float32"])


# Regression values -------------------------------------------------------------------

_REGRESSION = [
    ("contrastive_loss", {"squared": False}, 0.4214684297),
    ("contrastive_loss", {}, 0.1297423865),
    ("batch_all_triplet_loss", {"margin": 0.05}, 0.0684676121),
    ("batch_all_triplet_loss", {}, 0.1649332709),
    ("batch_all_triplet_loss", {"distance": "cosine"}, 0.1611862612),
    ("batch_hard_triplet_loss", {}, 0.1573890175),
    ("batch_hard_triplet_loss", {"soft": True}, 0.6729216765),
    ("semi_hard_triplet_loss", {}, 0.1347791242),
    ("nt_xent_loss", {}, 0.9084573866),
    ("nt_xent_loss", {"temperature": 0.5}, 1.2443404402),
    ("supervised_contrastive_loss", {}, 0.9798080488),
]


def fan() -> np.ndarray:
    """Return five unit rows in float64, at unequal angles."""
    angles = np.radians([0.0, 20.0, 40.0, 60.0, 80.0])
    rows = np.stack([2 * np.cos(angles), 0.5 * np.sin(angles)], axis=-1)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


FAN_LABELS = np.array([0, 0, 1, 1, 2])


@pytest.mark.parametrize(
    ("name", "options", "value"),
    _REGRESSION,
    ids=[f"{k}-{case[0]}" for k, case in enumerate(_REGRESSION)],
)
def test_regression_values(name, options, value):
    with jax.enable_x64(True):
        got = getattr(losses, name)(jnp.asarray(fan()), FAN_LABELS, **options)
        assert got.dtype == jnp.float64
    assert got == pytest.approx(value, abs=PRINTED["regression"])


def test_regression_value_of_all_triplets_with_swap():
    positive = (FAN_LABELS[:, None] == FAN_LABELS) & ~np.eye(5, dtype=bool)
    negative = FAN_LABELS[:, None] != FAN_LABELS
    a, p, n = np.nonzero(positive[:, :, None] & negative[:, None, :])
    with jax.enable_x64(True):
        x = jnp.asarray(fan())
        got = losses.triplet_margin_loss(
            x[a], x[p], x[n], swap=True, reduction="mean_active"
        )
    assert got == pytest.approx(0.2184676121, abs=PRINTED["regression"])


def test_regression_value_of_contrastive_in_the_form_of_pml():
    with jax.enable_x64(True):
        got = sum(
            losses.contrastive_loss(
                jnp.asarray(fan()), FAN_LABELS, squared=False, reduction="mean_active",
                **{side: 0.0},
            )
            for side in ("positive_weight", "negative_weight")
        )  # fmt: skip
    assert got == pytest.approx(0.6364218785, abs=PRINTED["regression"])


# Defects of peers --------------------------------------------------------------------


def test_a_wrongly_ranked_pair_costs_its_gap_over_the_temperature():
    """PML stops at 87.3 with gradient 0 (defect 1)."""
    x, labels = jnp.array([U, V, U, V]), PAIRS

    def loss(x):
        return losses.nt_xent_loss(x, labels, temperature=1e-3)

    value, grad = jax.value_and_grad(loss)(x)
    assert value == pytest.approx(1000, rel=1e-7)
    assert jnp.isfinite(grad).all()
    assert jnp.abs(grad).max() > 100
    with jax.enable_x64(True):
        assert loss(jnp.array([U, V, U, V], jnp.float64)) == 1000


def test_one_positive_and_one_negative_pair_are_enough():
    """PML returns 0 (defect 2)."""
    loss = losses.nt_xent_loss(
        jnp.array([U]), jnp.array([0]),
        ref_embeddings=jnp.array([U, V]), ref_labels=jnp.array([0, 1]),
    )  # fmt: skip
    assert loss > 0


def test_equal_label_arrays_are_alike_whatever_object_they_are():
    """PML decides self mode by the identity of the label array (defect 3)."""
    x = jax.random.normal(jax.random.key(0), (4, 3))
    refs = {"ref_embeddings": x + 1, "ref_labels": PAIRS}
    one = losses.nt_xent_loss(x, PAIRS, **refs)
    two = losses.nt_xent_loss(x, jnp.array(PAIRS, copy=True), **refs)
    assert one == two


def test_an_anchor_without_a_positive_is_not_averaged_in():
    """TF-Addons counts it with distance 0 (defect 25)."""
    x = jax.random.normal(jax.random.key(0), (4, 3))
    labels = jnp.array([0, 0, 1, 2])
    stats = losses.batch_hard_triplet_loss(x, labels, reduction="none")
    assert stats.num_terms.tolist() == [1, 1, 0, 0]


def test_soft_margins_do_not_overflow():
    """`log1p(exp(v))` is inf above 88 (defect 26)."""

    def loss(n):
        zero = jnp.zeros((1, 1))
        return losses.triplet_margin_loss(zero, zero + 100, n, soft=True)

    value, grad = jax.value_and_grad(loss)(jnp.full((1, 1), 1e-3))
    assert value == pytest.approx(100, rel=1e-4)
    assert grad[0, 0] == pytest.approx(-1, rel=1e-6)


def test_manhattan_triplet_of_asymmetric_rows():
    """Optax raises signed differences to the power (defect 35)."""
    rows = [jnp.array([row]) for row in ((0.0, 0.0), (1.0, 2.0), (-1.0, -1.0))]
    loss = losses.triplet_margin_loss(*rows, distance="manhattan", margin=1.0)
    assert loss == 3 - 2 + 1


def test_identical_rows_are_at_distance_zero():
    """Optax puts them 1e-3 apart (defect 36)."""
    x = jnp.array([[0.5, 0.25]])
    assert losses.pair_loss(x, x, jnp.array([True]), squared=False) == 0


def test_near_and_far_positives_at_a_low_temperature():
    """Optax shifts by the maximum over all pairs: -inf (defect 38)."""
    x = jnp.array([U, U, (-1.0, 0.0), (-1.0, 0.0)])
    labels = jnp.array([0, 0, 0, 1])
    value, grad = jax.value_and_grad(
        lambda x: losses.nt_xent_loss(x, labels, temperature=0.02)
    )(x)
    case = {"embeddings": x, "labels": labels}
    want = oracles.value("nt_xent_loss", case, temperature=0.02)
    assert value == pytest.approx(want, rel=PRINTED["float32"])
    assert jnp.isfinite(grad).all()


def test_large_half_precision_rows_keep_their_cosines():
    """Norms overflow in float16, and all cosines become 0 (defect 39)."""
    x = 300 * jax.random.normal(jax.random.key(0), (6, 4), jnp.float16)
    labels = jnp.arange(6) % 3
    value, grad = jax.value_and_grad(lambda x: losses.nt_xent_loss(x, labels))(x)
    want = losses.nt_xent_loss(x.astype(jnp.float32), labels)
    assert value == want
    assert grad.astype(jnp.float32).any()


def test_half_precision_duplicates_have_finite_gradients():
    """1e-16 under the root is 0 in float16 (defect 34)."""
    x = jnp.ones((4, 3), jnp.float16)
    for name in ("batch_all_triplet_loss", "batch_hard_triplet_loss"):
        grad = jax.grad(getattr(losses, name))(x, PAIRS)
        assert not grad.any()


def test_ids_beyond_two_to_the_24_are_told_apart():
    """Labels through float32 merge (defects 19 and 29)."""
    x = jax.random.normal(jax.random.key(0), (4, 3))
    labels = jnp.array([2**24, 2**24 + 1, 2**24 + 2, 2**24 + 3])
    stats = losses.contrastive_loss(x, labels, reduction="none")
    pulled = losses.contrastive_loss(x, labels, margin=0.0, reduction="sum")
    assert stats.num_terms.tolist() == [3, 3, 3, 3]
    assert pulled == 0


def test_mean_per_anchor_with_more_references_than_anchors():
    """PML's buffer is N x N (defect 21)."""
    rng = np.random.default_rng(0)
    case = {
        "embeddings": rng.normal(size=(3, 2)).astype(np.float32),
        "labels": np.array([0, 1, 0]),
        "ref_embeddings": rng.normal(size=(7, 2)).astype(np.float32),
        "ref_labels": np.array([0, 1, 2, 0, 1, 0, 2]),
    }
    arrays = dict(case)
    x, y = arrays.pop("embeddings"), arrays.pop("labels")
    got = losses.contrastive_loss(x, y, **arrays, reduction="mean_per_anchor")
    want = oracles.value("contrastive_loss", case, reduction="mean_per_anchor")
    assert got == pytest.approx(want, rel=PRINTED["float32"])


def test_the_mean_of_more_than_two_to_the_31_terms():
    """A sum of int32 counts would wrap, a float32 running sum stick at 2**24 (3.5)."""
    count = jnp.full(4096, 2047 * 2048)
    total = count.astype(jnp.float32) * 0.25
    stats = jm.LossStats(total, count, count)
    for reduction in ("mean", "mean_active", "mean_per_anchor"):
        assert jm.reduce(stats, reduction) == pytest.approx(0.25, rel=1e-6)


@pytest.mark.slow
def test_the_mean_over_4096_rows_of_two_classes():
    half = 2048
    x = jnp.concatenate([jnp.zeros((half, 1)), jnp.ones((half, 1))])
    labels = jnp.arange(2 * half) // half
    loss = losses.batch_all_triplet_loss(x, labels, margin=1.25)
    assert loss == pytest.approx(0 + 1.25 - 1, rel=1e-6)


def test_batch_hard_miner_on_nine_numbers():
    x = column(*range(9))
    labels = jnp.array([0, 0, 1, 1, 0, 2, 1, 1, 1])
    mined = jm.miners.batch_hard(x, labels)
    keep = np.asarray(mined.valid)
    assert np.asarray(mined.anchor)[keep].tolist() == [0, 1, 2, 3, 4, 6, 7, 8]
    assert np.asarray(mined.positive)[keep].tolist() == [4, 4, 8, 8, 0, 2, 2, 2]
    assert np.asarray(mined.negative)[keep].tolist() == [2, 2, 1, 4, 3, 5, 5, 5]
