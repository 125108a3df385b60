"""The migration page: each row is run, theirs against ours."""

import functools

import jax
import jax.numpy as jnp
import migration
import migration_formulas
import migration_peers
import numpy as np
import optax
import pytest


@functools.cache
def ours(library):
    return migration.ours(library)


def theirs(library):
    """Return the values of a library's rows on their side, by their code."""
    if library == migration_peers.LIBRARY:
        return migration_peers.stored()
    rows, arrays = migration.rows(library), migration.arrays()
    if library == "Optax":
        # Optax multiplies masks of bool with numbers.
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            names = {k: jnp.asarray(v) for k, v in arrays.items()} | {"optax": optax}
            return {row.theirs: np.asarray(eval(row.theirs, names)) for row in rows}
    names = arrays | migration_formulas.names()
    return {row.theirs: eval(row.theirs, names) for row in rows}


def compare(library, expected):
    found = ours(library)
    wrong = []
    for row in migration.rows(library):
        value, wanted = found[row.theirs], np.asarray(expected[row.theirs])
        assert value.dtype == np.float64
        # An equality of zeros would say nothing.
        assert np.all(np.abs(wanted) > 1e-3), row.theirs
        if not np.allclose(value, wanted, rtol=row.tolerance, atol=0):
            wrong.append(f"{row.theirs} is {wanted}, {row.ours} is {value}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", migration.LIBRARIES)
def test_every_row_gives_equal_numbers(library):
    compare(library, theirs(library))


def test_the_stored_numbers_are_those_of_the_page():
    rows = migration.rows(migration_peers.LIBRARY)
    assert list(migration_peers.stored()) == [row.theirs for row in rows]


def test_the_stored_numbers_are_those_of_the_library():
    pytest.importorskip("pytorch_metric_learning")
    live = migration_peers.values()
    for theirs, value in migration_peers.stored().items():
        assert value == pytest.approx(live[theirs], rel=1e-9), theirs


def test_no_heading_of_the_page_is_left_out():
    text = migration.PAGE.read_text(encoding="utf-8")
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings == list(migration.LIBRARIES)
    assert all(migration.rows(library) for library in headings)
