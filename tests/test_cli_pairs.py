"""Which pairs of rows are verified, how far apart they are, and their curve."""

import numpy as np
import pytest

from jaxmetric.cli import pairs, roc
from jaxmetric.cli.errors import UsageError


@pytest.mark.parametrize("is_self", [True, False])
@pytest.mark.parametrize("has_groups", [True, False])
def test_few_pairs_are_all_taken(is_self, has_groups):
    random = np.random.default_rng(0)
    labels, others = random.integers(0, 3, 12), random.integers(0, 4, 7)
    groups, ref_groups = random.integers(0, 2, 12), random.integers(0, 2, 7)
    rows = pairs.Rows(
        labels,
        groups if has_groups else None,
        None if is_self else others,
        ref_groups if has_groups and not is_self else None,
    )
    if is_self:
        others, ref_groups = labels, groups
    expected = {
        (i, j, bool(labels[i] == others[j]))
        for i in range(12)
        for j in range(i + 1 if is_self else 0, len(others))
        if not has_groups or labels[i] != others[j] or groups[i] != ref_groups[j]
    }
    found = pairs.choose(rows)
    assert found.are_all
    listed = list(zip(*(column.tolist() for column in found[:3]), strict=True))
    assert len(listed) == len(set(listed)) == len(expected)
    assert set(listed) == expected


@pytest.mark.parametrize("is_self", [True, False])
def test_of_many_pairs_the_rare_kind_is_whole_and_the_other_drawn_evenly(is_self):
    labels = np.repeat(np.arange(30), [2, 4] * 15)
    others = None if is_self else labels[::-1]
    ref = labels if is_self else labels[::-1]
    # 105 (225) same pairs are less than half of 2000, the different ones are more.
    rows = pairs.Rows(labels, ref_labels=others)
    found = pairs.choose(rows, most=2000)
    assert not found.are_all
    same = found.is_same
    assert (labels[found.left] == ref[found.right]).tolist() == same.tolist()
    expected = {
        (i, j)
        for i in range(90)
        for j in range(i + 1 if is_self else 0, 90)
        if labels[i] == ref[j]
    }
    listed = list(zip(found.left[same].tolist(), found.right[same].tolist()))  # noqa: B905
    assert len(listed) == len(expected)
    assert set(listed) == expected
    assert (~same).sum() == 1000
    # Each row is as often on the left as its different partners are many.
    counts = np.zeros((2, 90))
    for seed in range(9):
        drawn = pairs.choose(rows, most=2000, seed=seed)
        for side, of_side in zip((drawn.left, drawn.right), counts, strict=True):
            of_side += np.bincount(side[~drawn.is_same], minlength=90)
    assert abs(counts - 100).max() < 6 * 10


def test_drawn_same_pairs_hold_no_row_twice_and_reach_every_pair():
    labels = np.array([1] * 40 + [0] * 3 + [2])
    found = pairs.choose(pairs.Rows(labels), most=40)
    left, right = found.left[found.is_same], found.right[found.is_same]
    assert (left != right).all()
    assert (labels[left] == labels[right]).all()
    seen = set()
    for seed in range(200):
        found = pairs.choose(pairs.Rows(labels), most=40, seed=seed)
        drawn = np.stack([found.left, found.right])[:, found.is_same]
        seen |= set(map(tuple, np.sort(drawn, axis=0).T.tolist()))
    # 780 + 3 pairs, each missed by 4000 draws with a probability of 0.6 %.
    assert 760 <= len(seen) <= 783


def test_distances_are_measured_in_difference_form():
    x = np.array([[1e3, 0], [1e3, 1e-4]], np.float32)
    found = pairs.Pairs(np.array([0]), np.array([1]), np.array([True]), True)
    assert pairs.distances(found, x) == pytest.approx([1e-4])


LISTS = {
    "words": ("a\tb\t1\n", ":1: must be ROW<tab>ROW<tab>0 or 1, got 'a"),
    "two": ("\n1\t1\n", ":2: must be"),
    "kind": ("1\t1\t2\n", ":1: must be"),
    "negative": ("-1\t1\t1\n", ":1: must be"),
    "fraction": ("0.5\t1\t1\n", ":1: must be"),
    "beyond": ("0\t0\t1\n0\t8\t0\n", ":2: there is no row 8, only 0 to 7"),
    "beyond left": ("9\t0\t1\n", ":1: there is no row 9, only 0 to 8"),
    "one kind": ("0\t1\t1\n", ": holds only pairs of 1"),
    "nothing": ("\n", ": holds no pair"),
    "bytes": ("\udcff", ": cannot be read (it is no text)"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_mistake_in_a_list_of_pairs_is_told_with_its_line(name, tmp_path):
    text, expected = LISTS[name]
    path = tmp_path / "pairs.tsv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError) as told:
        pairs.read_pairs(str(path), 9, 8)
    assert f"--pairs {path}{expected}" in str(told.value)
    assert "\n" not in str(told.value)


def test_the_curve_has_a_point_for_every_distance():
    distances = np.array([3, 1, 2, 2, 5, 4], np.float32)
    is_same = np.array([False, True, True, False, False, True])
    far, tar = roc.curve(distances, is_same)
    assert far.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert tar.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1, 1])


def test_a_long_curve_is_thinned_out_and_keeps_its_ends():
    random = np.random.default_rng(0)
    is_same = random.random(50_000) < 0.3
    distances = random.normal(size=50_000).astype(np.float32) + ~is_same
    far, tar = roc.curve(distances, is_same)
    assert len(far) <= 4001
    assert (np.diff(far) >= 0).all()
    assert (np.diff(tar) >= 0).all()
    assert (far[-1], tar[-1]) == (1, 1)
    full = np.sort(distances[~is_same])
    threshold = full[int(0.01 * len(full)) - 1]
    expected = np.mean(distances[is_same] <= threshold)
    assert np.interp(0.01, far, tar) == pytest.approx(expected, abs=2e-3)
