"""The benchmarks at sizes where they take no time, so that they cannot rot."""

import jax
import numpy as np
import pytest

from benchmarks import exactness, harness, memory, results, specs
from benchmarks.__main__ import TOPICS, main
from benchmarks.bench_memory import slope
from benchmarks.harness import Contestant
from benchmarks.measuring import Race
from benchmarks.programs import Program
from benchmarks.settings import Settings

ROWS, DIM = specs.REDUCED_BATCH, specs.REDUCED_DIM


@pytest.fixture
def settings():
    device = jax.devices("cpu")[0]
    return Settings(device=device, samples=2, seconds=0.0, has_memory=False)


@pytest.mark.parametrize("name", specs.WORKLOADS)
def test_workloads_are_unit_rows_and_a_function_of_their_size(name):
    first, again = (specs.WORKLOADS[name].make(ROWS, DIM) for _ in range(2))
    assert first.embeddings.shape == (ROWS, DIM)
    assert first.embeddings.dtype == np.float32
    assert first.labels.dtype == np.int32
    norms = np.linalg.norm(first.embeddings.astype(np.float64), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)
    np.testing.assert_array_equal(first.embeddings, again.embeddings)
    np.testing.assert_array_equal(first.labels, again.labels)


def test_duplicates_are_bitwise_and_of_any_class():
    made = specs.WORKLOADS["duplicates"].make(ROWS, DIM)
    assert len(np.unique(made.embeddings, axis=0)) == ROWS - ROWS // 4


def test_counts_of_pairs_and_triplets_are_those_of_a_loop():
    made = specs.WORKLOADS["long_tailed"].make(ROWS, DIM)
    positive = made.labels[:, None] == made.labels[None, :]
    np.fill_diagonal(positive, False)
    negative = made.labels[:, None] != made.labels[None, :]
    assert made.num_positives == positive.sum()
    assert made.num_triplets == (positive.sum(1) * negative.sum(1)).sum()
    assert made.m_per_class == np.unique(made.labels, return_counts=True)[1].max()


def test_every_headline_is_a_row_loss():
    assert set(specs.headlines()) <= set(specs.row_losses())
    assert "triplet_loss" not in specs.row_losses()


@pytest.mark.parametrize("function", specs.headlines())
def test_losses_agree_with_float64_on_every_workload(function):
    compiled = jax.jit(Program(function, ROWS, DIM).build())
    for name, workload in specs.WORKLOADS.items():
        batch = workload.make(ROWS, DIM)
        expected = exactness.reference(function, batch)
        value, gradient = compiled(*batch)
        found = exactness.errors(value, gradient, expected)
        assert found.value < 1e-5, name
        assert found.gradient < 1e-5, name
        assert found.rows_other == 0, name


def test_errors_tell_a_wrong_value_from_a_wrong_row():
    gradient = np.ones((4, 2))
    expected = exactness.Reference(2.0, gradient, "numpy")
    assert exactness.errors(2.0, gradient, expected) == (0, 0, 0)
    off = gradient.copy()
    off[0, 0] += 1e-4
    off[1] = 0
    found = exactness.errors(2.1, off, expected)
    assert found.value == pytest.approx(0.05)
    assert found.gradient == pytest.approx(1e-4)
    assert found.rows_other == 1
    assert exactness.errors(np.nan, off * np.nan, expected).rows_other == 4


def test_contestants_take_turns_between_the_yardsticks():
    turns = []
    names = ["first", "a", "b", "last"]
    first, a, b, last = (Contestant(n, lambda n=n: turns.append(n)) for n in names)
    harness.interleave([a, b], yardsticks=(first, last), samples=3, seconds=9)
    # The first round warms up.
    assert turns == names * 4
    assert [len(c.wall) for c in (first, a, b, last)] == [3] * 4
    ones = harness.ratio(a, a)
    assert ones is not None
    assert ones["median"] == 1


def test_a_slow_contestant_leaves_early_and_is_compared_where_it_ran():
    slow, fast = Contestant("slow", lambda: None), Contestant("fast", lambda: None)
    harness.interleave([slow], yardsticks=(fast,), samples=9, seconds=0, at_least=2)
    assert slow.rounds == [0, 1]
    slow.wall, fast.wall, fast.rounds = [4.0, 6.0], [1.0, 2.0, 9.0], [0, 1, 2]
    slow.cpu = fast.cpu = [1.0]
    quotients = {"median": 3.5, "min": 3.0, "max": 4.0, "cpu": 1.0}
    assert harness.ratio(slow, fast) == quotients


def test_a_peer_that_gives_another_number_is_not_timed(settings):
    race = Race(settings, "peers", workload="pk4", batch=ROWS, dim=DIM)
    race.add("optax_ntxent", judge="supervised_contrastive_loss")
    *_, result = race.run()
    assert result.status.startswith("not timed: gives")
    assert result.gradient is None


def test_a_peer_that_needs_too_much_memory_is_refused():
    device = jax.devices("cpu")[0]
    small = Settings(
        device=device, samples=2, seconds=0.0, has_memory=False, memory_limit=1000
    )
    race = Race(small, "peers", workload="pk4", batch=ROWS, dim=DIM)
    entrant = race.add("naive_batch_all", judge="batch_all_triplet_loss")
    ours = race.add("contrastive_loss", judge="contrastive_loss")
    yardstick, *_ = race.run()
    assert entrant.result.status == "needs 0.0 GiB, the limit is 0.0 GiB"
    assert yardstick.status == entrant.result.status
    assert entrant.result.gradient is None
    assert ours.result.gradient is not None
    assert ours.result.gradient_ratio is None


def test_temporaries_are_seen_in_another_process():
    device = jax.devices("cpu")[0]
    asked = [Program("contrastive_loss", 256, DIM), Program("no_such_loss", 8, DIM)]
    temp, failed = memory.temp_bytes(asked, device)
    assert temp is not None
    # The gradient of one block holds the matrix once at least.
    assert temp >= 4 * 256**2
    assert failed is None


def test_slope_is_the_exponent():
    assert slope([2, 4, 8], [5 * n**1.5 for n in (2, 4, 8)]) == pytest.approx(1.5)


_TINY = {
    "losses": "--sizes 16 --functions contrastive_loss,batch_hard_triplet_loss",
    "classes": "--sizes 16",
    "workloads": "--sizes 16 --functions contrastive_loss --workloads one_class",
    "peers": "--sizes 16 --functions nt_xent_loss",
    "blocks": "--sizes 32 --functions contrastive_loss",
    "memory": "--sizes 16,128 --functions contrastive_loss",
    "margins": "--sizes 16 --functions batch_hard_triplet_loss",
    "retrieval": "--sizes 40",
    "population": "--sizes 2 --functions mlp",
    "step": "--sizes 6",
    "quality": "--data synthetic --limit-seconds 0.01",
}
# Networks compile for long; the memory of a process has its own test.
_SLOW = {"classes", "memory", "population", "step", "quality"}


@pytest.mark.parametrize(
    "topic",
    [
        pytest.param(topic, marks=[pytest.mark.slow] if topic in _SLOW else [])
        for topic in TOPICS
    ],
)
def test_every_topic_runs_prints_and_keeps_its_results(topic, tmp_path, capsys):
    out = tmp_path / "results" / "cpu.jsonl"
    options = f"--only {topic} --dims 8 --samples 2 --seconds 0 --out {out}"
    no_memory = "" if topic == "memory" else "--no-memory"
    assert main([*options.split(), *no_memory.split(), *_TINY[topic].split()]) == 0
    kept = results.read(out)
    found = kept.of(topic)
    assert found
    printed = capsys.readouterr().out
    for result in found:
        assert result.function in printed
        is_measured = result.status == "ok"
        assert is_measured or result.status.startswith(("not timed", "stopped"))
        environment = kept.environments[result.key]
        assert environment["versions"]["jax"] == jax.__version__
        assert environment["cores"] >= 1
        assert len(environment["load"]) == 3


def test_unknown_topics_are_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "loses"])
    assert "unknown: loses (choose from losses," in capsys.readouterr().err
