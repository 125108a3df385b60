"""The numbers of a report: those that a loop over the rows gives."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from report_pages import overlapping, told_of_features

from jaxmetric.cli.report import pairs as pairs_module
from jaxmetric.cli.report.confusion import confuse
from jaxmetric.cli.report.pairs import measure_pairs
from jaxmetric.cli.report.projection import project
from jaxmetric.cli.report.thumbnails import Thumbnails


@pytest.fixture(scope="module")
def embedded():
    return overlapping()


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return told_of_features(tmp_path_factory.mktemp("report") / "made")


def ranked(x, labels):
    """Return [n, n - 1] other rows, nearest first, and whether each is right."""
    distances = np.linalg.norm(x[:, None] - x, axis=-1)
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1)[:, :-1]
    return order, labels[order] == labels[:, None]


def map_at_r(is_right):
    """Return the MAP@R of each row."""
    ranks = 1 + np.arange(is_right.shape[1])
    total = is_right.sum(axis=1, keepdims=True)
    precision = np.cumsum(is_right, axis=1) / ranks
    return (precision * is_right * (ranks <= total)).sum(axis=1) / total[:, 0]


def test_metrics_are_means_over_the_queries(facts, embedded):
    _, is_right = ranked(*embedded)
    expected = {
        "recall_at_1": is_right[:, 0].mean(),
        "recall_at_4": is_right[:, :4].any(axis=1).mean(),
        "mean_average_precision_at_r": map_at_r(is_right).mean(),
    }
    assert len(facts.metrics) == 8
    for name, value in expected.items():
        assert facts.metrics[name].value == pytest.approx(value, abs=1e-6)
    for found in facts.metrics.values():
        assert found.low <= found.value <= found.high
        assert found.high - found.low > 0.01
    assert facts.num_queries == 40


def test_the_worst_queries_come_first(facts, embedded):
    x, labels = embedded
    orders, all_right = ranked(x, labels)
    scores = map_at_r(all_right)
    told = [q.score for q in facts.queries]
    assert told == sorted(told)
    assert told[0] == pytest.approx(scores.min())
    assert len(told) == 10
    for query in facts.queries:
        order, is_right = orders[query.row], all_right[query.row]
        assert [n.row for n in query.neighbors] == order[:6].tolist()
        assert query.first_right == is_right.argmax() + 1
        assert [n.is_right for n in query.neighbors] == is_right[:6].tolist()
        assert query.label == "abcde"[labels[query.row]]


def test_pairs_are_counted_by_kind(embedded):
    x, labels = embedded
    pairs = measure_pairs(x, labels)
    assert pairs is not None
    i, j = np.triu_indices(40, 1)
    d, is_same = np.linalg.norm(x[i] - x[j], axis=1), labels[i] == labels[j]
    assert (pairs.num_same, pairs.num_different) == (is_same.sum(), (~is_same).sum())
    assert pairs.same.sum() == pytest.approx(1)
    centres = (pairs.edges[1:] + pairs.edges[:-1]) / 2
    assert pairs.same @ centres == pytest.approx(d[is_same].mean(), abs=0.05)
    refused = (d[is_same] > pairs.threshold).mean()
    accepted = (d[~is_same] <= pairs.threshold).mean()
    assert refused == pytest.approx(accepted, abs=0.02)
    assert pairs.rates["eer"] == pytest.approx(accepted, abs=0.02)
    assert measure_pairs(x[:8], labels[:8]) is None
    assert measure_pairs(x[::8], labels[::8]) is None


def test_many_pairs_are_drawn_alike():
    # Classes of 2 to 400 rows: every same pair is equally likely, so the largest has
    # nearly all of them.
    sizes = np.array([2, 30, 400, 300])
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), sizes))
    x = labels[:, None].astype(np.float32)
    pairs = measure_pairs(np.concatenate([x, x], axis=1), labels)
    assert pairs is not None
    assert pairs.num_same == pairs.num_different > 100_000
    assert pairs.same[0] == 1
    assert pairs.rates["eer"] == 0
    assert 0 < pairs.threshold < 1.5
    first, second = pairs_module._same(labels, np.random.default_rng(1))
    assert (first != second).all()
    assert (labels[first] == labels[second]).all()
    shares = np.bincount(labels[first], minlength=4) / len(first)
    expected = sizes * (sizes - 1) / (sizes * (sizes - 1)).sum()
    np.testing.assert_allclose(shares, expected, atol=0.01)


def test_mistaken_classes_are_counted():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2], np.int32)
    nearest = np.array([3, 4, 1, 0, 4, 6, 5, 0])
    found = confuse(labels, ("x", "y", "z"), nearest)
    told = [(m.label, m.taken_for, m.count, m.size) for m in found.mistakes]
    assert told == [("x", "y", 2, 3), ("y", "x", 1, 2), ("z", "x", 1, 3)]
    assert found.labels == ("x", "y", "z")
    assert found.counts.tolist() == [[1, 2, 0], [1, 1, 0], [1, 0, 2]]
    assert (found.num_wrong, found.num_queries) == (4, 8)
    assert (found.mistakes[0].row, found.mistakes[0].other_row) == (0, 3)
    nothing = confuse(labels, ("x", "y", "z"), np.arange(8))
    assert nothing.mistakes == ()
    assert nothing.counts.shape == (0, 0)


def test_the_projection_keeps_distances_of_a_plane():
    random = np.random.default_rng(0)
    plane = random.normal(size=(50, 2))
    turn = np.linalg.qr(random.normal(size=(6, 6)))[0][:2]
    found = project(
        (plane @ turn).astype(np.float32), np.zeros(50, int), np.ones(50) > 0
    )
    assert found.share == pytest.approx(1)
    assert np.abs(found.places).max() == pytest.approx(1)
    before = np.linalg.norm(plane[found.rows, None] - plane[found.rows], axis=-1)
    after = np.linalg.norm(found.places[:, None] - found.places, axis=-1)
    np.testing.assert_allclose(after / after.max(), before / before.max(), atol=1e-5)


@pytest.mark.parametrize("rows_of_a_class", [1, 20, 9000])
def test_large_data_shows_some_classes_whole(rows_of_a_class):
    labels = np.arange(9000) // rows_of_a_class
    x = np.random.default_rng(0).normal(size=(9000, 3)).astype(np.float32)
    found = project(x, labels, np.ones(9000, bool))
    assert 1900 < len(found.rows) <= 2000
    if rows_of_a_class == 20:
        assert set(np.bincount(found.classes)) == {0, 20}


@pytest.mark.parametrize("dim", [1, 2])
def test_rows_in_one_place_can_be_projected(dim):
    found = project(np.ones((4, dim), np.float32), np.zeros(4, int), np.ones(4, bool))
    assert (found.places == 0).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_thumbnails_stay_small_and_keep_their_places(channels, dtype, monkeypatch):
    random = np.random.default_rng(0)
    inputs = random.integers(0, 256, (50, 20, 60, channels)).astype(dtype)
    monkeypatch.setattr("jaxmetric.cli.report.thumbnails._MOST_BYTES", 6_000)
    sprite = Thumbnails(inputs, np.arange(50)).sprite(np.arange(50))
    assert len(sprite.uri) < 8_100
    assert sprite.columns * sprite.lines >= 50
    picture = base64.b64decode(sprite.uri.partition(",")[2])
    size = (sprite.columns * sprite.width, sprite.lines * sprite.height)
    assert Image.open(io.BytesIO(picture)).size == size
    assert sprite.width == pytest.approx(3 * sprite.height, abs=3)
