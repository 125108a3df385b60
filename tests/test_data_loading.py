"""One door to all data, and the object that comes out of it."""

import os

import numpy as np
import pytest

from jaxmetric.data import DataError, Dataset, load, load_digits


def test_the_digits_are_bytes_of_ten_classes():
    data = load("digits")
    assert data.inputs.shape == (1797, 8, 8, 1)
    assert data.inputs.dtype == np.uint8
    assert (data.inputs.min(), data.inputs.max()) == (0, 255)
    assert np.asarray(data.labels).dtype == np.int32
    assert data.class_names == tuple("0123456789")
    assert (data.name, data.is_image, data.num_classes) == ("digits", True, 10)
    assert load_digits(image_size=(4, 16), channels=3).inputs.shape == (1797, 4, 16, 3)


def test_real_drawings_keep_their_order(test_data):
    path = os.path.join(test_data, "omniglot_background.npz")
    data = load(path, image_size=35)
    assert data.inputs.shape == (964 * 20, 35, 35, 1)
    assert data.inputs.dtype == np.uint8
    assert (np.asarray(data.labels) == np.repeat(np.arange(964), 20)).all()
    with np.load(path) as source:
        drawing = source["images"][3, 5]
    nine = drawing.reshape(35, 3, 35, 3).sum((1, 3)) * 255 / 9
    assert (data.inputs[3 * 20 + 5, ..., 0] == np.floor(nine + 0.5)).all()


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("uci_digits_train.npz", "fourier, karhunen_loeve, labels"),
        ("wiki_train.npz", "image, text, category, category_names"),
    ],
)
def test_real_files_of_other_arrays_are_told_apart(test_data, name, arrays):
    with pytest.raises(DataError) as caught:
        load(os.path.join(test_data, name))
    assert f"(it holds {arrays})" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("/no/such/thing", "no such file or folder"),
        ("", "no such file or folder"),
        ("dig\nits", "no such file or folder"),
        ("a\0b", "no such file or folder"),
        ("x" * 5000, "File name too long"),
        (__file__, "is neither a folder nor an .npz file"),
    ],
)
def test_what_is_no_data_is_told_in_one_line(data, reason):
    with pytest.raises(DataError) as caught:
        load(data)
    message = str(caught.value)
    assert f": {reason}. Give 'digits', a folder of class folders" in message
    assert "\n" not in message
    assert message.isprintable()


@pytest.mark.parametrize("size", [0, -3, 2.5, "35", (3,), (3, 0), True, (3, 4, 5)])
def test_an_image_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="`image_size` must be a positive int"):
        load("digits", image_size=size)


@pytest.mark.parametrize("channels", [0, 2, 4, "rgb"])
def test_channels_other_than_one_or_three_are_refused(channels):
    with pytest.raises(ValueError, match="`channels` must be 1, 3 or None"):
        load("digits", channels=channels)


def test_an_unknown_way_with_errors_is_refused():
    with pytest.raises(ValueError, match="`on_error` must be one of 'stop', 'skip'"):
        load("digits", on_error="ignore")  # type: ignore[arg-type]


def make_dataset(names=("a", "b", "c")):
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    labels = np.array([0, 1, 2, 0, 1, 2], np.int32)
    return Dataset(rows, labels, names, "toy", skipped=("x.png: bad",))


def test_selections_keep_names_and_numbers():
    data = make_dataset()
    part = data.select_classes(np.array([2, 0], np.int32))
    assert np.asarray(part.labels).tolist() == [0, 2, 0, 2]
    assert part.inputs[:, 0].tolist() == [0, 4, 6, 10]
    assert (part.num_classes, part.class_names) == (3, ("a", "b", "c"))
    assert (part.skipped, part.name, len(part)) == (data.skipped, "toy", 4)
    assert data.take([5, 0]).inputs[:, 0].tolist() == [10, 0]
    assert len(data.take([])) == 0
    assert len(data.take(np.asarray(data.labels) == 1)) == 2
    assert not data.is_image


def test_labels_of_the_source_come_back_where_names_are_integers():
    assert (
        np.asarray(make_dataset(("-7", "0", "12")).source_labels).tolist()
        == [-7, 0, 12] * 2
    )
    # "07" and "7" are two names of one integer: numbers of the classes instead.
    assert (
        np.asarray(make_dataset(("07", "7", "8")).source_labels).tolist()
        == [0, 1, 2] * 2
    )
    assert np.asarray(make_dataset().source_labels).tolist() == [0, 1, 2] * 2
    rows = Dataset(np.zeros((2, 3), np.float32), None, (), "rows")
    assert rows.source_labels is None
    with pytest.raises(ValueError, match="select_classes: `labels` must be given"):
        rows.select_classes([0])


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="`inputs` must be"):
        Dataset(np.zeros((2, 3, 4)), None, (), "x")
    with pytest.raises(ValueError, match=r"`labels` must have shape \(2,\)"):
        Dataset(np.zeros((2, 3)), np.zeros(3, np.int32), ("a",), "x")
