"""Our losses against stored answers of other libraries: no PyTorch is needed."""

import numpy as np
import pytest
import reference_values
from peer_registry import Peer, difference, our_answers
from peers import PEERS
from subjects import fast_options

# Of a value or a gradient, relative to its largest entry where that is above 1.
BOUND = 1e-6

COMPARISONS = [(entry, side) for entry in PEERS.values() for side in entry.sides]


# One comparison a loss by default, on both sides; further variants of it as `slow`.
_FIRST = {entry.loss: name for name, entry in reversed(PEERS.items())}
_FIRST |= {entry.loss: entry.loss for entry in PEERS.values() if entry.loss in PEERS}


def _parameter(entry: Peer, side: str):
    marks = [] if _FIRST[entry.loss] == entry.name else [pytest.mark.slow]
    return pytest.param(entry, side, marks=marks, id=f"{entry.name}, {side}")


@pytest.fixture(scope="module")
def stored():
    """Everything that is stored."""
    return reference_values.read()


@pytest.mark.parametrize(
    ("entry", "side"), [_parameter(*comparison) for comparison in COMPARISONS]
)
def test_stored_values_and_gradients_are_met(stored, entry: Peer, side: str):
    batch = reference_values.read_batch(stored, entry, side)
    expected = stored[reference_values.answer_name(entry, side)]
    found = reference_values.flat(
        our_answers(entry, batch, "float64", compiler_options=fast_options())
    )
    assert found.shape == expected.shape
    bound = max(BOUND, entry.bound)
    assert difference(found[:1], expected[:1]) <= bound
    # All entries of all gradients together, as one batch.
    assert difference(found[None, 1:], expected[None, 1:]) <= bound


def test_the_stored_file_is_complete(stored):
    names = [reference_values.answer_name(*one) for one in COMPARISONS]
    assert {name for name in stored if name.startswith("peer/")} == set(names)
    assert "pytorch_metric_learning 2.9.0" in stored["versions"]
    assert reference_values.FILE.stat().st_size < 300_000


def test_no_stored_answer_is_empty(stored):
    for name, answer in stored.items():
        if name.startswith("peer/"):
            assert answer[0] != 0, name
            assert np.any(answer[1:]), name
