"""Options: one definition for arguments and files, and the log beside them."""

import dataclasses
import json
from typing import Any

import pytest
import yaml

from jaxmetric.cli import configs, defaults
from jaxmetric.cli.errors import UsageError
from jaxmetric.cli.options import TrainOptions
from jaxmetric.cli.parsing import parse
from jaxmetric.cli.records import Log, encode, read_records
from jaxmetric.cli.run_options import EmbedOptions, EvalOptions


def _parse(*arguments, options: Any = TrainOptions, default=None) -> Any:
    return parse(options, arguments, prog="jaxmetric x", default=default)


def test_no_arguments_are_the_defaults():
    assert _parse() == TrainOptions()


def test_arguments_reach_their_sections():
    options = _parse(
        "rows.npz", "--margin", "0.3", "--batch_classes=4", "--widths", "3", "5"
    )
    assert options.data.data == "rows.npz"
    assert options.loss.margin == 0.3
    assert options.optimization.batch_classes == 4
    assert options.model.widths == (3, 5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--soft"], True),
        (["--soft", "true"], True),
        (["--no-soft"], False),
        (["--soft", "false"], False),
        ([], None),
    ],
)
def test_switches(arguments, expected):
    assert _parse(*arguments).loss.soft is expected


def test_a_switch_takes_no_word_that_is_not_its_own():
    assert _parse("--soft", "rows.npz").data.data == "rows.npz"


def test_auto_takes_back_what_a_file_says():
    base = _parse("--margin", "0.3")
    assert _parse("--margin", "auto", default=base).loss.margin is None


def test_arguments_go_before_what_a_file_says():
    base = _parse("a.npz", "--margin", "0.3", "--dim", "7")
    options = _parse("--margin", "0.1", default=base)
    assert (options.loss.margin, options.model.dim) == (0.1, 7)
    assert options.data.data == "a.npz"


def test_the_other_commands():
    assert _parse("run", options=EvalOptions).data is None
    assert _parse("run", "--json", options=EvalOptions).json
    options = _parse("run", "rows.npz", "-o", "x.npz", options=EmbedOptions)
    assert (options.run, options.data, options.output) == ("run", "rows.npz", "x.npz")


def test_options_survive_the_way_through_a_file(tmp_path):
    arguments = ["--held-out", "1", "007", "--soft", "--learning-rate", "1e-4"]
    options = _parse("rows.npz", *arguments)
    configs.write_config(tmp_path / "c.yaml", configs.to_mapping(options))
    assert configs.read_config(tmp_path / "c.yaml", TrainOptions) == options


def test_numbers_that_yaml_takes_for_text(tmp_path):
    (tmp_path / "c.yaml").write_text("optimization: {learning_rate: 1e-3}")
    options = configs.read_config(tmp_path / "c.yaml", TrainOptions)
    assert options.optimization.learning_rate == 1e-3


def test_a_file_cannot_say_where_the_run_goes(tmp_path):
    (tmp_path / "c.yaml").write_text("out: here")
    with pytest.raises(UsageError, match="'out' is no key"):
        configs.read_config(tmp_path / "c.yaml", TrainOptions)


def test_the_hash_is_of_settings_and_not_of_their_order_or_place():
    config = configs.to_mapping(_parse("a.npz", "--margin", "0.3"))
    moved = configs.to_mapping(_parse("b.npz", "--margin", "0.3", "--out", "x"))
    backwards = {k: dict(reversed(v.items())) for k, v in reversed(moved.items())}
    assert configs.fingerprint(config) == configs.fingerprint(backwards)
    other = configs.to_mapping(_parse("a.npz", "--margin", "0.4"))
    assert configs.fingerprint(config) != configs.fingerprint(other)
    assert configs.difference(config, other) == "loss.margin is 0.3, not 0.4"


@pytest.mark.parametrize("shape", [(8, 8, 1), (35, 35, 3), (50,)])
def test_every_default_of_the_data_is_filled_in(shape):
    options = defaults.fill(TrainOptions(), shape, [9, 9, 9])
    for value in (
        options.loss.name,
        options.model.kind,
        options.model.dim,
        options.optimization.steps,
        options.optimization.learning_rate,
    ):
        assert value is not None
    assert options.optimization.batch_classes == 3
    assert 2 <= (options.optimization.m_per_class or 0) <= 9
    assert yaml.safe_dump(configs.to_mapping(options))


def test_what_the_user_says_stays():
    options = _parse("--epochs", "3", "--dim", "7", "--no-augment", "--loss", "nt_xent")
    filled = defaults.fill(options, (8, 8, 1), [9, 9, 9])
    assert filled.optimization == dataclasses.replace(
        filled.optimization, epochs=3, steps=None
    )
    assert (filled.model.dim, filled.loss.name) == (7, "nt_xent")
    assert filled.augment.shift is None


def test_nan_is_null_and_named():
    record = json.loads(encode({"step": 1, "loss": float("nan"), "x": float("-inf")}))
    assert record == {"step": 1, "loss": None, "x": None, "not_finite": ["loss", "x"]}


def test_a_log_goes_on_after_a_step_and_drops_a_cut_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "kind": "a"}\n{"step": 5}\n\xff{"step": 2}\n{"step": 3,'
    )
    with Log(path, step=4) as log:
        log.write({"step": 4, "kind": "eval", "x": 1})
        assert log.find("eval", 4) == {"x": 1}
        assert log.find("eval", 1) is None
        # Written through: another reader sees it at once.
        assert [r["step"] for r in read_records(path)] == [1, 4]
