"""Result files: reading, comparing, the goals and the table of the README."""

import dataclasses
from pathlib import Path

import pytest

from benchmarks import compare, plots, results, tables, targets
from benchmarks.results import Result

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    "kind": "environment",
    "device": "a processor, 2 cores",
    "versions": {"jax": "0.10", "torch": "2.13"},
}


def spread(median, *, around=0.1):
    return {
        "median": median,
        "min": median * (1 - around),
        "max": median * (1 + around),
        "cpu": median,
    }


def loss_result(function="batch_hard_triplet_loss", batch=4096, *, ratio=0.9, **values):
    return Result(
        "losses",
        function,
        batch,
        128,
        workload="pk4",
        forward=spread(0.02),
        gradient=spread(0.05),
        forward_ratio=spread(ratio / 2),
        gradient_ratio=spread(ratio),
        temp_bytes=3 * 2**20,
        **values,
    )


def peer_result(function, batch, *, over=None, status="ok"):
    extra = {} if over is None else {"gradient_over_ours": spread(over)}
    return Result("peers", function, batch, 128, "pk4", status=status, extra=extra)


@pytest.fixture
def write(tmp_path):
    def to_file(*found, name="cpu.jsonl"):
        lines = [results.environment_line(ENVIRONMENT), *(r.to_json() for r in found)]
        results.append(tmp_path / name, lines)
        return tmp_path / name

    return to_file


def test_results_come_back_with_their_environment(write):
    result = loss_result(extra={"slope": 1.0})
    kept = results.read(write(result))
    assert kept.results == {result.key: result}
    assert kept.environments[result.key]["device"] == "a processor, 2 cores"


def test_the_later_of_two_results_counts(write):
    old, new = loss_result(ratio=2.0), loss_result(ratio=1.0)
    write(old)
    path = write(new)
    assert results.read(path).of("losses") == [new]
    other = write(old, name="other.jsonl")
    assert results.read(path, other).of("losses") == [old]


def test_nothing_has_moved_inside_the_spread(write, capsys):
    old = write(loss_result(ratio=1.0), name="old.jsonl")
    new = write(loss_result(ratio=1.05), name="new.jsonl")
    assert compare.main([str(old), str(new)]) == 0
    assert "1 in both files, 0 moved" in capsys.readouterr().out


def test_what_moved_beyond_the_spread_is_flagged(write, capsys):
    old = write(loss_result(ratio=1.0), name="old.jsonl")
    new = write(loss_result(ratio=1.5), name="new.jsonl")
    assert compare.main([str(old), str(new)]) == 1
    printed = capsys.readouterr().out
    assert "worse   losses batch_hard_triplet_loss pk4 B=4096 D=128" in printed
    assert "fwd+grad" in printed
    assert "(1.50 x)" in printed
    assert compare.main([str(new), str(old)]) == 0
    assert "better" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"temp_bytes": 4 * 2**20}, "memory"),
        ({"error_gradient": 1e-2}, "error grad"),
        ({"status": "does not compile"}, "status"),
    ],
)
def test_memory_errors_and_statuses_are_compared(write, capsys, changed, what):
    before = dataclasses.replace(loss_result(), error_gradient=1e-7)
    old = write(before, name="old.jsonl")
    new = write(dataclasses.replace(before, **changed), name="new.jsonl")
    assert compare.main([str(old), str(new)]) == 1
    assert f"  {what}: " in capsys.readouterr().out


def test_targets_say_what_is_met_missed_and_not_measured(write, capsys):
    path = write(
        loss_result(ratio=0.9),
        loss_result("batch_all_triplet_loss", ratio=3.5),
        peer_result("pml_all_triplets", 1024, over=120.0),
    )
    assert targets.main([str(path)]) == 1
    rows = capsys.readouterr().out.splitlines()
    row = {line.split(" | ")[0].removeprefix("| "): line for line in rows}
    assert "| met |" in row["batch_hard_triplet, B=4096"]
    assert "| MISSED |" in row["batch_all_triplet, B=4096"]
    assert "| met |" in row["pml_all_triplets over ours, B=1024"]
    assert "| not measured |" in row["semi_hard_triplet, B=4096"]


def test_every_target_is_found_in_the_result_that_is_meant_for_it(write):
    over_one = {"forward_over_one": spread(10.0)}
    models = {"over_one": spread(7.0)}
    resident = {"resident_bytes": 2**28, "slope": 1.02}
    batch_all, pk8 = "batch_all_triplet_loss", {"workload": "pk8", "temp_bytes": 2**28}
    tens = {"workload": "ten_classes", "forward": spread(20.0)}
    classes = dataclasses.replace(
        loss_result(batch_all, 2048, ratio=50.0), topic="classes", workload="few_large"
    )
    found = [loss_result(name, ratio=0.9) for name in targets_of_losses()] + [
        classes,
        peer_result("pml_all_triplets", 1024, over=200.0),
        peer_result("pml_batch_hard", 1024, over=8.0),
        peer_result("pml_supcon", 2048, over=6.0),
        Result("margins", batch_all, 512, 128, "pk4", num_margins=64, extra=over_one),
        Result("population", "conv", 128, 64, num_margins=16, extra=models),
        Result("memory", batch_all, 16384, 128, temp_bytes=2**28, extra=resident),
        Result("retrieval", "evaluate", 60_000, 128, extra=resident, **pk8),
        Result("retrieval", "evaluate", 20_000, 64, **tens),
    ]
    file = results.read(write(*found))
    for target in targets.targets():
        value = target.measure(file)
        assert value is not None, target.figure
        assert target.is_met(value), target.figure


def targets_of_losses():
    return (
        "batch_hard_triplet_loss",
        "batch_all_triplet_loss",
        "semi_hard_triplet_loss",
        "supervised_contrastive_loss",
        "nt_xent_loss",
        "multi_similarity_loss",
        "contrastive_loss",
    )


def test_the_table_has_times_ratios_memory_and_peers(write):
    file = results.read(
        write(
            loss_result(batch=1024, ratio=2.0),
            loss_result(batch=4096, ratio=0.9),
            loss_result("nt_xent_loss", batch=4096, ratio=3.0),
            peer_result("pml_batch_hard", 1024, over=8.0),
            peer_result("pml_nt_xent", 256, over=30.0),
            peer_result("pml_nt_xent", 1024, status="needs 72.0 GiB, the limit is 8"),
        )
    )
    header, _, hard, softmax, _, caption = tables.markdown(file).splitlines()
    assert header.startswith("| loss | B = 1024 | x `x @ x.T` | B = 4096 |")
    assert hard == (
        "| `batch_hard_triplet_loss` | 50 ms | 2 (1.8..2.2) | 50 ms | 0.9 (0.81..0.99) "
        "| 3 MiB | pytorch-metric-learning 8 x (B = 1024) |"
    )
    assert softmax.endswith(
        "| pytorch-metric-learning 30 x (B = 256); needs 72.0 GiB at 1024 |"
    )
    assert "a processor, 2 cores, jax 0.10, torch 2.13." in caption


def test_the_table_replaces_what_is_between_the_marks():
    readme = f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n"
    expected = f"before\n{tables.BEGIN}\nnew \\1\n{tables.END}\nafter\n"
    assert tables.replaced(readme, "new \\1") == expected
    with pytest.raises(ValueError, match="must have the lines"):
        tables.replaced("nothing", "new")


def test_readme_is_up_to_date():
    path, readme = ROOT / "benchmarks/results/cpu.jsonl", ROOT / "README.md"
    if not path.exists() or tables.BEGIN not in readme.read_text():
        pytest.skip("no result file or no marks in the README")
    text = readme.read_text()
    assert tables.replaced(text, tables.markdown(results.read(path))) == text


def test_plots_are_drawn_of_what_is_there(write, tmp_path):
    pytest.importorskip("matplotlib")
    margin = Result(
        "margins", "batch_all_triplet_loss", 512, 128, num_margins=4, forward=spread(1)
    )
    found = [loss_result(batch=1024), loss_result(batch=4096), margin]
    written = plots.draw(results.read(write(*found)), tmp_path / "plots")
    assert [path.name for path in written] == ["time.png", "memory.png", "margins.png"]
    assert all(path.stat().st_size > 1000 for path in written)
