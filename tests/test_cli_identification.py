"""`eval` with cameras, pairs and few examples, and `calibrate`."""

import json
import os
import re

import jax
import numpy as np
import pytest
from cli_runs import WIDTH, write_features
from ready_runs import embed, write_parameters, write_run

from jaxmetric import retrieval
from jaxmetric.cli import groups, main, pairs, reranking
from jaxmetric.cli.calibration import find_threshold, read_calibration
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.identification import Sides
from jaxmetric.training import load_run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a run, and with data that has cameras."""
    place = tmp_path_factory.mktemp("identification")
    rows = write_features(place / "rows.npz")
    write_run(place / "run", rows, shape=[WIDTH], held_out=["10", "11"])
    random = np.random.default_rng(1)
    for name, seed, cameras in (("a", 2, 3), ("b", 3, 4)):
        with np.load(write_features(place / f"{name}.npz", rows=4, seed=seed)) as file:
            arrays = dict(file)
        groups = random.integers(0, cameras, arrays["labels"].shape)
        texts = np.char.add("camera ", groups.astype(str))
        np.savez(place / f"{name}.npz", **arrays, groups=groups, cameras=texts)
        np.savez(place / f"{name}_bare.npz", features=arrays["features"])
        np.savez(place / f"{name}_none.npz", **arrays)
    lines = "0\t1\t1\n5\t3\t0\n\n47\t0\t0\n 2\t2 \t1\n"
    (place / "pairs.tsv").write_text(lines)
    return place


@pytest.fixture(scope="module")
def sets(place):
    """Return the embeddings, labels and groups of both sets."""
    found = []
    for name in "ab":
        with np.load(place / f"{name}.npz") as file:
            arrays = dict(file)
        rows = embed(place / "run", arrays["features"])
        found.append((rows, arrays["labels"].astype(np.int32), arrays["groups"]))
    return found


def run_json(capsys, *arguments):
    """Return what a command prints as JSON."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def numbers(metrics, prefix=""):
    return {f"{prefix}{k}": np.asarray(v).item() for k, v in metrics.items()}


def dense(x, y):
    return np.sqrt(((x[:, None].astype(np.float64) - y[None]) ** 2).sum(-1))


@pytest.mark.parametrize("is_more", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_eval_of_two_sets_gives_the_numbers_of_the_library(
    is_more, place, sets, capsys, monkeypatch
):
    monkeypatch.chdir(place)
    (x, labels, groups), (y, ref_labels, ref_groups) = sets
    arguments = ["--query", "a.npz", "--gallery", "b.npz"]
    arguments += ["--verification", "--far", "0.02", "0.2"]
    arguments += ["--rerank", "--few-shot", "5x1"] if is_more else []
    found = run_json(capsys, "eval", "run", *arguments)
    expected = retrieval.cmc(
        x,
        labels,
        y,
        ref_labels,
        query_groups=groups.astype(np.int32),
        reference_groups=ref_groups.astype(np.int32),
    )
    expected = numbers(expected)
    if is_more:
        order = retrieval.rerank(x, y, k=len(y))
        sides = Sides(x, labels, y, ref_labels, groups, ref_groups)
        columns, distances = (np.asarray(array) for array in order)
        expected |= reranking.score(sides, columns, distances, (1, 5, 10))
    is_same = labels[:, None] == ref_labels
    keep = ~is_same | (groups[:, None] != ref_groups)
    verified = retrieval.verification(
        dense(x, y)[keep].astype(np.float32), is_same[keep], far=(0.02, 0.2)
    )
    expected |= numbers(verified)
    expected["same_pairs"] = int((is_same & keep).sum())
    expected["different_pairs"] = int((~is_same).sum())
    if is_more:
        few = retrieval.few_shot(jax.random.key(0), x, labels, ways=5, shots=1)
        expected["few_shot_5x1"] = float(few.accuracy)
        expected["few_shot_5x1_interval"] = float(few.interval)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=2e-6)
    assert (place / "run" / "roc.png").read_bytes().startswith(b"\x89PNG")
    os.unlink(place / "run" / "roc.png")


@pytest.mark.slow
def test_groups_are_used_where_both_sets_have_them(place, sets, capsys, monkeypatch):
    monkeypatch.chdir(place)
    both = ["eval", "run", "--query", "a.npz", "--gallery", "b.npz"]
    by_number = run_json(capsys, *both)
    assert "recall_at_1" not in by_number
    assert run_json(capsys, *both, "--groups", "cameras") == by_number
    alone = run_json(
        capsys, "eval", "run", "--query", "a.npz", "--gallery", "b_none.npz"
    )
    assert alone["recall_at_1"] == alone["cmc_1"]
    assert alone["mean_average_precision"] != by_number["mean_average_precision"]


@pytest.mark.slow
def test_groups_of_one_set_are_used_when_named(place, sets, capsys, monkeypatch):
    monkeypatch.chdir(place)
    x, labels, groups = sets[0]
    found = run_json(capsys, "eval", "run", "a.npz", "--groups", "groups")
    groups = groups.astype(np.int32)
    expected = numbers(retrieval.cmc(x, labels, query_groups=groups))
    assert found == pytest.approx(expected, abs=1e-6)
    assert "recall_at_1" in run_json(capsys, "eval", "run", "a.npz")


@pytest.mark.slow
@pytest.mark.parametrize("is_one_set", [False, True])
def test_scores_of_an_order_are_those_of_matching_by_its_distances(is_one_set):
    random = np.random.default_rng(3)
    x, y = (random.normal(size=(n, 2)).astype(np.float32) for n in (9, 14))
    # Rounded, so that there are ties.
    x, y = x.round(), y.round()
    labels, ref_labels = random.integers(0, 3, 9), random.integers(0, 3, 14)
    groups, ref_groups = random.integers(0, 2, 9), random.integers(0, 2, 14)
    if is_one_set:
        sides = Sides(x, labels, groups=groups)
        side, options = (x, labels), {"query_groups": groups.astype(np.int32)}
        found = retrieval.nearest_neighbors(x, k=8)
    else:
        sides = Sides(x, labels, y, ref_labels, groups, ref_groups)
        side = (x, labels, y, ref_labels)
        options = {"query_groups": groups, "reference_groups": ref_groups}
        options = {name: array.astype(np.int32) for name, array in options.items()}
        found = retrieval.nearest_neighbors(x, y, k=14)
    side = tuple(a.astype(np.int32) if a.ndim == 1 else a for a in side)
    expected = numbers(retrieval.cmc(*side, ranks=(1, 3), **options), "reranked_")
    del expected["reranked_num_queries"]
    found = reranking.score(sides, *(np.asarray(a) for a in found), (1, 3))
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_list_of_pairs_needs_no_labels(place, sets, capsys, monkeypatch):
    monkeypatch.chdir(place)
    x, y = sets[0][0], sets[1][0]
    both = ["--query", "a_bare.npz", "--gallery", "b_bare.npz"]
    picture = ["--roc", "curve.png"]
    found = run_json(capsys, "eval", "run", *both, "--pairs", "pairs.tsv", *picture)
    rows, columns = [0, 5, 47, 2], [1, 3, 0, 2]
    distances = dense(x, y)[rows, columns].astype(np.float32)
    is_same = np.array([True, False, False, True])
    expected = numbers(retrieval.verification(distances, is_same))
    expected |= {"same_pairs": 2, "different_pairs": 2}
    assert found == pytest.approx(expected, abs=1e-6)
    os.unlink("curve.png")


@pytest.mark.slow
def test_the_table_tells_the_interval_and_the_threshold(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    arguments = ["--pairs", "pairs.tsv", "--few-shot", "5x1"]
    assert main(["eval", "run", "a.npz", *arguments]) == 0
    out = capsys.readouterr().out
    assert re.search(r"few_shot_5x1 +│ [\d.]+ % ± [\d.]+ %", out)
    assert re.search(r"threshold +│ \d\.\d{4} ", out)
    assert "Curve: run/roc.png" in out
    both = ["eval", "run", "--query", "a.npz", "--gallery"]
    assert main([*both, "b.npz"]) == 0
    assert "b.npz, rows of one class and one group left out" in capsys.readouterr().out
    assert main([*both, "b_none.npz"]) == 0
    assert "groups left aside: one of them has none" in capsys.readouterr().out
    os.unlink("run/roc.png")


def test_only_a_file_has_groups():
    assert groups.read_groups("digits", 3, None) is None
    with pytest.raises(UsageError, match="--groups g: digits is no .npz file, whose"):
        groups.read_groups("digits", 3, "g")


def test_groups_are_numbered_alike_over_both_sides():
    sides = np.array(["b", "a", "b"]), np.array([b"c", b"a"])
    assert [side.tolist() for side in groups.number(*sides)] == [[1, 0, 1], [2, 0]]
    with pytest.raises(UsageError, match="are texts, those of the other numbers"):
        groups.number(sides[0], np.array([1, 2]))


# Calibration.


def test_calibrate_keeps_the_threshold_of_the_held_out_classes(
    place, capsys, monkeypatch
):
    monkeypatch.chdir(place)
    found = run_json(capsys, "calibrate", "run", "--far", "0.05")
    with np.load("rows.npz") as file:
        is_held_out = np.repeat(np.arange(12), 10) >= 10
        x = embed(place / "run", file["features"].reshape(-1, WIDTH)[is_held_out])
    distances = dense(x, x)
    labels = np.arange(20) // 10
    is_different = labels[:, None] != labels
    # Of 100 different pairs 5 may be as near.
    far = np.mean(distances[is_different] <= found["threshold"] + 1e-6)
    assert far == found["false_accept_rate"] <= 0.05
    is_same = ~is_different & ~np.eye(20, dtype=bool)
    tar = np.mean(distances[is_same] <= found["threshold"] + 1e-6)
    assert found["true_accept_rate"] == pytest.approx(tar)
    nearest = np.where(is_different, distances, np.inf).min(axis=1)
    expected = np.mean(nearest <= found["threshold"] + 1e-6)
    assert found["false_identification_rate"] == expected
    stored = read_calibration(place / "run")
    assert stored is not None
    assert stored._asdict() == found
    counts = (found["same_pairs"], found["different_pairs"], found["rows"])
    assert counts == (90, 100, 20)
    os.unlink("run/calibration.json")


def test_the_threshold_is_the_largest_that_accepts_few_enough():
    random = np.random.default_rng(0)
    for _ in range(50):
        distances = random.integers(0, 30, 60).astype(np.float32)
        is_same = random.random(60) < 0.4
        far = random.uniform(0.15, 0.6)
        rates = {
            t: np.mean(distances[~is_same] <= t)
            for t in distances
            if np.mean(distances[~is_same] <= t) <= far
        }
        if rates:
            threshold, rate, tar = find_threshold(distances, is_same, far)
            assert threshold == max(rates)
            assert rate == rates[max(rates)]
            assert tar == np.mean(distances[is_same] <= threshold)
        else:
            with pytest.raises(UsageError):
                find_threshold(distances, is_same, far)


def test_a_rate_that_no_pair_can_measure_is_refused():
    distances = np.arange(10, dtype=np.float32)
    is_same = distances < 5
    with pytest.raises(UsageError, match=r"of 5 pairs .* the smallest rate is 0\.2\. "):
        find_threshold(distances, is_same, 0.1)
    assert find_threshold(distances, is_same, 0.2) == (5.0, 0.2, 1.0)


def test_a_collapsed_encoder_has_no_threshold():
    distances, is_same = np.zeros(10, np.float32), np.arange(10) < 5
    with pytest.raises(UsageError, match="the smallest rate is 1"):
        find_threshold(distances, is_same, 0.5)


def test_a_failed_write_leaves_the_old_calibration(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    assert main(["calibrate", "run", "--far", "0.05"]) == 0
    before = (place / "run" / "calibration.json").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxmetric.cli.outputs.os.fsync", full)
    capsys.readouterr()
    assert main(["calibrate", "run", "--far", "0.1"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert (place / "run" / "calibration.json").read_bytes() == before
    assert not [name for name in os.listdir("run") if "unfinished" in name]
    os.unlink("run/calibration.json")


# Mistakes.

TWO = ("eval", "run", "--query", "a.npz", "--gallery", "b.npz")
MISTAKES = {
    "groups name": ((*TWO, "--groups", "camera"), "holds no such array (it holds"),
    "groups floats": ((*TWO, "--groups", "features"), "must be integers"),
    "groups length": (("eval", "run", "short.npz", "--groups", "g"), "has 3"),
    "groups alone": (("eval", "run", "--groups", "g"), "--groups g: needs DATA"),
    "pairs alone": (("eval", "run", "--pairs", "words.tsv"), "needs DATA"),
    "pairs nowhere": ((*TWO, "--pairs", "no.tsv"), "--pairs no.tsv: cannot be read"),
    "pairs words": ((*TWO, "--pairs", "words.tsv"), "words.tsv:1: must be ROW<tab>ROW"),
    "far alone": ((*TWO, "--far", "0.1"), "--far has no effect without"),
    "far": ((*TWO, "--verification", "--far", "1"), "--far must be above 0"),
    "roc alone": ((*TWO, "--roc", "x.png"), "--roc has no effect without"),
    "roc suffix": ((*TWO, "--verification", "--roc", "x.jpg"), "must end in .png"),
    "roc folder": ((*TWO, "--verification", "--roc", "n/x.png"), "does not exist"),
    "few shot": ((*TWO, "--few-shot", "5"), "--few-shot must be WAYSxSHOTS"),
    "few shot one": ((*TWO, "--few-shot", "1x1"), "at least 2x1, got '1x1'"),
    "few shot many": ((*TWO, "--few-shot", "13x1"), "only 12 classes have 2 rows"),
    "one class": (("eval", "run", "one.npz", "--verification"), "of different classes"),
    "calibrate nothing": (("calibrate",), "RUN"),
    "calibrate nowhere": (("calibrate", "nowhere"), "nowhere: does not exist"),
    "calibrate far": (("calibrate", "run", "--far", "0"), "--far must be above 0"),
    "calibrate rate": (
        ("calibrate", "run", "--far", "1e-9"),
        "--far 1e-09: of 100 pairs of different classes, the smallest rate is 0.01",
    ),
    "calibrate data": (("calibrate", "run", "a_bare.npz"), "holds no `labels`"),
    "calibrate one": (("calibrate", "run", "one.npz"), "has not two classes"),
}


@pytest.fixture(scope="module")
def bad_place(place):
    (place / "words.tsv").write_text("a\tb\t1\n")
    with np.load(place / "a_none.npz") as file:
        features = file["features"].reshape(-1, WIDTH)
    ones = np.zeros(len(features), int)
    np.savez(place / "one.npz", features=features, labels=ones)
    labels = np.arange(len(features)) // 4
    np.savez(place / "short.npz", features=features, labels=labels, g=labels[:3])
    return place


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(name, bad_place, monkeypatch, capsys):
    arguments, expected = MISTAKES[name]
    monkeypatch.chdir(bad_place)
    before = sorted(os.listdir()), sorted(os.listdir("run"))
    assert main(list(arguments)) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"jaxmetric[^\n]*\n", error), error
    assert expected in error
    assert (sorted(os.listdir()), sorted(os.listdir("run"))) == before


@pytest.mark.slow
def test_drawn_pairs_of_omniglot_tell_the_rates_of_all_pairs(
    test_data, tmp_path, monkeypatch, capsys
):
    data = f"{test_data}/omniglot_background.npz"
    options = ["--steps", "60", "--out", str(tmp_path / "run")]
    assert main(["train", data, *options]) == 0
    drawn = run_json(capsys, "eval", str(tmp_path / "run"), "--verification")
    assert drawn["same_pairs"] == 193 * 190
    assert "threshold" not in drawn
    monkeypatch.setattr(pairs.choose, "__kwdefaults__", {"most": 2**23, "seed": 0})
    full = run_json(capsys, "eval", str(tmp_path / "run"), "--verification")
    assert full["same_pairs"] + full["different_pairs"] == 3860 * 3859 // 2
    for name in ("tar_at_far_0.001", "tar_at_far_0.01", "eer", "auc"):
        assert drawn[name] == pytest.approx(full[name], abs=0.01)


def test_another_checkpoint_has_another_fingerprint(place):
    from jaxmetric.cli.evaluate import load_encoder

    before = load_encoder(str(place / "run")).fingerprint
    model = load_run(place / "run")[3]["model"]
    write_parameters(place / "run", model, step=2, seed=0)
    assert load_encoder(str(place / "run")).fingerprint == before
    write_parameters(place / "run", model, step=3, seed=5)
    assert load_encoder(str(place / "run")).fingerprint != before
