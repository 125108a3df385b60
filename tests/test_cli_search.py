"""`search`: its neighbours, its verdicts, the file of its index, and its mistakes."""

import json
import os
import re
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest
from cli_runs import WIDTH, write_features, write_images
from ready_runs import embed, write_parameters, write_run

from jaxmetric import retrieval
from jaxmetric.cli import main, search_blocks, search_index
from jaxmetric.cli.calibration import read_calibration, write_calibration
from jaxmetric.training import load_run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with runs on features and on images, and data of both kinds."""
    place = tmp_path_factory.mktemp("search")
    rows = write_features(place / "rows.npz")
    write_run(place / "run", rows, shape=[WIDTH], held_out=["10", "11"])
    write_run(place / "bare_run", rows, shape=[WIDTH], held_out=["10", "11"], seed=1)
    with np.load(write_features(place / "query.npz", rows=2, seed=5)) as file:
        features, labels = file["features"], file["labels"]
    # Some like none of the gallery.
    features[::3] *= -1
    np.savez(place / "query.npz", features=features, labels=labels)
    np.savez(place / "query_bare.npz", features=features)
    with np.load(rows) as file:
        np.savez(place / "unlabelled.npz", features=file["features"])
        np.savez(
            place / "more.npz",
            features=np.concatenate([file["features"][2:], file["features"][:2] + 1]),
            labels=file["labels"],
        )
    bars = write_images(place / "bars.npz")
    write_run(place / "images", bars, shape=[8, 8, 1], held_out=["4", "5"])
    assert main(["calibrate", str(place / "run"), "--far", "0.05"]) == 0
    found = read_calibration(place / "run")
    assert found is not None
    # Of random parameters; nearer, so that some queries are unknown.
    write_calibration(place / "run", found._replace(threshold=0.1))
    return place


def lines_of(capsys, *arguments):
    """Return what a search prints as JSON lines."""
    capsys.readouterr()
    assert main(["search", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def read(path):
    with np.load(path) as file:
        return file["features"].reshape(-1, WIDTH)


# The neighbours.


@pytest.mark.parametrize(
    "rows", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 64))]
)
def test_blocks_find_what_the_library_finds_at_once(rows):
    random = np.random.default_rng(0)
    gallery = random.normal(size=(30, 3)).astype(np.float32)
    # Duplicates in different blocks: the lowest row comes first.
    gallery[[3, 17, 29]] = gallery[11]
    query = np.concatenate([gallery[[11, 4]], random.normal(size=(9, 3))])
    query = query.astype(np.float32)
    found = search_blocks.nearest(query, gallery, 4, rows=rows)
    distances = np.sqrt(((query[:, None] - gallery[None]) ** 2).sum(-1))
    order = distances.argsort(axis=1, kind="stable")[:, :4]
    assert found[0].tolist() == order.tolist()
    assert found[0][0].tolist() == [3, 11, 17, 29]
    expected = np.take_along_axis(distances, order, axis=1)
    np.testing.assert_allclose(found[1], expected, rtol=1e-6, atol=0)
    if rows != 7:
        at_once = retrieval.nearest_neighbors(query, gallery, k=4)
        assert found[0].tolist() == np.asarray(at_once.indices).tolist()
        np.testing.assert_array_equal(found[1], at_once.distances)


def test_search_prints_the_neighbours_of_the_library_and_a_verdict(
    place, capsys, monkeypatch
):
    monkeypatch.chdir(place)
    lines = lines_of(capsys, "run", "query.npz", "rows.npz", "-k", "3")
    x, y = (embed(place / "run", read(name)) for name in ("query.npz", "rows.npz"))
    distances = np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
    order = distances.argsort(axis=1, kind="stable")[:, :3]
    calibration = read_calibration(place / "run")
    assert calibration is not None
    assert [line["query"] for line in lines] == list(range(24))
    for q, line in enumerate(lines):
        assert line["label"] == str(q // 2)
        near = line["neighbors"]
        assert [n["row"] for n in near] == order[q].tolist()
        assert [n["label"] for n in near] == [str(row // 10) for row in order[q]]
        expected = distances[q, order[q]]
        assert [n["distance"] for n in near] == pytest.approx(expected, abs=1e-6)
        known = near[0]["distance"] <= calibration.threshold
        assert line["verdict"] == ("known" if known else "unknown")
    assert {line["verdict"] for line in lines} == {"known", "unknown"}


def test_rows_without_labels_and_a_run_without_a_threshold(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    arguments = ["search", "bare_run", "query_bare.npz", "unlabelled.npz", "-k", "3"]
    assert main([*arguments, "--json"]) == 0
    out, error = capsys.readouterr()
    line = json.loads(out.splitlines()[7])
    assert (line["query"], line["verdict"]) == (7, None)
    assert "label" not in line
    assert line["neighbors"][0].keys() == {"row", "distance"}
    note = "has no threshold yet, so nothing is called known or unknown"
    assert error.count("\n") == 1
    assert f"{note}. Use jaxmetric calibrate bare_run." in error
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert note in out
    assert "verdict" not in out


def test_the_table_fits_and_counts(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "55")
    assert main(["search", "run", "query.npz", "rows.npz", "-k", "3"]) == 0
    out = capsys.readouterr().out
    table = [line for line in out.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, table)) <= 55
    assert "All 24 queries, 3 neighbours each: see --json" in out
    found = re.search(r"Known: (\d+) of 24 queries, whose nearest is at \d", out)
    assert found
    share = 100 * int(found[1]) / 24
    expected = f"Of 24 queries whose class is in the gallery: {share:.1f} % known, the"
    assert expected in out


@pytest.mark.slow
def test_a_threshold_of_another_checkpoint_gives_no_verdict(
    place, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(place)
    run = write_run(tmp_path / "run", "rows.npz", shape=[WIDTH], held_out=["10", "11"])
    assert main(["calibrate", str(run), "--far", "0.05"]) == 0
    arguments = [str(run), "query.npz", "rows.npz", "-k", "3"]
    assert lines_of(capsys, *arguments)[0]["verdict"] is not None
    write_parameters(run, load_run(run)[3]["model"], step=2, seed=9)
    capsys.readouterr()
    assert main(["search", *arguments]) == 0
    out = capsys.readouterr().out
    assert "belongs to another checkpoint, so nothing is called known" in out
    # The index in the folder of the run is of no use any more, and made anew.
    assert "was made with another checkpoint; it is made anew." in out
    assert "120 of 120 rows were new" in out


@pytest.mark.parametrize(
    "is_calibrated", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_the_picture_is_drawn(is_calibrated, place, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    picture = tmp_path / "found.png"
    arguments = ["images", "bars.npz", "bars.npz", "-k", "3", "--picture", str(picture)]
    if is_calibrated:
        assert main(["calibrate", "images", "--far", "0.1"]) == 0
    assert main(["search", *arguments]) == 0
    assert f"Picture: {picture}" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert os.listdir(tmp_path) == ["found.png"]
    (place / "images" / "calibration.json").unlink(missing_ok=True)


# The index.


def test_the_index_is_kept_between_searches(place, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    index = ["--index", str(tmp_path / "gallery.npz")]
    for gallery, num_new in (("rows", 120), ("rows", 0), ("more", 2), ("rows", 2)):
        before = None
        if num_new == 0:
            before = (tmp_path / "gallery.npz").stat().st_mtime_ns
        arguments = ["run", "query.npz", f"{gallery}.npz", "-k", "3", *index]
        assert main(["search", *arguments]) == 0
        out = capsys.readouterr().out
        assert f"gallery.npz, {num_new} of 120 rows were new" in out
        if before is not None:
            assert (tmp_path / "gallery.npz").stat().st_mtime_ns == before
    found = search_index.read_index(tmp_path / "gallery.npz")
    assert found is not None
    expected = embed(place / "run", read("rows.npz"))
    np.testing.assert_allclose(found.embeddings, expected, rtol=0, atol=1e-6)
    assert os.listdir(tmp_path) == ["gallery.npz"]


def test_a_failed_write_leaves_the_old_index(place, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    path = tmp_path / "gallery.npz"
    options = ["-k", "3", "--index", str(path)]
    arguments = ["search", "run", "query.npz", "more.npz", *options]
    assert main(["search", "run", "query.npz", "rows.npz", *options]) == 0
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxmetric.cli.outputs.os.fsync", full)
    capsys.readouterr()
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert "No space left" in error
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["gallery.npz"]


# The library of indices.


def test_a_library_that_is_not_installed_is_told(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setitem(sys.modules, "faiss", None)
    arguments = ["search", "run", "query.npz", "rows.npz", "--backend", "faiss"]
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    assert "is not installed. Use pip install 'jaxmetric[index]'" in error


class _FlatIndex:
    """What is used of `faiss.IndexFlatL2`, with its rounding."""

    def __init__(self, dim):
        self.rows = np.empty((0, dim), np.float32)

    def add(self, rows):
        self.rows = np.concatenate([self.rows, rows])

    def search(self, query, k):
        squares = (query**2).sum(1)[:, None] + (self.rows**2).sum(1)
        squares = squares - 2 * query @ self.rows.T
        rows = squares.argsort(axis=1, kind="stable")[:, :k]
        return np.take_along_axis(squares, rows, axis=1), rows


@pytest.mark.parametrize("is_real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_library_finds_what_the_blocks_find(is_real, monkeypatch):
    if is_real:
        pytest.importorskip("faiss")
    else:
        module = types.SimpleNamespace(IndexFlatL2=_FlatIndex)
        monkeypatch.setitem(sys.modules, "faiss", module)
    random = np.random.default_rng(0)
    # Far from the origin and near to each other: the product form is noise.
    gallery = (100 + 0.1 * random.normal(size=(40, 5))).astype(np.float32)
    gallery[7] = gallery[30]
    query = gallery[[30, 2, 9]]
    found = search_blocks.nearest_by_faiss(query, gallery, 3)
    squares = ((query[:, None].astype(np.float64) - gallery[None]) ** 2).sum(-1)
    order = squares.argsort(axis=1, kind="stable")[:, :3]
    assert found[0].tolist() == order.tolist()
    expected = np.sqrt(np.take_along_axis(squares, order, axis=1))
    np.testing.assert_allclose(found[1], expected, rtol=1e-5)
    assert found[0][0, :2].tolist() == [7, 30]


# Mistakes.

GOOD = ("search", "run", "query.npz", "rows.npz")
MISTAKES = {
    "nothing": (("search",), "RUN"),
    "gallery": (("search", "run", "query.npz"), "GALLERY"),
    "run": (("search", "nowhere", "query.npz", "rows.npz"), "nowhere: does not exist"),
    "query": (("search", "run", "no.npz", "rows.npz"), "no.npz: no such file"),
    "kind": (("search", "run", "query.npz", "bars.npz"), "the model takes (6,)"),
    "k": ((*GOOD, "-k", "0"), "-k must be at least 1, got 0"),
    "k text": ((*GOOD, "-k", "ten"), "must be an integer, got 'ten'"),
    "k large": ((*GOOD, "-k", "121"), "at most the 120 rows of rows.npz, got 121"),
    "option": ((*GOOD, "--pictures", "x.png"), "Did you mean --picture?"),
    "picture": ((*GOOD, "--picture", "x.png"), "has rows of features"),
    "picture suffix": ((*GOOD, "--picture", "x.jpg"), "must end in .png"),
    "picture folder": ((*GOOD, "--picture", "no/x.png"), "does not exist"),
    "backend": ((*GOOD, "--backend", "fais"), "Did you mean faiss?"),
    "index suffix": ((*GOOD, "--index", "x"), "--index x: must end in .npz"),
    "index folder": ((*GOOD, "--index", "no/x.npz"), "does not exist"),
    "index text": ((*GOOD, "--index", "text.npz"), "--index text.npz: it cannot be"),
    "index data": ((*GOOD, "--index", "rows.npz"), "--index rows.npz: is the data"),
    "index other data": (
        (*GOOD, "--index", "more.npz"),
        "--index more.npz: it is no index of jaxmetric search. Remove it",
    ),
    "index of another": ((*GOOD, "--index", "other.npz"), "another run or checkpoint"),
    "calibration": (
        ("search", "bad_run", "query.npz", "rows.npz"),
        "bad_run/calibration.json: is damaged",
    ),
}


@pytest.fixture(scope="module")
def bad_place(place):
    (place / "text.npz").write_text("no archive")
    rows = np.zeros((2, 4), np.float32)
    index = search_index.Index(search_index.keys_of(rows), rows, "another")
    search_index.write_index(place / "other.npz", index)
    write_run(place / "bad_run", "rows.npz", shape=[WIDTH])
    (place / "bad_run" / "calibration.json").write_text('{"version": 1')
    return place


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(name, bad_place, monkeypatch, capsys):
    arguments, expected = MISTAKES[name]
    monkeypatch.chdir(bad_place)
    content = lambda: {  # noqa: E731
        str(path): path.read_bytes() for path in bad_place.rglob("*") if path.is_file()
    }
    before = content()
    assert main(list(arguments)) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"jaxmetric[^\n]*\n", error), error
    assert expected in error
    assert content() == before


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"version": 2}', '{"version": 1, "threshold": 0.1}', "\x00"],
)
def test_every_damage_of_a_calibration_is_told(text, tmp_path):
    from jaxmetric.cli.errors import UsageError

    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(UsageError, match="is damaged .* Use jaxmetric calibrate"):
        read_calibration(tmp_path)


@pytest.mark.slow
def test_a_million_rows_are_searched_in_bounded_memory():
    code = """
        import resource
        import numpy as np
        from jaxmetric import retrieval
        from jaxmetric.cli import search_blocks

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        random = np.random.default_rng(0)
        gallery = random.standard_normal((1_000_000, 64), np.float32)
        query = random.standard_normal((256, 64), np.float32)
        search_blocks.nearest(query[:9], gallery[:100], 10)
        before = peak()
        rows, distances = search_blocks.nearest(query, gallery, 10)
        print(peak() - before)
        for q in range(0, 256, 40):
            squares = ((gallery - query[q]) ** 2).sum(1)
            order = squares.argsort(kind="stable")[:10]
            assert rows[q].tolist() == order.tolist(), q
            np.testing.assert_allclose(distances[q] ** 2, squares[order], rtol=1e-5)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    # All distances at once would be 977 MB, the gallery itself is 244 MB.
    assert float(done.stdout) < 200
