"""Pairs from .npz files: what is read, and what is refused."""

import numpy as np
import pytest

from jaxmetric.data import (
    DataError,
    PairedDataset,
    PairSampler,
    hold_out_rows,
    load_pairs,
)
from jaxmetric.data.paired import Side

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6, 5, 4), np.uint8)
ROWS = RANDOM.normal(size=(6, 3))
LABELS = np.array([5, 2, 5, 9, 2, 2])


@pytest.fixture
def save(tmp_path):
    """Return a function that writes arrays and returns the path."""

    def write(**arrays):
        path = tmp_path / "set.npz"
        np.savez(path, **arrays)
        return path

    return write


def test_a_shape_tells_what_an_array_is(save):
    path = save(image=IMAGES, text=ROWS, user=np.arange(6), labels=LABELS)
    data = load_pairs(path, query="image", key="text")
    assert (data.query == IMAGES[..., None]).all()
    assert data.key.dtype == np.float32
    np.testing.assert_array_equal(data.key, ROWS.astype(np.float32))
    assert np.asarray(data.labels).tolist() == [1, 0, 1, 2, 0, 0]
    assert data.class_names == ("2", "5", "9")
    assert (len(data), data.name, data.num_classes) == (6, "set", 3)
    ids = load_pairs(path, query="user", key="user")
    assert ids.query.dtype == np.int32
    assert ids.query.tolist() == list(range(6))


def test_labels_may_have_any_name_and_names_of_their_own(save):
    names = np.array(["art", "law", "sport"])
    path = save(a=ROWS, b=ROWS, category=LABELS, category_names=names)
    assert load_pairs(path, query="a", key="b").labels is None
    data = load_pairs(path, query="a", key="b", labels="category")
    assert data.class_names == ("art", "law", "sport")
    # Names that are not one for each category name none of them.
    path = save(a=ROWS, b=ROWS, category=LABELS, category_names=names[:2])
    data = load_pairs(path, query="a", key="b", labels="category")
    assert data.class_names == ("2", "5", "9")


def test_sides_may_be_resized_each_to_its_own(save):
    path = save(a=IMAGES, b=np.stack([IMAGES] * 3, -1))
    size: dict[Side, tuple[int, int]] = {"query": (2, 2), "key": (3, 3)}
    channels: dict[Side, int | None] = {"query": 3, "key": 1}
    data = load_pairs(path, query="a", key="b", image_size=size, channels=channels)
    assert data.query.shape == (6, 2, 2, 3)
    assert data.key.shape == (6, 3, 3, 1)


def test_rows_are_taken_together():
    data = PairedDataset(ROWS, ROWS[:, :1], "x", LABELS, scores=np.arange(6.0))
    some = data.take([4, 0])
    np.testing.assert_array_equal(some.key, ROWS[[4, 0], :1])
    assert np.asarray(some.labels).tolist() == [2, 5]
    assert np.asarray(some.scores).tolist() == [4, 0]
    assert len(data.take([])) == 0
    with pytest.raises(ValueError, match="`key` must have the 6 rows of `query`"):
        PairedDataset(ROWS, ROWS[:5], "x")


@pytest.mark.parametrize(
    ("arrays", "options", "text"),
    [
        ({"b": ROWS}, {}, "holds no `a` (it holds b)"),
        ({"a": ROWS, "b": ROWS}, {"labels": "c"}, "holds no `c` (it holds a, b)"),
        ({"a": ROWS, "b": ROWS[:5]}, {}, "`a` has 6 rows but `b` has 5"),
        ({"a": ROWS, "b": ROWS[:, 0]}, {}, "`b` of shape (6,) and dtype float64 is"),
        ({"a": ROWS, "b": ROWS[:0]}, {}, "`b` of shape (0, 3) is empty"),
        ({"a": ROWS, "b": np.full((6, 2), np.nan)}, {}, "`b` must be finite"),
        ({"a": ROWS, "b": np.arange(6) - 1}, {}, "must not be negative, got -1"),
        ({"a": ROWS, "b": np.arange(6) << 40}, {}, "`b` must fit int32"),
        ({"a": ROWS, "b": np.array(["x"] * 6)}, {}, "`b` of shape (6,) and dtype <U1"),
        ({"a": ROWS, "b": np.array([{}] * 6)}, {}, "`b` holds Python objects"),
        ({"a": IMAGES[..., None, None], "b": ROWS}, {}, "is neither images"),
        (
            {"a": ROWS, "b": ROWS, "labels": LABELS[:5]},
            {},
            "`labels` of shape (5,) is not one label for each of the 6 pairs",
        ),
        ({"a": ROWS, "b": ROWS, "labels": ROWS[:, 0]}, {}, "`labels` must be integer"),
    ],
)
def test_unfit_files_are_refused_in_one_line(save, arrays, options, text):
    path = save(**arrays)
    with pytest.raises(DataError) as caught:
        load_pairs(path, query="a", key="b", **options)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{path}: ")
    assert text in message
    assert message.endswith((".", "?"))


def test_no_archive_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    path.write_text("no archive")
    with pytest.raises(DataError, match="cannot be read as an .npz file"):
        load_pairs(path, query="a", key="b")
    with pytest.raises(DataError, match="is not a regular file"):
        load_pairs(tmp_path / "none.npz", query="a", key="b")


def test_an_epoch_takes_every_row_at_most_once_and_another_order():
    sampler = PairSampler(10, batch_size=4, seed=3)
    epochs = [
        np.concatenate([sampler.batch(epoch, step) for step in range(2)])
        for epoch in range(3)
    ]
    for rows in epochs:
        assert len(set(rows.tolist())) == 8
        assert rows.dtype == np.int32
    assert len({tuple(rows.tolist()) for rows in epochs}) == 3
    again = PairSampler(10, batch_size=4, seed=3)
    np.testing.assert_array_equal(again.batch(2, 1), epochs[2][4:])
    np.testing.assert_array_equal(sampler.batch(0, 0), epochs[0][:4])


@pytest.mark.parametrize("size", [0, 11])
def test_a_batch_is_of_rows_that_there_are(size):
    with pytest.raises(ValueError, match="`batch_size` must be 1 to the 10 rows"):
        PairSampler(10, batch_size=size)
    with pytest.raises(ValueError, match=r"`step` must be in \[0, 2\), got 2"):
        PairSampler(10, batch_size=4).batch(0, 2)


def test_rows_are_held_out_by_the_seed_alone():
    train, held_out = hold_out_rows(100, fraction=0.25, seed=1)
    assert (len(train), len(held_out)) == (75, 25)
    assert sorted([*train, *held_out]) == list(range(100))
    np.testing.assert_array_equal(hold_out_rows(100, fraction=0.25, seed=1)[0], train)
    assert set(hold_out_rows(100, fraction=0.25, seed=2)[1]) != set(held_out)
    # Two at least on both sides, whatever the share.
    assert [len(x) for x in hold_out_rows(4, fraction=0.01)] == [2, 2]
    assert [len(x) for x in hold_out_rows(9, fraction=0.99)] == [2, 7]
    with pytest.raises(ValueError, match="at least 4, got 3"):
        hold_out_rows(3)
    with pytest.raises(ValueError, match=r"`fraction` must be in \(0, 1\)"):
        hold_out_rows(9, fraction=1.0)
