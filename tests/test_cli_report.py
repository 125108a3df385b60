"""The report of a run: all of it in one file, whatever the classes are called."""

import json
import re
import shutil
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from cli_runs import SMALL, read_json, write_features
from report_pages import HOSTILE, Outline, told_of_features, write_images

from jaxmetric.cli import main
from jaxmetric.cli.report import page as pages
from jaxmetric.cli.report.ending import write_report
from jaxmetric.cli.report.escape import escape, plain, script_json
from jaxmetric.cli.signals import Interrupted

SECTIONS = {
    "metrics",
    "before-after",
    "curves",
    "projection",
    "gallery",
    "distances",
    "confusion",
    "about",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def run(place):
    return write_images(place / "images")


@pytest.fixture(scope="module")
def feature_run(place):
    data = write_features(place / "rows.npz")
    out = place / "features"
    assert main(["train", data, *SMALL, "--steps", "2", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return told_of_features(tmp_path_factory.mktemp("report") / "made")


def read(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    return text, Outline(text)


def test_training_leaves_a_report_of_every_section(run, feature_run):
    for folder in (run, feature_run):
        text, outline = read(folder)
        found = {a["id"] for tag, a in outline.elements if tag == "section"}
        assert found == SECTIONS
        assert len(text) < 3_000_000
        assert "$" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)
        viewport = next(a for _, a in outline.elements if a.get("name") == "viewport")
        assert "width=device-width" in viewport["content"]
        assert "prefers-color-scheme: dark" in text


def test_nothing_is_fetched(run, feature_run):
    for folder in (run, feature_run):
        text, outline = read(folder)
        assert not re.search(r"https?:|url\(|@import|\bfetch\(|\bimport\(", text)
        for tag, attributes in outline.elements:
            for name in ("src", "href", "srcset", "data", "action"):
                value = attributes.get(name, "#")
                assert value.startswith(("data:", "#")), (tag, value[:80])
        policy = next(a for _, a in outline.elements if "http-equiv" in a)
        assert policy["content"].startswith("default-src 'none'")


def test_hostile_names_are_text(run):
    text, outline = read(run)
    for name in HOSTILE:
        assert name not in text
        assert escape(name) in text
    for tag, attributes in outline.elements:
        assert not [a for a in attributes if a.startswith("on")], (tag, attributes)
        assert tag not in ("iframe", "object", "form", "base")
    assert sum(tag == "script" for tag, _ in outline.elements) == 2
    assert any(a.get("alt", "").startswith(HOSTILE[0]) for _, a in outline.elements)
    data = re.search(r'id="points">(.*?)</script>', text, re.S)
    assert data
    assert set(json.loads(data[1])["names"]) == set(HOSTILE)


def test_text_that_cannot_be_stored_or_turns_the_rest_around():
    assert plain("a\udcffb\u202ec\n") == "a?b?c?"
    assert escape("<&'\">") == "&lt;&amp;&#x27;&quot;&gt;"
    hostile = {"a": "</script><!-- & \u2028"}
    text = script_json(hostile)
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == hostile


def test_a_run_of_features_has_no_pictures(feature_run, capsys):
    (feature_run / "report.html").unlink()
    assert main(["report", str(feature_run)]) == 0
    assert capsys.readouterr().out.startswith(str(feature_run / "report.html"))
    text, outline = read(feature_run)
    assert {a["id"] for tag, a in outline.elements if tag == "section"} == SECTIONS
    assert not any(tag == "img" for tag, _ in outline.elements)
    assert "raw features" in text
    summary = read_json(feature_run / "summary.json")
    for block in ("untrained", "pixels", "trained"):
        assert f"{100 * summary[block]['recall_at_1']:.2f} %" in text


def test_a_run_that_was_cut_says_so(feature_run, place):
    cut = place / "cut"
    shutil.copytree(feature_run, cut)
    (cut / "summary.json").unlink()
    assert main(["report", str(cut)]) == 0
    assert "has not finished" in read(cut)[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "nowhere: does not exist"),
        (["rows.npz"], "rows.npz: is a file"),
        (["images"], "images: is no run"),
        ([], "RUN"),
        (["features", "--json"], "--json is no option"),
    ],
)
def test_a_wrong_folder_is_one_line_and_leaves_nothing(
    arguments, expected, place, run, feature_run, monkeypatch, capsys
):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    assert main(["report", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"jaxmetric[^\n]*\n", error), error
    assert expected in error
    assert sorted(place.rglob("*")) == before


def leave_report(folder):
    """Do what `train` does at its end, of a run that is of no matter."""
    program = SimpleNamespace(embed_fn=None)
    prepared = SimpleNamespace(program=program, split=SimpleNamespace(held_out=None))
    write_report(cast(Any, prepared), folder, [], cast(Any, None), {})


def test_a_report_that_cannot_be_made_is_one_line(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("no ink\nat all")

    monkeypatch.setattr("jaxmetric.cli.measure.embedder", fail)
    leave_report(tmp_path)
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"jaxmetric: warning: [^\n]*RuntimeError: no ink\)[^\n]*\n", error
    )
    assert f"jaxmetric report {tmp_path}" in error
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_the_report_is_made_says_that_the_run_is_there(
    tmp_path, monkeypatch
):
    def stop(*_):
        raise Interrupted

    monkeypatch.setattr("jaxmetric.cli.measure.embedder", stop)
    with pytest.raises(Interrupted, match="the run is finished, its report is not"):
        leave_report(tmp_path)


def test_a_calibrated_threshold_is_shown(facts):
    told = facts._replace(calibrated=(facts.pairs.threshold + 0.001, 0.01))
    text = pages.page(told, np.zeros((40, 3)))
    assert "calibrated for 1 % false accepts" in text
    marks = re.findall(r'class="note"[^>]* y="([\d.]+)"[^>]*>([a-z]+)', text)
    assert {word for _, word in marks} == {"equal", "calibrated"}
    assert len({height for height, _ in marks}) == 2


def test_a_sweep_is_shown(facts):
    margins = (0.1, 0.2, 0.4)
    models = [
        {
            "margin": m,
            "learning_rate": 0.01,
            "seed": s,
            "status": "finished",
            "active_fraction": 0.5,
            "loss": 0.25,
            "recall_at_1": 0.5 + m,
            "mean_average_precision_at_r": 0.3 + m + s / 100,
        }
        for s in (0, 1)
        for m in margins
    ]
    models[0] |= {"status": "diverged", "loss": None, "active_fraction": None}
    del models[0]["mean_average_precision_at_r"]
    told = {
        "models": models,
        "varied": {"margin": list(margins), "learning_rate": [0.01], "seed": [0, 1]},
        "best": 5,
        "pixels": {"mean_average_precision_at_r": 0.35},
    }
    text = pages.page(facts._replace(sweep=told), np.zeros((40, 3)))
    outline = Outline(text)
    assert "sweep" in {a.get("id") for _, a in outline.elements}
    assert "best model, 71.0 %" in text
    assert "diverged" in text
    assert "<tr class='strong'><td class='number'>0.4</td>" in text


def test_charts_have_no_number_that_is_none(facts):
    records = [{"step": 1, "kind": "train", "loss": None}]
    text = pages.page(facts._replace(records=records), np.zeros((40, 3)))
    assert "No step was recorded" in text
    records = [
        {"step": s, "kind": "train", "phase": p, "loss": None if s == 5 else 10.0**-s}
        for s, p in zip(range(1, 300), ["softmax"] * 9 + ["metric"] * 290, strict=True)
    ]
    text = pages.page(facts._replace(records=records), np.zeros((40, 3)))
    assert not re.search(r"\b(nan|inf|None)\b", text)
    assert "at step 10" in text
