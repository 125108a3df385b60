"""The planting of mistakes: which mutants there are; none is run here."""

import ast

from tests import mutation_operators, mutation_targets, mutations

SOURCE = '''
"""A module."""

WIDTH = 3 - 1


def loss(x: "int | float", *, where=None) -> "int | None":
    """Return a - b of a < b & c."""
    assert x < 1
    if x <= 0:
        raise ValueError("must be " + f"{x - 1}")
    kept = where & (x > 0)
    terms = jnp.where(kept, a - b, 0)
    mask &= ~valid
    return _rows.poisoned(jnp.mean(terms, -1, where=kept), -inf)
'''


def test_each_mistake_is_planted_once():
    found = mutation_operators.mutants("a/b.py", SOURCE)
    told = {(m.line, m.operator, m.before, m.after) for m in found}
    terms = "jnp.where(kept, a - b, 0)"
    mean = "jnp.mean(terms, -1, where=kept)"
    assert told == {
        (10, "comparison", "x <= 0", "(x < 0)"),
        (12, "mask operand", "where & (x > 0)", "where"),
        (12, "mask operand", "where & (x > 0)", "(x > 0)"),
        (12, "comparison", "x > 0", "(x >= 0)"),
        (13, "guard", terms, "(a - b)"),
        (13, "sign", "a - b", "(a + b)"),
        (14, "mask operand", "mask &= ~valid", "pass"),
        (14, "negation", "~valid", "valid"),
        (15, "guard", f"_rows.poisoned({mean}, -inf)", mean),
        (15, "aggregate", "jnp.mean", "jnp.sum"),
        (15, "mask keyword", "where=kept", ""),
        (15, "sign", "-inf", "inf"),
    }
    for mutant in found:  # one line differs
        lines = zip(mutant.text.splitlines(), SOURCE.splitlines(), strict=True)
        assert [a != b for a, b in lines].count(True) == 1
        ast.parse(mutant.text)


def test_a_sample_is_the_same_every_time_and_has_tests():
    first = mutations.chosen(None, 60, 0)
    assert [m.key for m in first] == [m.key for m in mutations.chosen(None, 60, 0)]
    assert {m.key for m in first} != {m.key for m in mutations.chosen(None, 60, 1)}
    assert len({m.key for m in first}) == 60
    for mutant in first:
        runs = mutation_targets.runs(mutant.path, mutant.function)
        assert runs
        for run in runs:
            for file in run.files:
                assert (mutation_targets.ROOT / "tests" / file).exists(), file


def test_the_losses_that_a_function_reaches_are_known():
    reached = mutation_targets.reached
    assert reached("pairs_ranked", "_violation") == {"ranked_list_loss"}
    assert reached("pairs_ranked", "ranked_list_loss") == {"ranked_list_loss"}
    both = {"pnp_loss", "smooth_ap_loss"}
    assert reached("ranking", "_mean_over_positives") == both
