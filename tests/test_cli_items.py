"""Users and items: from a file of ids to what is found among the unseen."""

import dataclasses
import math

import numpy as np
import pytest
from cli_runs import read_json
from test_training_writers import read_scalars

from benchmarks.applications_items import make_interactions
from jaxmetric import training
from jaxmetric.cli import main
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.paired.interactions import Interactions, known_ids, pairs_of
from jaxmetric.cli.paired.tasks import task_of

SIDES = ["--query", "user", "--key", "item"]


def _write(path, **more):
    """Write few interactions, and arrays besides; return the path."""
    made = make_interactions(0, num_users=40, num_items=30, per_session=2)
    arrays = {"user": made.users, "item": made.items, **more}
    np.savez(path, **arrays)
    return str(path)


def _options(data, **pairs):
    options = TrainOptions()
    named = {"query": "user", "key": "item", **pairs}
    return dataclasses.replace(
        options,
        data=dataclasses.replace(options.data, data=data),
        pairs=dataclasses.replace(options.pairs, **named),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with interactions and a run on them."""
    place = tmp_path_factory.mktemp("items")
    data = _write(place / "rows.npz")
    words = ["--dim", "8", "--steps", "60", "--out", str(place / "run")]
    assert main(["train", data, *SIDES, *words]) == 0
    return place


def test_a_run_is_judged_by_the_unseen_items(place):
    summary = read_json(place / "run" / "summary.json")
    assert summary["kind"] == "interactions"
    assert summary["loss"]["name"] == "info_nce_loss"
    assert summary["loss"]["symmetric"] is False
    assert summary["model"]["query"] == {
        "kind": "ids", "input_shape": [], "num_ids": 40
    }  # fmt: skip
    for block in ("untrained", "trained", "baseline"):
        assert 0 <= summary[block]["recall_at_10"] <= 1
        assert summary[block]["num_queries"] == 40
    assert summary["baseline"]["name"] == "most popular"
    # Of so few interactions nothing is learned: see the slow test.
    assert summary["trained"] != summary["untrained"]


def test_the_most_popular_list_is_that_of_plain_python(place):
    task = Interactions()
    split = task.split(_options(str(place / "rows.npz")))
    counts = {i: 0 for i in (*split.train.key.tolist(), *split.held_out.key.tolist())}
    for item in split.train.key.tolist():
        counts[item] += 1
    recalls = []
    for user in np.unique(split.held_out.query):
        wanted, seen = (
            set(data.key[data.query == user].tolist())
            for data in (split.held_out, split.train)
        )
        left = [i for i in counts if i not in seen]
        # Of equally popular items those that are not wanted come first.
        left.sort(key=lambda i: (-counts[i], i in wanted))
        recalls.append(len(wanted & set(left[:10])) / len(wanted))
    _, found = task.baseline(split)
    assert found["recall_at_10"] == pytest.approx(math.fsum(recalls) / len(recalls))


def test_what_is_held_out_is_of_every_user_and_unseen(place):
    split = Interactions().split(_options(str(place / "rows.npz")))
    users, items = known_ids(split)
    relevant, seen = pairs_of(split)
    assert set(relevant[:, 0]) == set(range(len(users)))
    assert not set(map(tuple, relevant)) & set(map(tuple, seen))
    assert items[relevant[:, 1]].tolist() == split.held_out.key.tolist()


def test_the_loss_is_told_how_often_an_item_occurs(place):
    options = _options(str(place / "rows.npz"))
    task = Interactions()
    train = task.split(options).train
    found, _ = task.rows(options, train)
    assert set(found) == {"labels", "log_frequencies"}
    assert found["labels"].tolist() == train.key.tolist()
    shares = np.exp(found["log_frequencies"])
    want = [np.mean(train.key == item) for item in train.key]
    np.testing.assert_allclose(shares, want, rtol=1e-5)
    without = _options(str(place / "rows.npz"), correction=False)
    assert set(task.rows(without, train)[0]) == {"labels"}


def test_the_last_items_can_be_held_out(tmp_path):
    users, items = np.repeat([0, 1], 5), np.tile(np.arange(5), 2)
    np.savez(tmp_path / "rows.npz", user=users, item=items)
    options = _options(str(tmp_path / "rows.npz"), hold_out="last")
    split = Interactions().split(options)
    assert split.held_out.key.tolist() == [4, 4]
    assert split.train.key.tolist() == [0, 1, 2, 3] * 2


def test_features_are_kept_with_the_model_at_one_scale(tmp_path):
    features = np.random.default_rng(0).normal(5, 3, (30, 4))
    features[:, 3] = 7
    data = _write(tmp_path / "rows.npz", item_features=features)
    options = _options(data)
    task = task_of(options)
    assert isinstance(task, Interactions)
    train = task.split(options).train
    model = task.sections(options, train)
    assert model["key"]["num_features"] == 4
    assert "num_features" not in model["query"]
    _, params, state = training.build_encoder(model, seed=0)
    _, state = task.start(options, params, state, train)
    kept = np.asarray(state["right"]["features"])[np.unique(train.key)]
    np.testing.assert_allclose(kept.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(kept.std(0), [1, 1, 1, 0], atol=1e-5)
    plain = _options(data, standardize=False)
    _, state = task.start(plain, params, state, train)
    np.testing.assert_allclose(state["right"]["features"], features, rtol=1e-6)
    # What the model knows is part of what a run is.
    other = _write(tmp_path / "other.npz", item_features=features + 1)
    one, two = (Interactions().split(_options(path)).sha256 for path in (data, other))
    assert one != two


def test_eval_repeats_the_numbers_of_the_run(place, capsys):
    assert main(["eval", str(place / "run"), "--json"]) == 0
    summary = read_json(place / "run" / "summary.json")
    told = capsys.readouterr().out
    assert f'"recall_at_10": {summary["trained"]["recall_at_10"]}' in told


def test_other_interactions_are_judged_with_the_training_rows_as_seen(place, capsys):
    split = Interactions().split(_options(str(place / "rows.npz")))
    np.savez(place / "new.npz", user=split.train.query, item=split.train.key)
    assert main(["eval", str(place / "run"), str(place / "new.npz"), "--json"]) == 0
    # All of them have been seen, so nothing is left to find.
    assert '"num_queries": 0' in capsys.readouterr().out


def test_embed_gives_a_row_for_each_id(place, capsys):
    np.savez(place / "some.npz", user=np.array([3, 1]), item=np.array([2, 2]))
    out = place / "rows_of_some.npz"
    words = ["embed", str(place / "run"), str(place / "some.npz"), "-o", str(out)]
    assert main(words) == 0
    with np.load(out) as file:
        queries, keys = file["query_embeddings"], file["key_embeddings"]
    assert queries.shape == keys.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(keys[0], keys[1])


def test_the_report_tells_popular_from_rare(place):
    page = (place / "run" / "report.html").read_text()
    for text in ("Recall@10", "least popular", "most popular", "items for 40 users"):
        assert text in page


MISTAKES = {
    "one side": (["--query", "user", "--key", "floats"], "`user` holds ids, and the"),
    "negative": (["--query", "negative", "--key", "item"], "must not be negative"),
    "sparse": (["--query", "sparse", "--key", "item"], "np.unique(sparse, return_inv"),
    "labels": ([*SIDES, "--labels", "item"], "--labels has no effect on users and"),
    "freeze": ([*SIDES, "--freeze", "key"], "--freeze has no effect on users and"),
    "shared": ([*SIDES, "--towers", "shared"], "--towers shared has no effect"),
    "model": ([*SIDES, "--model", "mlp"], "--model mlp takes other inputs than ids"),
    "hidden": ([*SIDES, "--hidden", "8"], "--hidden has no effect on ids without"),
    "scale": ([*SIDES, "--standardize"], "--standardize has no effect on ids witho"),
    "alone": (["--query", "own", "--key", "item"], "two or more of some user, got on"),
    "short": (["--query", "few", "--key", "item"], "`few_features` has 3 rows, and `f"),
    "flat": (["--query", "flat", "--key", "item"], "`flat_features` must have shape"),
    "features": (
        ["--query", "floats", "--key", "floats", "--no-correction"],
        "--correction takes users and items, two arrays of integer ids.",
    ),
    "last": (
        ["--query", "floats", "--key", "floats", "--hold-out", "last"],
        "--hold-out takes users and items",
    ),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """Return a file with arrays of which each is a mistake."""
    path = tmp_path_factory.mktemp("bad") / "bad.npz"
    made = make_interactions(0, num_users=40, num_items=30, per_session=2)
    n = len(made.users)
    return _write(
        path,
        floats=np.ones((n, 2)),
        negative=made.users - 1,
        sparse=made.users + 10_000_000,
        own=np.arange(n),
        few=made.users,
        few_features=np.ones((3, 2)),
        flat=made.users,
        flat_features=np.ones(40),
    )


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name, bad, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, text = MISTAKES[name]
    assert main(["train", bad, *words]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert text in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["eval", "embed"])
def test_ids_that_the_run_does_not_know_are_refused(command, place, capsys):
    np.savez(place / "far.npz", user=np.array([3, 40]), item=np.array([2, 2]))
    words = [command, str(place / "run"), str(place / "far.npz")]
    words += ["-o", str(place / "far_rows.npz")] if command == "embed" else []
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "`user` holds id 40, and the run knows ids up to 39" in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_found_items_are_ahead_of_the_most_popular_and_of_no_correction(tmp_path):
    pytest.importorskip("tensorboardX")
    made = make_interactions(1, num_users=1000, num_items=600)
    np.savez(tmp_path / "rows.npz", user=made.users, item=made.items)
    found = {}
    for name in ("--correction", "--no-correction"):
        run = tmp_path / name
        words = ["train", str(tmp_path / "rows.npz"), *SIDES, name, "--out", str(run)]
        assert main([*words, "--log", "tensorboard"]) == 0
        found[name] = read_json(run / "summary.json")
    recall = found["--correction"]["trained"]["recall_at_10"]
    assert recall > 1.5 * found["--correction"]["baseline"]["recall_at_10"]
    assert recall > 1.5 * found["--no-correction"]["trained"]["recall_at_10"]
    tags = {tag for _, tag, _ in read_scalars(run / "tensorboard")}
    assert {"eval/recall_at_10", "baseline/recall_at_10", "train/loss"} <= tags
    labels = (run / "tensorboard" / "metadata.tsv").read_text().split("\n")
    assert "query 0" in labels
