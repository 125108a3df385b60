"""Texts from the command line: scored pairs, labelled texts, and wrong files."""

import json

import numpy as np
import pytest
import text_files
from cli_runs import read_json, read_lines

import jaxmetric as jm
from jaxmetric.cli import main

SMALL = ["--width", "16", "--plain"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    text_files.scored(folder / "pairs.tsv")
    text_files.scored(folder / "more.tsv", rows=30, seed=1)
    text_files.labelled(folder / "labels.tsv")
    text_files.vectors(folder / "vectors.npz")
    return folder


@pytest.fixture(scope="module")
def scored_run(files):
    run = files / "scored"
    data = [str(files / "pairs.tsv"), "--eval-data", str(files / "more.tsv")]
    words = ["--word-vectors", str(files / "vectors.npz"), "--steps", "12"]
    assert main(["train", *data, *words, *SMALL, "--out", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def labelled_run(files):
    run = files / "labelled"
    words = ["train", str(files / "labels.tsv"), "--steps", "6", *SMALL]
    assert main([*words, "--out", str(run)]) == 0
    return run


def test_a_run_on_scores_is_measured_beside_tf_idf(scored_run):
    told = read_json(scored_run / "summary.json")
    assert told["kind"] == "scored texts"
    assert told["loss"]["name"] == "correlation_loss"
    assert told["baseline"]["name"] == "tf-idf"
    for block in ("untrained", "baseline", "trained"):
        assert -1 <= told[block]["spearman"] <= 1
        assert told[block]["num_pairs"] == 30
    assert told["trained"]["spearman"] > told["untrained"]["spearman"]
    records = read_lines(scored_run / "metrics.jsonl")
    assert {"train", "eval", "baseline"} <= {r["kind"] for r in records}
    assert jm.data.load_vocabulary(scored_run / "vocabulary.json").num_known > 18


def test_eval_and_embed_read_new_texts_with_the_vocabulary_of_the_run(
    scored_run, files, tmp_path, capsys
):
    assert main(["eval", str(scored_run), str(files / "more.tsv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    told = read_json(scored_run / "summary.json")["trained"]
    assert found["spearman"] == pytest.approx(told["spearman"], abs=1e-6)
    assert main(["eval", str(scored_run)]) == 0
    new, out = tmp_path / "new.tsv", tmp_path / "e.npz"
    new.write_text("5\tbirda birdb\tbirdc\n0\tunheard words\tlampa\n")
    assert main(["embed", str(scored_run), str(new), "-o", str(out)]) == 0
    arrays = np.load(out)
    assert arrays["query_embeddings"].shape == (2, 16)
    assert np.isfinite(arrays["key_embeddings"]).all()


def test_its_report_shows_texts(scored_run):
    page = (scored_run / "report.html").read_text()
    for words in ("Spearman", "Worst pairs", "tf-idf", "score of the pair"):
        assert words in page
    first = jm.data.load_texts(scored_run.parent / "more.tsv")
    assert isinstance(first, jm.data.ScoredTexts)
    assert first.first[0] in page
    assert main(["report", str(scored_run)]) == 0


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--loss", "info_nce"], marks=pytest.mark.slow),
        ["--loss", "triplet_margin", "--margin", "0.3", "--above", "5", "--below", "1"],
        pytest.param(["--loss", "shrinkage", "--c", "0.1"], marks=pytest.mark.slow),
        pytest.param(["--loss", "multi_similarity"], marks=pytest.mark.slow),
        pytest.param(
            ["--model", "transformer", "--depth", "1", "--dim", "8"],
            marks=pytest.mark.slow,
        ),
        pytest.param(["--no-trainable"], marks=pytest.mark.slow),
        pytest.param(["--towers", "separate"], marks=pytest.mark.slow),
    ],
    ids=lambda options: " ".join(options),
)
def test_every_way_to_train_on_scored_pairs_runs(files, tmp_path, options):
    run = tmp_path / "run"
    words = ["train", str(files / "pairs.tsv"), "--steps", "2", *SMALL, *options]
    assert main([*words, "--out", str(run)]) == 0
    told = read_json(run / "summary.json")
    assert np.isfinite(told["trained"]["spearman"])
    losses = [r["loss"] for r in read_lines(run / "metrics.jsonl") if "loss" in r]
    assert np.isfinite(losses).all()


def test_a_run_on_labelled_texts_goes_through_every_command(
    labelled_run, files, tmp_path, capsys
):
    told = read_json(labelled_run / "summary.json")
    assert told["pixels"]["recall_at_1"] <= 1  # tf-idf
    assert len(told["classes"]["held_out"]) == 2
    data = str(files / "labels.tsv")
    capsys.readouterr()
    assert main(["eval", str(labelled_run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recall_at_1"] == pytest.approx(told["trained"]["recall_at_1"])
    assert main(["eval", str(labelled_run), "--query", data, "--gallery", data]) == 0
    out = tmp_path / "e.npz"
    assert main(["embed", str(labelled_run), data, "-o", str(out)]) == 0
    assert np.load(out)["embeddings"].shape == (72, 16)
    capsys.readouterr()
    assert main(["search", str(labelled_run), data, data, "-k", "2", "--json"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[0])
    assert line["neighbors"][0]["text"] == line["text"]
    assert main(["search", str(labelled_run), data, data, "-k", "1"]) == 0
    assert line["text"] in " ".join(capsys.readouterr().out.split())
    page = (labelled_run / "report.html").read_text()
    assert "tf-idf" in page
    assert "raw features" not in page
    assert "text of up to" in page


@pytest.mark.slow
def test_a_run_of_texts_goes_on_where_it_was_cut(files, tmp_path):
    """The vocabulary is made anew, and the same."""
    folders = [tmp_path / name for name in ("whole", "cut")]
    words = ["train", str(files / "labels.tsv"), *SMALL, "--steps", "4"]
    words += ["--save-every", "2", "--schedule", "constant"]
    for folder in folders:
        assert main([*words, "--out", str(folder)]) == 0
    told = [read_json(folder / "summary.json") for folder in folders]
    assert told[0]["parameters_sha256"] == told[1]["parameters_sha256"]
    (folders[1] / "summary.json").unlink()
    last = sorted((folders[1] / "checkpoints").iterdir())[-1]
    for path in sorted(last.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    last.rmdir()
    assert main(["train", "--resume", str(folders[1])]) == 0
    again = read_json(folders[1] / "summary.json")
    assert again["parameters_sha256"] == told[0]["parameters_sha256"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none.tsv"], "none.tsv: no such file"),
        (["empty.tsv"], "is empty"),
        (["one.tsv"], "has 1 classes, and at least 3 are needed"),
        (["alone.tsv"], "a text without score or label"),
        (["equal.tsv"], "all scores are 2"),
        (["pairs.tsv", "--eval-data", "labels.tsv"], "has no scores"),
        (["labels.tsv", "--eval-data", "pairs.tsv"], "holds scored pairs"),
        (["labels.tsv", "--eval-data", "digits"], "is of another kind"),
        (["pairs.tsv", "--word-vectors", "none.npz"], "none.npz: no such file"),
        (["pairs.tsv", "--word-vectors", "pairs.tsv"], "cannot be read as an .npz"),
        (
            ["pairs.tsv", "--word-vectors", "vectors.npz", "--vocabulary-size", "99"],
            "--vocabulary-size has no effect with --word-vectors",
        ),
        (["pairs.tsv", "--vocabulary-size", "2"], "--vocabulary-size must be 8"),
        (["pairs.tsv", "--max-length", "0"], "--max-length must be 1"),
        (["pairs.tsv", "--model", "conv"], "--model conv takes no texts"),
        (["pairs.tsv", "--depth", "2"], "--depth has no effect on --model words"),
        (["pairs.tsv", "--dropout", "1", "--model", "transformer"], "--dropout must"),
        (["pairs.tsv", "--above", "9", "--loss", "info_nce"], "--above must be from 0"),
        (["pairs.tsv", "--loss", "arcface"], "has a proxy for each category"),
        (["pairs.tsv", "--loss", "triplet_margin", "--below", "6"], "`below` must be"),
        (
            ["pairs.tsv", "--width", "2", "--word-vectors", "vectors.npz"],
            "--width must be at least 4",
        ),
        (["pairs.tsv", "--freeze", "key"], "--freeze takes rows of features"),
        (["labels.tsv", "--above", "3"], "--above takes pairs with scores"),
        (["labels.tsv", "--loss", "correlation"], "takes (predictions, targets)"),
        (["labels.tsv", "--augment-shift", "0.1"], "takes images"),
        (["digits", "--word-vectors", "vectors.npz"], "takes texts in a .tsv file"),
        (["digits", "--model", "words"], "takes texts in a .tsv file"),
        (["digits", "--heads", "2"], "is about encoders of texts"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_mistake_is_told_in_one_line(files, monkeypatch, capsys, words, told):
    monkeypatch.chdir(files)
    for name, text in {
        "empty.tsv": "",
        "one.tsv": "x\ta\nx\tb\n",
        "alone.tsv": "a\nb\n",
        "equal.tsv": "2\ta\tb\n2\ta\tc\n",
    }.items():
        (files / name).write_text(text)
    assert main(["train", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert told in err


def test_mistakes_of_the_other_commands_are_told_in_one_line(
    scored_run, labelled_run, files, capsys
):
    pairs, labels = str(files / "pairs.tsv"), str(files / "labels.tsv")
    capsys.readouterr()
    for words, told in (
        (["eval", str(scored_run), labels], "has no scores"),
        (["eval", str(labelled_run), pairs], "holds scored pairs"),
        (["embed", str(labelled_run), "digits", "-o", "e.npz"], "is no .tsv file"),
        (["sweep", labels], "sweep does not take"),
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert told in err
    kept = labelled_run / "vocabulary.json"
    content = kept.read_text()
    try:
        kept.write_text("{")
        assert main(["eval", str(labelled_run)]) == 2
        assert "is no vocabulary" in capsys.readouterr().err
    finally:
        kept.write_text(content)
