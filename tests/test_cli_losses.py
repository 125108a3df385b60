"""Losses by name, with the hyper-parameters that their signatures have."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmetric as jm
from jaxmetric.cli.collapse import CollapseWatch
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.losses import hyper_parameters, loss_names, resolve

ROWS = jm.l2_normalize(
    jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
)
LABELS = jnp.array([0, 0, 1, 1, 2, 2])
PROXIES = {"proxies": jnp.eye(3)}
# Of each kind of loss, to the command line: the others are slow.
ONE_OF_A_KIND = ("semi_hard", "supervised_contrastive", "fast_ap", "proxy_anchor")


@pytest.mark.parametrize(
    "name",
    ["batch_hard", "batch-hard", "batch_hard_triplet", "batch_hard_triplet_loss"],
)
def test_suffixes_are_optional(name):
    assert resolve(name, {}).name == "batch_hard_triplet_loss"


@pytest.mark.parametrize(
    "name",
    [
        name if name in ONE_OF_A_KIND else pytest.param(name, marks=pytest.mark.slow)
        for name in loss_names()
    ],
)
def test_every_loss_of_labelled_rows_trains(name):
    loss, proxies = resolve(name, {}), PROXIES["proxies"]
    if loss.num_centers is not None:
        proxies = jnp.stack([proxies, *[-proxies] * (loss.num_centers - 1)], axis=1)
    result = loss.loss_fn()({"proxies": proxies}, ROWS, LABELS, ids=jnp.arange(6))
    value = result[0] if isinstance(result, tuple) else result
    arrays = (ROWS, LABELS, proxies)[: 3 if loss.has_proxies else 2]
    np.testing.assert_allclose(value, getattr(jm.losses, loss.name)(*arrays), 1e-6)


def test_losses_are_discovered():
    short = {resolve(name, {}).name for name in loss_names()}
    assert short <= set(jm.losses.__all__)
    assert "triplet_margin_loss" not in short
    assert "normalized_softmax_loss" in short


def test_hyper_parameters_are_those_of_the_signatures():
    found = hyper_parameters()
    assert {"margin", "soft", "squared", "temperature", "distance"} <= found.keys()
    assert not {"where", "ids", "ref_embeddings", "block_size"} & found.keys()
    assert "0.2 in " in found["margin"][1]


def test_hyper_parameters_reach_the_loss():
    loss = resolve("batch_all", {"margin": 0.5, "soft": None})
    expected = jm.losses.batch_all_triplet_loss(ROWS, LABELS, margin=0.5)
    value, stats = loss.loss_fn()({}, ROWS, LABELS)
    np.testing.assert_allclose(value, expected, 1e-6)
    assert isinstance(stats, jm.LossStats)


def test_losses_of_several_proxies_a_class_have_as_many_as_their_papers():
    assert resolve("subcenter_arcface", {}).num_centers == 3
    assert resolve("soft_triple", {}).num_centers == 10
    assert resolve("arcface", {}).num_centers is None
    loss = resolve("soft_triple", {"num_centers": 2, "la": 5.0})
    assert loss.num_centers == loss.settings["num_centers"] == 2
    proxies = jnp.stack([jnp.eye(3), -jnp.eye(3)], axis=1)
    value, _ = loss.loss_fn()({"proxies": proxies}, ROWS, LABELS)
    expected = jm.losses.soft_triple_loss(ROWS, LABELS, proxies, la=5.0)
    np.testing.assert_allclose(value, expected, 1e-6)


def test_a_margin_that_multiplies_angles_is_a_whole_number():
    assert resolve("sphereface", {"margin": 3.0}).hyper == {"margin": 3}
    with pytest.raises(UsageError, match="--margin must be a whole number, got 2.5"):
        resolve("sphereface", {"margin": 2.5})


def test_a_repeated_row_is_not_its_own_positive():
    loss_fn = resolve("batch_hard", {}).loss_fn()
    labels, ids = jnp.array([0, 0, 1, 1, 2, 2]), jnp.array([7, 7, 8, 8, 9, 9])
    assert loss_fn({}, ROWS, labels, ids=ids)[0] == 0
    assert loss_fn({}, ROWS, labels)[0] > 0


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("contrastive", {"positive_margin": -1.0}),
        ("contrastive", {"margin": float("inf")}),
        ("batch_hard", {"squared": True}),
        ("supervised_contrastive", {"temperature": -0.1}),
        ("soft_triple", {"num_centers": 0}),
        ("arcface", {"num_centers": 2}),
    ],
)
def test_what_a_loss_cannot_take_is_refused(name, chosen):
    with pytest.raises(UsageError, match="--"):
        resolve(name, chosen)


def _metrics(loss, distance):
    names = ("positive_distance", "negative_distance")
    return {"loss": loss, **{name: distance for name in names}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_hard", 0.2),
        ("semi_hard", 0.2),
        ("supervised_contrastive", np.log(5)),
        ("normalized_softmax", np.log(3) + 1),
    ],
)
def test_collapse_is_noticed_once_after_fifty_steps(name, value):
    watch = CollapseWatch(resolve(name, {}), np.asarray(LABELS), 3, 4)
    told = [watch.notice(_metrics(value, 1e-3)) for _ in range(120)]
    assert [i for i, is_told in enumerate(told) if is_told] == [49]


@pytest.mark.parametrize(("value", "distance"), [(0.1, 1e-6), (0.2, 0.02)])
def test_no_collapse_without_both_signs(value, distance):
    watch = CollapseWatch(resolve("batch_hard", {}), np.asarray(LABELS), 3, 4)
    assert not any(watch.notice(_metrics(value, distance)) for _ in range(120))


def test_the_fifty_steps_are_in_a_row():
    watch = CollapseWatch(resolve("batch_hard", {}), np.asarray(LABELS), 3, 4)
    steps = (
        [_metrics(0.2, 1e-6)] * 49 + [_metrics(0.2, 0.1)] + [_metrics(0.2, 1e-6)] * 49
    )
    assert not any(watch.notice(step) for step in steps)
