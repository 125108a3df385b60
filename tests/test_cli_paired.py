"""`jaxmetric` on pairs: trained, measured in both directions, and used."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cli_runs import read_json, read_lines
from paired_files import SMALL, train, write_pairs

import jaxmetric as jm
from jaxmetric.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("pairs")
    names = np.array(["art", "law", "sport"])
    write_pairs(place / "pairs.npz", kind_names=names)
    write_pairs(place / "more.npz", rows=20, seed=5)
    return place


@pytest.fixture(scope="module")
def run(place):
    options = ["--labels", "kind", "--steps", "12", "--save-every", "5"]
    return train(place / "pairs.npz", place / "run", *options)


def test_a_run_tells_both_directions_before_and_after(run):
    told = read_json(run / "summary.json")
    assert told["data"]["train_rows"] == 48
    assert told["data"]["held_out_rows"] == 12
    assert told["categories"] == ["art", "law", "sport"]
    for block in ("untrained", "baseline", "trained"):
        for direction in ("query_to_key", "key_to_query"):
            for metric in ("recall_at_1", "recall_at_10", "mean_average_precision"):
                assert 0 <= told[block][f"{direction}_{metric}"] <= 1
    assert told["baseline"]["name"] == "CCA"
    records = read_lines(run / "metrics.jsonl")
    assert {r["kind"] for r in records} == {"train", "eval", "baseline"}
    last = [r for r in records if r["kind"] == "train"][-1]
    assert np.isfinite([last["positive_distance"], last["negative_distance"]]).all()
    assert (run / "curves.png").stat().st_size > 1000


def test_what_is_stored_embeds_as_the_run_did(run, place, capsys):
    assert main(["eval", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == pytest.approx(read_json(run / "summary.json")["trained"], abs=1e-6)
    assert main(["eval", str(run), str(place / "more.npz")]) == 0
    assert "more.npz: 20 pairs" in capsys.readouterr().out

    both, one = place / "both.npz", place / "one.npz"
    assert main(["embed", str(run), str(place / "pairs.npz"), "-o", str(both)]) == 0
    with np.load(place / "pairs.npz") as file:
        image, text, kind = file["image"], file["text"], file["kind"]
    embed_fn, params, state, config = jm.training.load_run(run)
    assert config["model"]["kind"] == "towers"
    inputs = (image.astype(np.float32), text.astype(np.float32))
    queries, keys = embed_fn(params, state, inputs, key=None, train=False)[0]
    with np.load(both) as file:
        np.testing.assert_allclose(file["query_embeddings"], queries, atol=1e-6)
        np.testing.assert_allclose(file["key_embeddings"], keys, atol=1e-6)
        np.testing.assert_array_equal(file["labels"], kind)
    # The other side is not asked for.
    np.savez(place / "texts.npz", text=text)
    words = ["embed", str(run), str(place / "texts.npz"), "--side", "key"]
    assert main([*words, "-o", str(one)]) == 0
    with np.load(one) as file:
        assert file.files == ["key_embeddings"]
        np.testing.assert_allclose(file["key_embeddings"], keys, atol=1e-6)


@pytest.mark.parametrize("side", ["query", "key"])
def test_a_search_goes_from_one_side_to_the_other(run, place, capsys, side):
    data = str(place / "pairs.npz")
    words = ["search", str(run), data, data, "-k", "3", "--json", "--side", side]
    assert main(words) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    embed_fn, params, state, _ = jm.training.load_run(run)
    with np.load(data) as file:
        inputs = tuple(file[name].astype(np.float32) for name in ("image", "text"))
        kinds = file["kind_names"][file["kind"] // 10]
    queries, keys = embed_fn(params, state, inputs, key=None, train=False)[0]
    if side == "key":
        queries, keys = keys, queries
    found = jm.retrieval.nearest_neighbors(queries, keys, k=3)
    assert [[n["row"] for n in line["neighbors"]] for line in lines] == np.asarray(
        found.indices
    ).tolist()
    assert [line["label"] for line in lines] == kinds.tolist()
    assert {line["verdict"] for line in lines} == {None}
    # What is kept of the gallery is used, and not by a search from the other side.
    assert main(words) == 0
    assert "made anew" not in capsys.readouterr().err


def test_columns_are_standardised_by_the_training_rows(run, place):
    _, _, state, _ = jm.training.load_run(run)
    pairs = jm.data.load_pairs(place / "pairs.npz", query="image", key="text")
    rows = pairs.take(jm.data.hold_out_rows(len(pairs))[0]).query
    np.testing.assert_allclose(state["left"]["mean"], rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(state["left"]["scale"] * rows.std(0), 1, rtol=1e-3)


def test_a_cut_run_goes_on_to_the_same_end(run, place):
    cut = place / "cut"
    shutil.copytree(run, cut)
    (cut / "summary.json").unlink()
    for step in ("step_00000010", "step_00000012"):
        shutil.rmtree(cut / "checkpoints" / step)
    assert main(["train", "--resume", str(cut)]) == 0
    found, whole = (read_json(folder / "summary.json") for folder in (cut, run))
    for key in ("parameters_sha256", "untrained", "baseline", "trained"):
        assert found[key] == whole[key]


def test_the_report_has_what_pairs_have(run, capsys):
    page = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert "report.html" in capsys.readouterr().out
    again = (run / "report.html").read_text()
    for text in (page, again):
        for key in ("metrics", "before-after", "curves", "projection", "distances"):
            assert f'<section id="{key}">' in text
        assert "confusion" not in text.split("<style>")[0]
        assert "query → key" in text
        assert "MAP@R" not in text
        assert "CCA" in text


def test_a_frozen_side_stays_and_the_other_comes_to_it(place):
    options = [
        "--freeze",
        "key",
        "--steps",
        "100",
        "--dim",
        "5",
        "--learning-rate",
        "1e-2",
    ]
    options += ["--dropout", "0"]
    run = train(place / "pairs.npz", place / "frozen", *options)
    embed_fn, params, state, config = jm.training.load_run(run)
    assert config["model"]["dim"] == 5
    assert config["model"]["query"]["dropout"] == 0
    text = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    _, keys = embed_fn(params, state, (None, text), key=None, train=False)[0]
    np.testing.assert_allclose(keys, jm.l2_normalize(jnp.asarray(text)), rtol=1e-5)
    told = read_json(run / "summary.json")
    for direction in ("query_to_key", "key_to_query"):
        name = f"{direction}_mean_reciprocal_rank"
        assert told["trained"][name] > told["untrained"][name] + 0.1


@pytest.mark.slow
def test_images_may_be_a_side(tmp_path, capsys):
    random = np.random.default_rng(0)
    level = random.integers(0, 5, 40)
    picture = (level[:, None, None] * 50 + random.integers(0, 9, (40, 8, 8))).astype(
        np.uint8
    )
    np.savez(tmp_path / "x.npz", picture=picture, row=np.eye(5)[level] + 0.1)
    words = ["train", str(tmp_path / "x.npz"), "--query", "picture", "--key", "row"]
    words += ["--widths", "4", "--steps", "2", "--batch-size", "8", "--dim", "3"]
    words += ["--duplicates", "0.999", "--out", str(tmp_path / "run"), "--plain"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "near-duplicates of others: 5 groups of 2 to" in out
    config = jm.training.load_run(tmp_path / "run")[3]
    assert config["model"]["query"]["kind"] == "conv"
    assert config["augment"]["shift"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--loss", "cross_modal"],
        ["--loss", "cross_modal", "--no-hardest"],
        ["--loss", "info_nce", "--no-symmetric"],
        ["--loss", "sigmoid_contrastive"],
        ["--loss", "batch_hard", "--labels", "kind"],
        ["--loss", "supervised_contrastive", "--labels", "kind"],
        ["--loss", "normalized_softmax", "--labels", "kind"],
        # Not soft_triple: the sides settle at different centers of one category.
        ["--loss", "proxy_anchor", "--labels", "kind"],
    ],
    ids=" ".join,
)
def test_every_kind_of_loss_learns_pairs(tmp_path, options):
    path = write_pairs(tmp_path / "pairs.npz", rows=400)
    # Eight hidden numbers do not stand that half of them are left out.
    words = ["--steps", "300", "--dropout", "0", "--learning-rate", "1e-2"]
    run = train(path, tmp_path / "run", *words, *options)
    told = read_json(run / "summary.json")
    assert told["skipped_steps"] == 0
    # With categories all of one are right, not the partner alone.
    is_labelled = "--labels" in options
    name = "mean_average_precision" if is_labelled else "mean_reciprocal_rank"
    name = f"query_to_key_{name}"
    assert told["trained"][name] > told["untrained"][name] + 0.1


@pytest.mark.slow
def test_many_devices_come_to_the_same(place, tmp_path):
    found = []
    for count in ("1", "4"):
        options = ["--labels", "kind", "--steps", "8", "--devices", count]
        run = train(place / "pairs.npz", tmp_path / count, *options)
        found.append(jax.tree.leaves(jm.training.load_run(run)[1]))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_one_encoder_may_serve_for_both(place, tmp_path):
    path = tmp_path / "same.npz"
    with np.load(place / "pairs.npz") as file:
        np.savez(path, image=file["text"], text=file["text"] * 2 + 1)
    options = ["--towers", "shared", "--steps", "20"]
    run = train(path, tmp_path / "run", *options)
    assert set(jm.training.load_run(run)[1]) == {"encoder"}


@pytest.mark.slow
def test_a_configuration_trains_again(run, place, tmp_path):
    words = ["train", str(place / "pairs.npz"), "--config", str(run / "config.yaml")]
    assert main([*words, "--steps", "1", "--out", str(tmp_path / "run")]) == 0
    assert main([*words, "--steps", "1", "--hidden", "3"]) == 2


MISTAKES = [
    (["--query", "image"], "--query needs --key as well"),
    (["--key", "text"], "--key needs --query as well"),
    (["--labels", "kind"], "--labels takes pairs: name the two sides"),
    (["--query", "image", "--key", "txt"], "holds no `txt` (it holds image, text"),
    (["--query", "image", "--key", "kind"], "`kind` holds ids, and the other side"),
    ([*SMALL[4:6], "--query", "image"], "--query needs --key"),
]
OF_PAIRS = [
    (["--batch-size", "1"], "--batch-size must be at least 2, got 1."),
    (["--batch-size", "49"], "must be 1 to the 48 rows"),
    (["--eval-fraction", "1"], "--eval-fraction must be above 0 and below 1, got 1."),
    (["--m-per-class", "4"], "--m-per-class is about classes, these are pairs."),
    (["--held-out", "art"], "--held-out is about classes, these are pairs."),
    (["--warmup-epochs", "2"], "--warmup-epochs is about classes"),
    (["--towers", "shared"], "--towers shared takes sides of one kind"),
    (["--towers", "shared", "--freeze", "key"], "exclude each other"),
    (["--freeze", "key", "--dim", "4"], "--dim must be 5, the width of the frozen"),
    (["--freeze", "both"], "must be one of query, key, got 'both'"),
    (["--model", "conv"], "--model conv takes images, and `image` has rows"),
    (["--model", "words"], "--model words takes texts in a .tsv file"),
    (["--model", "towers"], "--model towers takes a configuration"),
    (["--widths", "4"], "--widths has no effect on mlp."),
    (["--hidden", "3", "--dropout", "1"], "`dropout` must be in [0, 1), got 1"),
    (["--duplicates", "2"], "--duplicates must be above 0 and at most 1, got 2."),
    (["--duplicates", "0.0001"], "leaves no negatives"),
    (["--duplicates", "0.9", "--labels", "kind"], "exclude each other"),
    (["--loss", "triplet_margin"], "which batches of pairs do not give"),
    (["--loss", "infonce"], "is no loss of jaxmetric. Did you mean info_nce?"),
    (["--loss", "arcface"], "has a proxy for each category, and the pairs have none"),
    (["--loss", "info_nce", "--margin", "1"], "--margin is no option of the loss"),
    (["--batch-size", "16", "--devices", "3"], "cannot be shared alike by 3 devices"),
    (["--eval-data", "none.npz"], "none.npz: it is not a regular file"),
]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        *MISTAKES,
        *((["--query", "image", "--key", "text", *a], text) for a, text in OF_PAIRS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_one_line(place, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(place)
    assert main(["train", "pairs.npz", *arguments, "--out", "never"]) == 2
    out, error = capsys.readouterr()
    assert error.count("\n") == 1
    assert text in error
    assert not (place / "never").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["eval", "run", "--rerank"], "--rerank is about classes"),
        (["eval", "run", "--query", "a", "--gallery", "b"], "is about classes"),
        (["eval", "run", "none.npz"], "none.npz: it is not a regular file"),
        (["calibrate", "run"], "was trained on pairs"),
        (["search", "run", "text.npz", "pairs.npz"], "holds no `image`"),
        (
            ["search", "run", "pairs.npz", "pairs.npz", "--picture", "x.png"],
            "no picture",
        ),
        (["embed", "run", "text.npz", "-o", "x.npz"], "holds no `image`"),
        (["embed", "run", "wide.npz", "-o", "x.npz"], "the model takes (6,)"),
        (["train", "pairs.txt", "--query", "a", "--key", "b"], "is not. Save both"),
        (["sweep", "pairs.npz", "--query", "image"], "--query is no option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_run_cannot_do_is_told(run, place, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(place)
    np.savez("text.npz", text=np.zeros((3, 5)))
    np.savez("wide.npz", image=np.zeros((3, 7)), text=np.zeros((3, 5)))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert text in error
