"""Arrays from .npz files: what is read, in which order, and what is refused."""

import numpy as np
import pytest

from jaxmetric.data import DataError, load, load_npz

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([3, -1, 3, 7, -1, 7])


@pytest.fixture
def save(tmp_path):
    """Return a function that writes arrays and returns the path."""

    def write(compressed=True, **arrays):
        path = tmp_path / "set.npz"
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
        return path

    return write


def refusal(path, **options):
    """Return the text of the DataError of a file, which is one line and names it."""
    with pytest.raises(DataError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{path}: ")
    assert message.endswith((".", "?"))
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
def test_images_keep_their_bytes_and_order(save, compressed, order):
    data = load(save(compressed, images=np.asarray(BYTES, order=order), labels=LABELS))
    assert (data.inputs == BYTES[..., None]).all()
    assert data.inputs.dtype == np.uint8
    assert np.asarray(data.labels).dtype == np.int32
    assert np.asarray(data.labels).tolist() == [1, 0, 1, 2, 0, 2]
    assert data.class_names == ("-1", "3", "7")
    assert np.asarray(data.source_labels).tolist() == LABELS.tolist()
    assert data.name == "set"
    assert data.notes == ()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("channels", [None, 3])
def test_classes_by_examples_are_flattened_row_by_row(save, order, channels):
    shape = (2, 3, 5, 4) if channels is None else (2, 3, 5, 4, channels)
    images = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    labels = np.array([[0, 0, 0], [4, 4, 4]])
    path = save(images=np.asarray(images, order=order), labels=labels)
    data = load(path)
    assert (data.inputs == images.reshape(6, 5, 4, channels or 1)).all()
    assert np.asarray(data.labels).tolist() == [0, 0, 0, 1, 1, 1]
    features = save(features=images[..., 0, 0].reshape(2, 3, -1), labels=labels)
    assert len(load(features)) == 6


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (BYTES > 100, np.where(BYTES > 100, 255, 0).astype(np.uint8)),
        (BYTES.astype(np.int64), BYTES),
        (BYTES.astype(">u2"), BYTES),
        (BYTES.astype(np.float64) / 7, (BYTES.astype(np.float64) / 7).astype("f4")),
        (BYTES.astype(np.float16), BYTES.astype(np.float32)),
        (BYTES.astype(">f8") - 50, BYTES.astype(np.float32) - 50),
    ],
)
def test_each_kind_of_number_has_its_meaning(save, images, expected):
    data = load(save(images=images, labels=LABELS))
    assert data.inputs.dtype == expected.dtype
    assert (data.inputs[..., 0] == expected).all()


def test_features_become_float32(save):
    for rows in (BYTES[:, :, 0], BYTES[:, :, 0] > 9, BYTES[:, :, 0] / 3):
        data = load(save(features=rows, labels=LABELS.astype(np.int8)))
        assert data.inputs.dtype == np.float32
        assert (data.inputs == rows.astype(np.float32)).all()
        assert not data.is_image


def test_large_images_come_at_the_default_size_or_the_one_asked_for(save):
    images = RANDOM.integers(0, 256, (6, 60, 50), dtype=np.uint8)
    path = save(images=images, labels=LABELS)
    assert load(path).inputs.shape == (6, 28, 28, 1)
    assert load(path, image_size=10, channels=3).inputs.shape == (6, 10, 10, 3)
    assert load(path, image_size=(60, 25)).inputs.shape == (6, 60, 25, 1)


def test_reading_by_blocks_changes_nothing(save, monkeypatch):
    path = save(images=BYTES, labels=LABELS)
    whole = load(path, image_size=3)
    monkeypatch.setattr("jaxmetric.data.archives._BLOCK_BYTES", 45)
    assert (load(path, image_size=3).inputs == whole.inputs).all()


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4)])
def test_rows_without_labels_are_read_where_none_are_needed(save, shape):
    path = save(features=RANDOM.random(shape))
    data = load(path, require_labels=False)
    assert data.labels is None
    assert data.class_names == ()
    assert data.inputs.shape == (6, 4)
    for shape in ((6, 5, 4), (6, 5, 4, 3), (2, 3, 5, 9), (2, 3, 5, 4, 1)):
        images = save(images=np.zeros(shape, bool))
        assert len(load(images, require_labels=False)) == 6


def test_a_class_of_one_row_is_kept_and_told(save):
    data = load(save(images=BYTES, labels=np.array([0, 1, 1, 2, 1, 1])))
    assert data.num_classes == 3
    assert data.notes == (
        "2 classes have a single example and so no positive pair: 0, 2",
    )
    both = load(save(images=BYTES, features=BYTES[:, 0], labels=LABELS))
    assert both.notes == ("`features` is left aside: the file holds `images` as well",)


NAN = BYTES.astype(np.float32)
NAN[4, 2, 1] = np.nan

BAD_ARRAYS = [
    (
        {"fourier": BYTES, "labels": LABELS},
        "holds neither `images` nor `features` (it holds fourier, labels). "
        "Save it with np.savez_compressed(path, images=..., labels=...).",
    ),
    (
        {"images": BYTES},
        "holds no `labels` (it holds images). "
        "Add labels=..., one integer for each row.",
    ),
    (
        {"images": BYTES, "labels": LABELS[:5]},
        "`images` has 6 rows but `labels` has 5. "
        "Give one label for each row, in the same order.",
    ),
    (
        {"images": BYTES, "labels": np.arange(30)},
        "`images` has 6 rows but `labels` has 30. Use labels.reshape(6, 5).",
    ),
    (
        {"images": BYTES, "labels": LABELS[:, None]},
        "`labels` of shape (6, 1) does not fit `images` of shape (6, 5, 4). "
        "Use labels[:, 0].",
    ),
    (
        {"features": BYTES[0], "labels": np.eye(5, dtype=int)},
        "`labels` of shape (5, 5) does not fit `features` of shape (5, 4). "
        "Use labels.argmax(-1) if they are one-hot, else labels of shape [n] or "
        "[classes, examples].",
    ),
    (
        {"images": BYTES, "labels": np.int64(3)},
        "`labels` of shape () does not fit `images` of shape (6, 5, 4). "
        "Give one label for each row, in the same order.",
    ),
    (
        {"images": BYTES, "labels": LABELS.astype(float)},
        "`labels` must be integer or bool, got float64. Encode classes as integers.",
    ),
    (
        {"images": BYTES, "labels": np.array(list("abcabc"))},
        "`labels` must be integer or bool, got <U1. "
        "Use np.unique(labels, return_inverse=True)[1].",
    ),
    (
        {"images": BYTES, "labels": LABELS + 9_000_000_000},
        "`labels` must fit int32, got 9000000007. "
        "Use np.unique(labels, return_inverse=True)[1].",
    ),
    (
        {"images": BYTES, "labels": np.array([2**64 - 1] * 6, np.uint64)},
        "`labels` must fit int32, got 18446744073709551615. "
        "Use np.unique(labels, return_inverse=True)[1].",
    ),
    (
        {"images": NAN, "labels": LABELS},
        "`images` must be finite in float32, row 4 is not (NaN or infinite). "
        "Leave such rows out, or replace the values with np.nan_to_num.",
    ),
    (
        {"features": np.full((6, 2), 1e300), "labels": LABELS},
        "`features` must be finite in float32, row 0 is not (NaN or infinite). "
        "Leave such rows out, or replace the values with np.nan_to_num.",
    ),
    (
        {"images": BYTES.astype(np.int32) - 300, "labels": LABELS},
        None,
    ),
    (
        {"images": BYTES.astype(np.uint16) * 200, "labels": LABELS},
        None,
    ),
    (
        {"images": BYTES.astype(complex), "labels": LABELS},
        "`images` must be bool, integer or floating point, got complex128. "
        "Save images.astype(np.float32).",
    ),
    (
        {"images": np.zeros((6, 0, 4), np.uint8), "labels": LABELS},
        "`images` of shape (6, 0, 4) is empty. Add rows.",
    ),
    (
        {"images": np.zeros((6, 20), np.uint8), "labels": LABELS},
        "`images` has shape (6, 20), which is neither [n, h, w(, c)] nor "
        "[classes, examples, h, w(, c)]. Reshape the array.",
    ),
    (
        {"images": np.zeros((6, 3, 8, 8), np.uint8), "labels": LABELS},
        "`images` of shape (6, 3, 8, 8) has 8 channels, at most 4 are images. "
        "Put channels last, [n, h, w, c], or give labels of shape "
        "[classes, examples].",
    ),
    (
        {"features": np.zeros((6, 3, 8)), "labels": LABELS},
        "`features` of shape (6, 3, 8) with `labels` of shape (6,) leaves rows of "
        "shape (3, 8), not [d]. Give labels of shape (6, 3).",
    ),
    (
        {"images": np.zeros((1, 8000, 8000), bool), "labels": LABELS[:1]},
        "images of 8000 x 8000 are more than 50,000,000 pixels each. "
        "Make them smaller.",
    ),
    (
        {"images": np.array([None] * 6), "labels": LABELS},
        "`images` holds Python objects, not plain numbers. "
        "Write the arrays again with np.savez_compressed.",
    ),
    (
        {"images": BYTES, "labels": np.array(list(range(6)), object)},
        "`labels` holds Python objects, not plain numbers. "
        "Write the arrays again with np.savez_compressed.",
    ),
    (
        {"images": np.zeros(6, [("a", "i4")]), "labels": LABELS},
        None,
    ),
]


@pytest.mark.parametrize(("arrays", "text"), BAD_ARRAYS)
def test_unfit_arrays_are_refused_in_one_line(save, arrays, text):
    message = refusal(save(**arrays))
    assert text is None or message == text


def test_integers_beyond_a_byte_are_refused_with_one_of_them(save):
    message = refusal(save(images=BYTES.astype(int) + 1000, labels=LABELS))
    assert message.startswith("integer `images` must be 0 to 255, got 12")
    message = refusal(save(images=BYTES.astype(int) - 1000, labels=LABELS))
    assert message.startswith("integer `images` must be 0 to 255, got -")


def test_requests_that_make_no_sense_are_refused(save):
    path = save(features=BYTES[:, 0], labels=LABELS)
    assert "holds feature rows" in refusal(path, image_size=3)
    path = save(images=np.zeros((6, 5, 5, 4), np.uint8), labels=LABELS)
    assert "images of 4 channels cannot be turned into 3" in refusal(path, channels=3)
    assert load(path).inputs.shape == (6, 5, 5, 4)


def test_a_folder_is_no_archive(tmp_path):
    with pytest.raises(DataError, match="it is not a regular file"):
        load_npz(tmp_path)
