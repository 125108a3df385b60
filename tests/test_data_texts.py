"""Tab-separated texts: what is read, and what every wrong file is told."""

import pytest

import jaxmetric as jm


def write(folder, content: str | bytes, name="rows.tsv"):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_scored_pairs_are_read_with_and_without_a_header(tmp_path):
    rows = '4.5\tA "cat.\tOne cat.\r\n0\t it’s\u2028odd \tRain.\n\n'
    for head in ("", "score\tsentence1\tsentence2\n", "\ufeff"):
        found = jm.data.load_texts(write(tmp_path, head + rows))
        assert isinstance(found, jm.data.ScoredTexts)
        assert found.scores.tolist() == [4.5, 0.0]
        assert found.first == ('A "cat.', "it’s\u2028odd")
        assert found.second == ("One cat.", "Rain.")
        assert len(found) == 2
        assert found.name == "rows"


def test_labelled_texts_are_numbered_in_the_order_of_their_names(tmp_path):
    for head in ("", "Label\ttext\n"):
        path = write(tmp_path, head + "b\tone\na\ttwo\nb\tthree\n")
        found = jm.data.load_texts(path)
        assert isinstance(found, jm.data.LabelledTexts)
        assert found.labels is not None
        assert found.labels.tolist() == [1, 0, 1]
        assert found.class_names == ("a", "b")
        assert found.texts == ("one", "two", "three")
        assert "a single example" in found.notes[0]


def test_texts_alone_are_read_where_labels_are_not_needed(tmp_path):
    path = write(tmp_path, "one\ntwo\n")
    found = jm.data.load_texts(path, require_labels=False)
    assert isinstance(found, jm.data.LabelledTexts)
    assert found.labels is None
    assert found.texts == ("one", "two")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("score\ta\tb\n", "holds a header and nothing else"),
        ("1\ta\tb\tc\n", "line 1 has 4 columns, more than 3"),
        ("1\ta\tb\n2\ta\n", "line 2 has 2 columns, line 1 has 3"),
        ("1\ta\tb\n\n2\ta\tb\n", "line 2 is empty"),
        ("1\ta\tb\ntwo\ta\tb\n", "line 2 has the score 'two'"),
        ("4,5\ta\tb\n1\ta\tb\n", "line 1 has the score '4,5'"),
        ("1\ta\tb\nnan\ta\tb\n", "line 2 has the score 'nan'"),
        ("1\ta\tb\n1e99\ta\tb\n", "line 2 has the score '1e99'"),
        ("1\ta\tb\n1_0\ta\tb\n", "line 2 has the score '1_0'"),
        ("1\ta\tb\n\ta\tb\n", "line 2 has the score ''"),
        ("1\ta\tb\n2\ta\t \n", "line 2 has an empty text"),
        ("x\t\nx\tb\n", "line 1 has an empty text"),
        ("x\ta\n \tb\n", "line 2 has an empty label"),
        ("2\ta\tb\n2\ta\tc\n", "all scores are 2, which orders nothing"),
        (b"1\ta\tb\n2\t\xff\tb\n", "line 2 is not UTF-8 (byte 3 of it)"),
        (b"1\ta\tb\n2\ta\0\tb\n", "line 2 holds a NUL byte"),
        ("1\ta\t" + "b" * 1_000_001, "line 1 is longer than 1,000,000 bytes"),
        ("one\ntwo\n", "line 1 has one column, a text without score or label"),
    ],
)
def test_every_wrong_file_is_told_in_one_line(tmp_path, content, reason):
    path = write(tmp_path, content)
    with pytest.raises(jm.data.DataError) as caught:
        jm.data.load_texts(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: {reason}")
    assert text.endswith(".")
    assert "\n" not in text


def test_what_is_no_file_is_told(tmp_path):
    for path, reason in (
        (tmp_path / "none.tsv", "no such file"),
        (tmp_path, "is no file"),
    ):
        with pytest.raises(jm.data.DataError, match=reason):
            jm.data.load_texts(path)
