"""A whole run: its folder, its numbers, and what can be made of it."""

import collections
import json
import shutil

import jax
import numpy as np
import pytest
import yaml
from cli_runs import SMALL, read_json, read_lines, write_features, write_images

import jaxmetric as jm
from jaxmetric.cli import main
from jaxmetric.training import load_run

STEPS = ["--steps", "40", "--warmup-epochs", "1"]
_compiled = collections.Counter()


def _count(event, duration_secs, **metadata):
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled[metadata.get("fun_name")] += 1


jax.monitoring.register_event_duration_secs_listener(_count)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def data(place):
    return write_features(place / "rows.npz")


@pytest.fixture(scope="module")
def run(place, data):
    """Return the folder of a finished run, with softmax training before the loss."""
    before = _compiled["jit(train_step)"]
    out = place / "run"
    assert main(["train", data, *SMALL, *STEPS, "--out", str(out)]) == 0
    _compiled["in the run"] = _compiled["jit(train_step)"] - before
    return out


@pytest.fixture(scope="module")
def image_run(place):
    out = place / "images"
    data = write_images(place / "bars.npz")
    options = ["--widths", "4", "--dim", "4", "--steps", "4", "--m-per-class", "3"]
    assert main(["train", data, *options, "--out", str(out)]) == 0
    return out


def test_the_folder_of_a_run_is_complete(run):
    names = {"config.yaml", "metrics.jsonl", "summary.json", "checkpoints"}
    assert names | {"curves.png"} <= {path.name for path in run.iterdir()}


def test_an_image_run_has_a_gallery(image_run):
    assert (image_run / "gallery.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_tells_what_was_done(run, data):
    summary = read_json(run / "summary.json")
    assert summary["status"] == "finished"
    assert summary["command"].startswith(f"jaxmetric train {data} --hidden 8")
    assert summary["steps"] == 40 + 9
    assert summary["compilation_seconds"] > 0
    assert summary["training_seconds"] > 0
    assert len(summary["classes"]["held_out"]) == 2
    assert not set(summary["classes"]["held_out"]) & set(summary["classes"]["train"])
    for block in ("untrained", "pixels", "trained"):
        assert {"recall_at_1", "mean_average_precision_at_r"} <= summary[block].keys()


def test_the_pixels_block_is_that_of_the_raw_rows(run, data):
    held_out = read_json(run / "summary.json")["classes"]["held_out"]
    loaded = jm.data.load(data)
    part = loaded.select_classes([loaded.class_names.index(c) for c in held_out])
    assert part.labels is not None
    expected = jm.retrieval.evaluate(part.inputs, part.labels)
    expected = {name: float(value) for name, value in expected.items()}
    assert read_json(run / "summary.json")["pixels"] == expected


def test_one_compilation_of_the_step_a_phase(run):
    assert _compiled["in the run"] == 2


def test_the_log_has_one_object_a_line_and_both_phases(run):
    records = read_lines(run / "metrics.jsonl")
    trained = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in trained] == list(range(1, 50))
    assert [record["phase"] for record in trained] == ["softmax"] * 9 + ["metric"] * 40
    # Softmax training against proxies has its own terms; the loss tells active ones.
    assert all(0 <= record["active_fraction"] <= 1 for record in trained)


def test_eval_agrees_with_the_summary(run, capsys):
    capsys.readouterr()
    assert main(["eval", str(run), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == read_json(run / "summary.json")["trained"]


def test_eval_prints_a_table(run, capsys):
    capsys.readouterr()
    assert main(["eval", str(run)]) == 0
    assert "mean_average_precision_at_r" in capsys.readouterr().out


def test_embed_agrees_with_the_summary_and_keeps_the_rows(run, data, place):
    out = place / "embeddings.npz"
    assert main(["embed", str(run), data, "-o", str(out)]) == 0
    with np.load(out) as file:
        embeddings, labels = file["embeddings"], file["labels"]
    with np.load(data) as file:
        assert labels.tolist() == file["labels"].tolist()
    summary = read_json(run / "summary.json")
    is_held_out = np.isin(labels.astype(str), summary["classes"]["held_out"])
    metrics = jm.retrieval.evaluate(embeddings[is_held_out], labels[is_held_out])
    assert {k: float(v) for k, v in metrics.items()} == summary["trained"]


def test_load_run_gives_the_encoder_of_embed(run, data, place):
    out = place / "again.npz"
    assert main(["embed", str(run), data, "-o", str(out)]) == 0
    embed_fn, params, model_state, _ = load_run(run)
    inputs = jm.data.load(data).inputs
    rows, _ = embed_fn(params, model_state, inputs, key=None, train=False)
    with np.load(out) as file:
        np.testing.assert_allclose(file["embeddings"], rows, rtol=0, atol=1e-6)


def test_embed_takes_rows_without_labels(run, data, place):
    with np.load(data) as file:
        np.savez(place / "bare.npz", features=file["features"])
    out = place / "bare-embeddings.npz"
    assert main(["embed", str(run), str(place / "bare.npz"), "--output", str(out)]) == 0
    with np.load(out) as file:
        assert file.files == ["embeddings"]


def test_eval_on_all_classes_of_other_data(run, place, capsys):
    other = write_features(place / "other.npz", classes=5, rows=4, seed=7)
    capsys.readouterr()
    assert main(["eval", str(run), other, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_queries"] == 20


def test_eval_of_a_query_set_in_a_gallery_matches_classes_by_name(run, place, capsys):
    query = write_features(place / "query.npz", classes=5, rows=4, seed=7)
    with np.load(query) as file:
        # The same classes under other numbers of the labels' array.
        np.savez(place / "gallery.npz", **{k: file[k][::-1] for k in file.files})
    capsys.readouterr()
    sets = ["--query", query, "--gallery", str(place / "gallery.npz")]
    assert main(["eval", str(run), *sets, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["num_queries"] == 20
    # Every row finds itself.
    assert metrics["mean_reciprocal_rank"] == 1


def test_the_configuration_of_a_run_makes_the_same_run(run, place):
    out = place / "same"
    config = ["--config", str(run / "config.yaml")]
    assert main(["train", *config, "--out", str(out)]) == 0
    before, now = (read_json(path / "summary.json") for path in (run, out))
    assert before["parameters_sha256"] == now["parameters_sha256"]
    assert before["trained"] == now["trained"]


def test_a_finished_run_says_so(run, capsys):
    before = (run / "summary.json").read_bytes()
    assert main(["train", "--resume", str(run)]) == 0
    assert "is finished, after 49 steps" in capsys.readouterr().out
    assert (run / "summary.json").read_bytes() == before


def test_resuming_with_other_options_is_refused_with_the_difference(run, capsys):
    assert main(["train", "--resume", str(run), "--dim", "5"]) == 2
    assert "model.dim is 4, not 5" in capsys.readouterr().err


def test_resuming_with_an_edited_configuration_is_refused(run, place, capsys):
    copy = place / "edited"
    shutil.copytree(run, copy)
    (copy / "summary.json").unlink()
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["optimization"]["learning_rate"] = 0.5
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "--resume", str(copy)]) == 2
    assert "optimization.learning_rate is 0.001, not 0.5" in capsys.readouterr().err


def test_resuming_on_other_data_is_refused(run, place, capsys):
    copy = place / "moved"
    shutil.copytree(run, copy)
    (copy / "summary.json").unlink()
    other = write_features(place / "changed.npz", seed=5)
    assert main(["train", other, "--resume", str(copy)]) == 2
    assert "the data has changed" in capsys.readouterr().err


def test_resuming_after_the_last_step_writes_the_same_summary(run, place):
    copy = place / "unsummarised"
    shutil.copytree(run, copy)
    (copy / "summary.json").unlink()
    with open(copy / "metrics.jsonl", "a") as file:
        file.write('{"step": 49, "kind": "tr')
    assert main(["train", "--resume", str(copy)]) == 0
    before, now = (read_json(path / "summary.json") for path in (run, copy))
    for key in ("parameters_sha256", "untrained", "pixels", "trained", "classes"):
        assert before[key] == now[key]
    assert read_lines(copy / "metrics.jsonl") == read_lines(run / "metrics.jsonl")


def test_a_run_cut_before_its_first_checkpoint_begins_again(run, place):
    again = place / "again"
    again.mkdir()
    shutil.copy(run / "config.yaml", again)
    assert main(["train", "--resume", str(again)]) == 0
    before, now = (read_json(path / "summary.json") for path in (run, again))
    assert before["parameters_sha256"] == now["parameters_sha256"]
    assert before["untrained"] == now["untrained"]


def test_runs_are_numbered(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "rows-1").mkdir(parents=True)
    assert main(["train", data, *SMALL, "--steps", "1"]) == 0
    assert (tmp_path / "runs" / "rows-2" / "summary.json").exists()
    assert not list((tmp_path / "runs" / "rows-1").iterdir())


def test_a_loss_with_proxies_trains(data, place):
    out = place / "proxies"
    options = [*SMALL, "--steps", "3", "--loss", "normalized-softmax"]
    assert (
        main(["train", data, *options, "--temperature", "0.2", "--out", str(out)]) == 0
    )
    assert read_json(out / "summary.json")["loss"]["temperature"] == 0.2


@pytest.mark.parametrize(
    "loss",
    [
        "subcenter_arcface",
        pytest.param("soft_triple", marks=pytest.mark.slow),
        pytest.param("center", marks=pytest.mark.slow),
    ],
)
def test_a_loss_with_centers_trains(data, place, loss):
    out = place / loss
    options = [*SMALL, "--steps", "3", "--loss", loss]
    options += ["--num-centers", "4"] if loss == "soft_triple" else []
    assert main(["train", data, *options, "--out", str(out)]) == 0
    chosen = read_json(out / "summary.json")["loss"]
    centers = {"subcenter_arcface": 3, "soft_triple": 4, "center": None}
    assert chosen.get("num_centers") == centers[loss]
