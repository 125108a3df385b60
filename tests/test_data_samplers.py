"""The P x K sampler: pure, even, complete, and the same everywhere."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from jaxmetric.data import ClassSampler

# Class sizes from one row to many, values with gaps and signs, rows in mixed order.
LABELS = np.array([7] * 1 + [-3] * 2 + [50] * 9 + [8] * 30 + [9] * 4 + [11] * 5)
LABELS = LABELS[np.random.RandomState(0).permutation(len(LABELS))]  # noqa: NPY002

SHAPES = [(1, 1), (1, 4), (2, 4), (4, 3), (5, 2), (6, 4)]


def make(num_classes, m_per_class, seed=0, labels=LABELS):
    return ClassSampler(
        labels, num_classes=num_classes, m_per_class=m_per_class, seed=seed
    )


def epoch_of(sampler, epoch):
    steps = range(sampler.steps_per_epoch)
    return np.stack([sampler.batch(epoch, step) for step in steps])


@pytest.mark.parametrize(("p", "k"), SHAPES)
def test_a_batch_is_p_different_classes_of_k_rows(p, k):
    sampler = make(p, k)
    for epoch in range(3):
        for batch in epoch_of(sampler, epoch):
            assert batch.dtype == np.int32
            assert batch.shape == (p * k,)
            classes = LABELS[batch].reshape(p, k)
            assert (classes == classes[:, :1]).all()
            assert len(set(classes[:, 0])) == p


@pytest.mark.parametrize(("p", "k"), SHAPES)
def test_classes_are_covered_evenly_and_all_of_them(p, k):
    sampler = make(p, k)
    for epoch in range(5):
        seen = LABELS[epoch_of(sampler, epoch)][:, ::k].ravel()
        _, counts = np.unique(seen, return_counts=True)
        assert len(counts) == 6
        assert counts.max() - counts.min() <= 1


def test_every_class_comes_even_with_one_row_for_most():
    labels = np.array([0, 0] + list(range(1, 40)))
    sampler = make(4, 8, labels=labels)
    seen = np.unique(labels[epoch_of(sampler, 0)])
    assert seen.tolist() == list(range(40))


@pytest.mark.parametrize("k", [2, 4, 7])
def test_rows_repeat_inside_a_batch_only_in_classes_too_small(k):
    sampler = make(6, k)
    sizes = dict(zip(*np.unique(LABELS, return_counts=True), strict=True))
    for batch in epoch_of(sampler, 1):
        for rows in batch.reshape(6, k):
            size = sizes[LABELS[rows[0]]]
            _, counts = np.unique(rows, return_counts=True)
            assert len(counts) == min(size, k)
            assert counts.max() - counts.min() <= 1


def test_no_row_comes_again_before_the_others_of_its_class():
    labels = np.repeat(np.arange(5), 12)
    sampler = make(5, 4, labels=labels)
    # 60 rows, 20 a batch: an epoch is every row once.
    assert sampler.steps_per_epoch == 3
    for epoch in range(4):
        rows = np.sort(epoch_of(sampler, epoch).ravel())
        assert rows.tolist() == list(range(60))


def test_all_rows_of_a_large_class_come_within_a_few_epochs():
    sampler = make(2, 4)
    seen = np.unique([epoch_of(sampler, epoch).ravel() for epoch in range(30)])
    assert seen.tolist() == list(range(len(LABELS)))


def test_a_batch_depends_on_seed_epoch_and_step_alone():
    one, other = make(4, 3), make(4, 3)
    forward = [epoch_of(one, epoch) for epoch in (0, 1, 2)]
    for epoch in (2, 0, 1):
        for step in reversed(range(one.steps_per_epoch)):
            assert (other.batch(epoch, step) == forward[epoch][step]).all()
    assert (forward[0] != forward[1]).any()
    assert (epoch_of(make(4, 3, seed=1), 0) != forward[0]).any()
    # A caller that writes into a batch does not change the next one.
    one.batch(0, 0)[:] = 0
    assert (one.batch(0, 0) == forward[0][0]).all()


def test_global_random_state_has_no_effect():
    np.random.seed(1)  # noqa: NPY002
    first = make(4, 3).batch(0, 0)
    np.random.seed(2)  # noqa: NPY002
    assert (make(4, 3).batch(0, 0) == first).all()


def digest(sampler):
    ids = np.stack([epoch_of(sampler, epoch) for epoch in (0, 1, 10**12)])
    return hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()[:16]


def test_row_ids_are_those_of_any_other_machine():
    labels = np.arange(1000) ** 2 % 47
    sampler = make(8, 4, seed=123, labels=labels)
    assert digest(sampler) == "1fd55d4ab64fc20a"


def test_another_process_gives_the_same_rows():
    code = (
        "import numpy as np; from jaxmetric.data import ClassSampler;"
        "s = ClassSampler(np.arange(100) % 9, num_classes=4, m_per_class=2, seed=5);"
        "print(s.batch(3, 7).tolist())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77"},
    )
    sampler = make(4, 2, seed=5, labels=np.arange(100) % 9)
    assert run.stdout.strip() == str(sampler.batch(3, 7).tolist())


def test_equal_samplers_are_equal_and_frozen():
    assert make(2, 2) == make(2, 2)
    assert hash(make(2, 2)) == hash(make(2, 2))
    assert make(2, 2) != make(2, 2, seed=1)
    with pytest.raises(AttributeError):
        setattr(make(2, 2), "seed", 3)  # noqa: B010
    labels = LABELS.copy()
    sampler = make(2, 2, labels=labels)
    before = sampler.batch(0, 0)
    labels[:] = 0
    assert (sampler.batch(0, 0) == before).all()


BAD = [
    (
        {"num_classes": 7},
        ValueError,
        "ClassSampler: `num_classes` must be at most the 6 classes of `labels`, got 7. "
        "Use num_classes=6.",
    ),
    (
        {"num_classes": 0},
        ValueError,
        "ClassSampler: `num_classes` must be a positive int, got 0. Use 4.",
    ),
    (
        {"m_per_class": 2.0},
        ValueError,
        "ClassSampler: `m_per_class` must be a positive int, got 2.0. Use 4.",
    ),
    (
        {"labels": np.arange(5)},
        ValueError,
        "ClassSampler: `m_per_class` of 2 must find a class with two rows, got labels "
        "that are all different. Give more examples of each class.",
    ),
    (
        {"labels": LABELS.astype(float)},
        TypeError,
        "ClassSampler: `labels` must be integer or bool, got float64. "
        "Use np.unique(labels, return_inverse=True)[1].",
    ),
    (
        {"labels": LABELS[:, None]},
        ValueError,
        "ClassSampler: `labels` must have shape (n,) with n > 0, got (51, 1). "
        "Give one integer for each row.",
    ),
    (
        {"seed": -1},
        ValueError,
        "ClassSampler: `seed` must be an int in [0, 2**63), got -1. Use 0.",
    ),
]


@pytest.mark.parametrize(("change", "kind", "text"), BAD)
def test_what_the_data_cannot_give_is_refused(change, kind, text):
    arguments = {"labels": LABELS, "num_classes": 2, "m_per_class": 2, "seed": 0}
    arguments |= change
    labels = arguments.pop("labels")
    with pytest.raises(kind) as caught:
        ClassSampler(labels, **arguments)
    assert str(caught.value) == text


@pytest.mark.parametrize("step", [-1, 10**6])
def test_steps_beyond_the_epoch_are_refused(step):
    with pytest.raises(ValueError, match=r"`step` must be in \[0, \d+\), got"):
        make(2, 2).batch(0, step)
