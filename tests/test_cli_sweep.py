"""Sweeps: models trained at once are those that `train` trains one by one."""

import collections
import json
import os
import signal

import jax
import numpy as np
import pytest
import yaml
from cli_runs import SMALL, read_json, read_lines, write_features, write_images

import jaxmetric as jm
from jaxmetric.cli import main, sweep_figure
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import GridOptions, LossOptions, SweepOptions
from jaxmetric.cli.sweep_encoder import side_by_side
from jaxmetric.cli.sweep_grid import read_grid
from jaxmetric.cli.sweep_program import SweepProgram
from jaxmetric.training import build_encoder, load_run

MAP_AT_R = "mean_average_precision_at_r"
STEPS = ["--steps", "12", "--warmup-epochs", "1", "--loss", "batch_hard"]
GRID = ["--margins", "0.1:0.4:2", "--learning-rates", "1e-3,1e-2", "--seeds", "0,3"]
_compiled = collections.Counter()


def _count(event, duration_secs, **metadata):
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled[metadata.get("fun_name")] += 1


jax.monitoring.register_event_duration_secs_listener(_count)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def data(place):
    return write_features(place / "rows.npz")


@pytest.fixture(scope="module")
def swept(place, data):
    """Return the folder of a sweep of eight models, with a softmax before the loss."""
    before = _compiled["jit(sweep_step)"]
    out = place / "swept"
    assert main(["sweep", data, *SMALL, *STEPS, *GRID, "--out", str(out)]) == 0
    _compiled["in the sweep"] = _compiled["jit(sweep_step)"] - before
    return out


def test_the_folder_of_a_sweep_is_complete(swept, place):
    names = {"sweep.json", "sweep.png", "best"}
    assert {path.name for path in swept.iterdir()} == names
    files = {"config.yaml", "metrics.jsonl", "summary.json", "curves.png"}
    assert files <= {path.name for path in (swept / "best").iterdir()}
    assert not list(place.glob(".unfinished-*"))


def test_one_compilation_of_the_step_a_phase(swept):
    assert _compiled["in the sweep"] == 2


def test_the_results_tell_of_every_model(swept):
    results = read_json(swept / "sweep.json")
    assert results["status"] == "finished"
    assert results["varied"] == {
        "margin": [0.1, 0.4],
        "learning_rate": [0.001, 0.01],
        "seed": [0, 3],
    }
    models = results["models"]
    places = {(m["margin"], m["learning_rate"], m["seed"]) for m in models}
    assert len(models) == len(places) == 8
    for model in models:
        assert model["status"] == "finished"
        assert 0 <= model["active_fraction"] <= 1
        assert 0 <= model["recall_at_1"] <= 1
        assert model["skipped_steps"] == 0
    assert models[results["best"]][MAP_AT_R] == max(m[MAP_AT_R] for m in models)
    # They are not one model eight times.
    assert len({m["loss"] for m in models}) == 8


def test_the_best_is_a_run_like_any_other(swept, data, place, capsys):
    results = read_json(swept / "sweep.json")
    best, run = results["models"][results["best"]], swept / "best"
    capsys.readouterr()
    assert main(["eval", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[MAP_AT_R] == best[MAP_AT_R]
    out = place / "embeddings.npz"
    assert main(["embed", str(run), data, "-o", str(out)]) == 0
    _, params, _, config = load_run(run)
    assert config["loss"]["margin"] == best["margin"]
    assert config["optimization"]["learning_rate"] == best["learning_rate"]
    assert config["run"]["seed"] == best["seed"]
    summary = read_json(run / "summary.json")
    assert summary["sweep"]["models"] == 8
    assert summary["sweep"]["chosen"]["margin"] == best["margin"]
    assert summary["trained"][MAP_AT_R] == best[MAP_AT_R]
    assert summary["parameters_sha256"]
    records = read_lines(run / "metrics.jsonl")
    steps = [r["step"] for r in records if r["kind"] == "train"]
    assert steps == list(range(1, summary["steps"] + 1))
    assert main(["train", "--resume", str(run)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert jax.tree.leaves(params)


def _difference(run, other):
    """Return how far the parameters of two runs are from each other."""
    trees = [load_run(path)[1] for path in (run, other)]
    gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), *trees)
    return max(jax.tree.leaves(gaps))


def test_train_makes_the_same_model_of_its_configuration(swept, place):
    config, out = str(swept / "best" / "config.yaml"), place / "alone"
    assert main(["train", "--config", config, "--out", str(out)]) == 0
    assert _difference(swept / "best", out) < 1e-5
    ours, theirs = (read_json(p / "summary.json") for p in (swept / "best", out))
    assert ours["untrained"] == theirs["untrained"]
    assert ours["trained"][MAP_AT_R] == pytest.approx(theirs["trained"][MAP_AT_R])
    records = [read_lines(p / "metrics.jsonl") for p in (swept / "best", out)]
    losses = [[r["loss"] for r in rs if r["kind"] == "train"] for rs in records]
    np.testing.assert_allclose(*losses, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("together", [pytest.param("2", marks=pytest.mark.slow), "64"])
def test_models_that_are_computed_together_are_the_same(swept, data, place, together):
    out = place / f"together-{together}"
    turns = ["--together", together, "--out", str(out)]
    assert main(["sweep", data, *SMALL, *STEPS, *GRID, *turns]) == 0
    ours, theirs = (read_json(p / "sweep.json")["models"] for p in (swept, out))
    for a, b in zip(ours, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a[MAP_AT_R] == pytest.approx(b[MAP_AT_R], abs=0.02)


@pytest.mark.slow
def test_seeds_are_spread_over_devices_as_points_are(swept, data, place):
    """Nine seeds on eight devices: five have two each, and one of these is a filler."""
    out = place / "seeds"
    seeds = ["--margins", "0.4", "--learning-rate", "1e-2", "--seeds", "0:8:9"]
    assert main(["sweep", data, *SMALL, *STEPS, *seeds, "--out", str(out)]) == 0
    ours, theirs = (read_json(p / "sweep.json")["models"] for p in (swept, out))
    assert [m["seed"] for m in theirs] == list(range(9))
    for a in ours:
        if (a["margin"], a["learning_rate"]) == (0.4, 1e-2):
            b = theirs[a["seed"]]
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
            assert a[MAP_AT_R] == pytest.approx(b[MAP_AT_R], abs=0.02)


@pytest.mark.slow
def test_images_and_other_numbers_of_the_loss(place):
    """Convolutions side by side give what `train` gives, to rounding."""
    images, out, alone = write_images(place / "bars.npz"), place / "bars", place / "bar"
    options = ["--widths", "4", "--dim", "4", "--steps", "3", "--m-per-class", "3"]
    vary = ["--loss", "angular", "--vary", "alpha=30,45", "--seeds", "1"]
    assert main(["sweep", images, *options, *vary, "--out", str(out)]) == 0
    assert (out / "best" / "gallery.png").exists()
    config = yaml.safe_load((out / "best" / "config.yaml").read_text())
    assert config["loss"]["alpha"] in (30, 45)
    path = str(out / "best" / "config.yaml")
    assert main(["train", "--config", path, "--out", str(alone)]) == 0
    assert _difference(out / "best", alone) < 1e-5


@pytest.mark.parametrize(
    ("shape", "widths"),
    [
        pytest.param((8, 8, 1), (4,), marks=pytest.mark.slow),
        ((4, 3, 2), (4,)),
        pytest.param((7, 10, 3), (5, 6), marks=pytest.mark.slow),
    ],
)
def test_the_encoder_side_by_side_is_that_of_the_run(shape, widths):
    model = {"kind": "conv", "input_shape": list(shape), "dim": 6}
    model["widths"] = list(widths)
    embed_fn, params, state = build_encoder(model, seed=1)
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    images[0] = 7  # A blank one.
    arguments = (params, state, images)

    @jax.jit
    def both(*arguments):
        ours = side_by_side(model, embed_fn)
        return [f(*arguments, key=None, train=False)[0] for f in (embed_fn, ours)]

    expected, found = both(*arguments)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_diverged_model_is_told_and_the_others_go_on(data, place, capsys):
    out = place / "diverged"
    options = [*SMALL, "--steps", "20", "--margins", "0.2", "--out", str(out)]
    assert main(["sweep", data, *options, "--learning-rates", "1e-3,3e38"]) == 0
    assert "1 of 2 models diverged" in capsys.readouterr().out
    good, bad = read_json(out / "sweep.json")["models"]
    assert (good["status"], bad["status"]) == ("finished", "diverged")
    assert good[MAP_AT_R] > 0
    assert MAP_AT_R not in bad
    assert bad["skipped_steps"] >= 10


def test_a_sweep_without_a_survivor_ends_with_one_and_keeps_its_numbers(
    data, place, capsys
):
    out = place / "lost"
    options = [*SMALL, "--steps", "20", "--margins", "0.2,0.3", "--out", str(out)]
    assert main(["sweep", data, *options, "--learning-rates", "3e38"]) == 1
    assert "in all 2 models" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["sweep.json"]
    assert read_json(out / "sweep.json")["status"] == "diverged"


def test_an_interrupted_sweep_leaves_nothing(data, place, monkeypatch, capsys):
    batch = SweepProgram.batch

    def interrupt(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(SweepProgram, "batch", interrupt)
    before, out = sorted(os.listdir(place)), place / "interrupted"
    options = [*SMALL, "--steps", "20", "--margins", "0.2", "--out", str(out)]
    assert main(["sweep", data, *options]) == 130
    error = capsys.readouterr().err
    assert "stopped after 4 of 20 steps; nothing was written." in error
    assert sorted(os.listdir(place)) == before


MISTAKES = {
    "count": (["--margins", "0.1:1"], "--margins cannot be read, got '0.1:1'"),
    "number": (["--margins", "0.1,wide"], "--margins cannot be read"),
    "empty": (["--margins", "0.1:1:0"], "--margins cannot be read"),
    "twice": (["--margins", "0.1,0.2,0.1"], "has 0.1 more than once"),
    "negative": (["--margins=-0.1,0.2"], "--margin must not be negative, got -0.1"),
    "nan": (["--margins", "nan"], "--margin must be a finite number"),
    "cosine": (["--margins", "3", "--distance", "cosine"], "must be at most 2"),
    "fixed": (["--margins", "0.1", "--margin", "0.2"], "--margin is fixed and varied"),
    "soft": (["--margins", "0.1", "--soft"], "has no effect with --soft"),
    "foreign": (["--temperatures", "0.1"], "has no number temperature"),
    "vary": (["--vary", "margin"], "--vary must be NAME=VALUES, got 'margin'"),
    "vary twice": (["--vary", "margin=1", "--margins", "1"], "margin is given twice"),
    "vary name": (["--vary", "margn=1"], "Did you mean margin?"),
    "vary flag": (["--vary", "soft=1"], "has no number soft"),
    "rate": (["--learning-rates", "0,1"], "--learning-rates must be finite numbers"),
    "rates": (
        ["--learning-rates", "1", "--learning-rate", "1"],
        "--learning-rate and --learning-rates exclude each other",
    ),
    "seed": (["--seeds", "0.5"], "--seeds must be whole numbers"),
    "seed option": (["--seed", "1"], "Did you mean --seeds?"),
    "many": (["--margins", "0:1:1000", "--seeds", "0:19:20"], "has 20,000 models"),
    "together": (["--together", "0"], "--together must be at least 1, got 0"),
    "nothing": (["--loss", "nt_xent"], "nothing is varied"),
    "steps": (["--steps", "0"], "--steps must be at least 1, got 0"),
    "out": (["--out", "rows.npz"], "--out rows.npz: exists already. Choose another"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    name, place, data, monkeypatch, capsys
):
    arguments, expected = MISTAKES[name]
    monkeypatch.chdir(place)
    before = sorted(os.listdir(place))
    loss = [] if "--loss" in arguments else ["--loss", "batch_hard"]
    assert main(["sweep", data, *SMALL, *loss, *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("jaxmetric")
    assert error.count("\n") == 1
    assert expected in error
    assert sorted(os.listdir(place)) == before


def test_a_grid_is_every_combination():
    grid = GridOptions(margins="0.1:0.4:4", learning_rates="1e-3,1e-2", seeds="4:6:3")
    options = SweepOptions(grid=grid)
    found = read_grid(options, "semi-hard")
    assert found.seeds == (4, 5, 6)
    assert found.varied == {"margin": (0.1, 0.2, 0.3, 0.4)}
    assert found.num_models == 24
    assert [(p.hyper["margin"], p.learning_rate) for p in found.points[:3]] == [
        (0.1, 1e-3),
        (0.1, 1e-2),
        (0.2, 1e-3),
    ]


def test_margins_are_varied_where_nothing_else_is():
    assert len(read_grid(SweepOptions(), "batch_all").points) == 16
    rates = SweepOptions(grid=GridOptions(learning_rates="1e-3,1e-2"))
    assert read_grid(rates, "batch_all").varied == {}
    with pytest.raises(UsageError, match="nothing is varied"):
        read_grid(SweepOptions(), "nt_xent")
    loss = LossOptions(name="batch_all", soft=True)  # pyright: ignore[reportCallIssue]
    with pytest.raises(UsageError, match="nothing is varied"):
        read_grid(SweepOptions(loss=loss), "batch_all")


def _model(margin, rate, seed, value, active: float | None = 0.5):
    names: dict = {"margin": margin, "learning_rate": rate, "seed": seed}
    return names | {MAP_AT_R: value, "active_fraction": active}


PICTURES = {
    "one": ([_model(0.2, 1e-3, 0, 0.5)], []),
    "seeds": ([_model(0.2, 1e-3, s, 0.5 + s / 10) for s in range(3)], []),
    "grid": (
        [
            _model(m, r, s, m + s / 9)
            for m in (0.1, 9)
            for r in (1e-3, 1)
            for s in (0, 1)
        ],
        ["margin", "learning_rate"],
    ),
    "gaps": ([_model(0.1, 1, 0, None, None), _model(0.2, 1, 0, 0.3, None)], ["margin"]),
    "many lines": (
        [_model(m, r, 0, m * r) for m in range(20) for r in range(14)],
        ["margin", "learning_rate"],
    ),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("raw", [None, 0.45, -9.0])
def test_the_picture_is_drawn_whatever_the_grid(name, raw, tmp_path):
    models, varied = PICTURES[name]
    path = tmp_path / "sweep.png"
    sweep_figure.write_sweep(path, models, varied=varied, raw=raw)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.png"]


def test_help_tells_the_grammar(capsys):
    assert main(["sweep", "--help"]) == 0
    assert "START:STOP:COUNT" in capsys.readouterr().out
    assert jm.training.population
