"""Folders of class folders: order, odd names, what is passed over, what is refused."""

import os

import numpy as np
import pytest

from jaxmetric.data import DataError, load, load_folder

Image = pytest.importorskip("PIL.Image")


def write(path, value=0, size=(6, 5), mode="L"):
    """Write a plain image of (height, width) with a value in its corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size[::-1], 200 if mode == "L" else (200, 10, 10))
    if mode == "L":
        image.putpixel((0, 0), value)
    image.save(path)
    return path


def refusal(path, **options):
    with pytest.raises(DataError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.fixture
def folder(tmp_path):
    """Return a folder of three classes, made in no order."""
    for value, name in enumerate(["b/2", "a/9", "c d/x", "b/10", "a/1", "c d/é"]):
        write(tmp_path / "set" / f"{name}.png", value)
    return tmp_path / "set"


def test_classes_and_files_are_in_sorted_order(folder):
    data = load(folder)
    assert data.inputs.shape == (6, 6, 5, 1)
    assert data.inputs.dtype == np.uint8
    assert data.inputs[:, 0, 0, 0].tolist() == [4, 1, 3, 0, 2, 5]
    assert np.asarray(data.labels).tolist() == [0, 0, 1, 1, 2, 2]
    assert np.asarray(data.labels).dtype == np.int32
    assert data.class_names == ("a", "b", "c d")
    assert (data.name, data.skipped, data.notes) == ("set", (), ())


def test_hidden_files_and_empty_folders_are_passed_over(folder):
    (folder / "empty").mkdir()
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.png").write_text("no image")
    (folder / "a" / ".DS_Store").write_text("no image")
    (folder / "a" / "Thumbs.db").write_text("no image")
    (folder / "b" / "deeper").mkdir()
    (folder / "readme.txt").write_text("no image")
    data = load(folder)
    assert data.class_names == ("a", "b", "c d")
    assert data.notes == ("1 file beside the class folders left aside",)


def test_nested_folders_are_classes_named_by_their_path(tmp_path):
    for name in ("Greek/beta/1", "Greek/alpha/1", "Latin/a/1", "Latin/a/2"):
        write(tmp_path / f"{name}.png")
    data = load(tmp_path)
    assert data.class_names == ("Greek/alpha", "Greek/beta", "Latin/a")
    assert data.notes == (
        "2 classes have a single example and so no positive pair: "
        "Greek/alpha, Greek/beta",
    )


def test_sizes_and_modes_may_differ(tmp_path):
    write(tmp_path / "a" / "1.png", size=(10, 20))
    write(tmp_path / "a" / "2.png", size=(30, 8))
    write(tmp_path / "b" / "3.png", size=(7, 7), mode="RGB")
    data = load(tmp_path)
    assert data.inputs.shape == (3, 30, 20, 3)
    assert (data.inputs[2] == [200, 10, 10]).all()
    assert load(tmp_path, channels=1).inputs.shape == (3, 30, 20, 1)
    assert load(tmp_path, image_size=(4, 9)).inputs.shape == (3, 4, 9, 3)
    write(tmp_path / "b" / "4.jpg", size=(700, 41))
    assert load(tmp_path).inputs.shape == (4, 28, 28, 3)


@pytest.mark.parametrize(
    "name",
    ["-rf", "a\nb", "a'b\"c", "ünï", "a b\x1b[0m", "%s{}", "~", b"\xff\xfe"],
)
def test_any_legal_name_is_a_class_or_a_file(tmp_path, name):
    name = os.fsdecode(name)
    try:
        write(tmp_path / name / f"{name}.png")
    except (OSError, ValueError):
        pytest.skip("not a legal name here")
    data = load(tmp_path)
    assert len(data.class_names) == 1
    data.class_names[0].encode()
    (tmp_path / name / "bad.png").write_text("")
    assert "is no image in a known format" in refusal(tmp_path)


def test_a_bad_image_stops_or_is_skipped(folder):
    good = load(folder)
    bad = folder / "b" / "1.png"
    bad.write_bytes((folder / "b" / "2.png").read_bytes()[:60])
    (folder / "d").mkdir()
    (folder / "d" / "only.png").write_bytes(b"nothing")
    message = refusal(folder)
    assert message.startswith(f"{folder / 'd' / 'only.png'}: is no image")
    assert message.endswith("Repair or remove the file, or skip such files.")
    data = load(folder, on_error="skip")
    assert (data.inputs == good.inputs).all()
    assert (np.asarray(data.labels) == good.labels).all()
    assert data.class_names == good.class_names
    assert [line.split(": ")[0] for line in data.skipped] == [
        str(folder / "d" / "only.png"),
        str(bad),
    ]


def test_nothing_readable_is_refused_even_when_skipping(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_text("text")
    message = refusal(tmp_path, on_error="skip")
    assert "holds no image that can be read" in message


def test_a_folder_without_classes_is_refused(tmp_path):
    reason = "holds no class folders with images"
    assert f"{tmp_path}: {reason}. Put the images" in refusal(tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "1.png")
    assert f"{reason}, only files. Put the images" in refusal(tmp_path)


def test_bare_images_are_a_set_without_classes(tmp_path):
    for value in (3, 1, 2):
        write(tmp_path / f"{value}.png", value)
    data = load(tmp_path, require_labels=False)
    assert data.labels is None
    assert data.class_names == ()
    assert data.inputs[:, 0, 0, 0].tolist() == [1, 2, 3]
    write(tmp_path / "class" / "1.png")
    assert load(tmp_path, require_labels=False).class_names == ("class",)


def test_link_loops_are_refused(folder):
    (folder / "a" / "up").symlink_to(folder, target_is_directory=True)
    message = refusal(folder)
    assert "is the same folder as" in message
    assert message.endswith("Remove the link.")


def test_a_folder_reached_twice_is_refused(folder):
    (folder / "again").symlink_to(folder / "a", target_is_directory=True)
    assert "is the same folder as" in refusal(folder)


def test_a_link_to_itself_is_refused(folder):
    (folder / "a" / "loop.png").symlink_to(folder / "a" / "loop.png")
    assert "cannot be opened (Too many levels of symbolic links)" in refusal(folder)
    assert len(load(folder, on_error="skip")) == 6


def test_a_link_to_nowhere_and_a_pipe_are_refused(folder):
    os.mkfifo(folder / "a" / "pipe.png")
    assert "is not a regular file" in refusal(folder)
    (folder / "a" / "pipe.png").unlink()
    (folder / "a" / "gone.png").symlink_to(folder / "nowhere")
    assert "cannot be opened (No such file or directory)" in refusal(folder)


def test_a_link_to_a_class_elsewhere_is_followed(folder, tmp_path):
    write(tmp_path / "elsewhere" / "1.png", 77)
    (folder / "0").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert load(folder).class_names == ("0", "a", "b", "c d")


def test_the_name_is_that_of_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert load_folder(".").name == "set"
    monkeypatch.chdir(folder / "a")
    assert load("..").name == "set"
