"""Our losses beside PyTorch's, on hundreds of random batches: values and gradients.

What is compared, and with which hyper-parameters, stands in `peers_*.py`; where the
libraries differ on purpose, in `test_parity_deviations.py`.
"""

# PyTorch is an extra: these tests are skipped without it.
# pyright: reportMissingImports=false

import inspect

import numpy as np
import pytest
from parity_table import DTYPES, differences
from peer_registry import difference, our_answers
from peers import PEERS
from subjects import fast_options

pytest.importorskip("torch")
pml = pytest.importorskip("pytorch_metric_learning")

pytestmark = [
    pytest.mark.slow,
    # Theirs, of its own code, and of an operator between NumPy and PyTorch there.
    pytest.mark.filterwarnings("ignore::UserWarning:pytorch_metric_learning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),
]

BOUND = {"float64": 1e-6, "float32": 1e-4}

# What is in their package beside losses, and what wraps losses without being one.
NOT_LOSSES = {
    "BaseLossWrapper",
    "BaseMetricLossFunction",
    "CrossBatchMemory",
    "EmbeddingRegularizerMixin",
    "GenericPairLoss",
    "MultipleLosses",
    "SelfSupervisedLoss",
    "WeightRegularizerMixin",
}


def test_the_version_is_the_one_compared_with():
    assert pml.__version__ == "2.9.0"


def test_every_loss_of_theirs_is_compared():
    from pytorch_metric_learning import losses

    theirs = {name for name, _ in inspect.getmembers(losses, inspect.isclass)}
    assert theirs - NOT_LOSSES <= {entry.peer for entry in PEERS.values()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PEERS)
def test_values_and_gradients_are_equal(name, dtype):
    entry = PEERS[name]
    bound = max(BOUND[dtype], entry.bound)
    for side in entry.sides:
        options = {"compiler_options": fast_options()}
        found = differences(entry, side, dtype, **options)
        assert {"value", "embeddings"} <= found.keys()
        assert max(found.values()) <= bound, (side, found)


def test_batches_are_many_and_of_every_kind():
    """Hinges on either side, rows alone in their class, and no two values alike."""
    entry = PEERS["batch_all_triplet_loss"]
    batches = entry.make_batches("references", 200)
    assert len({labels.tobytes() for labels in batches["labels"]}) == 200
    sizes = [np.bincount(labels, minlength=5) for labels in batches["labels"]]
    assert 10 < sum(1 in size for size in sizes) < 190
    values = our_answers(entry, batches, "float32")["value"]
    assert len(set(values.tolist())) == 200
    assert np.all(values > 0)


def test_a_difference_is_seen():
    """Of one entry of one batch; what is not finite differs from what is."""
    expected = np.ones((3, 4, 2))
    found = expected.copy()
    assert difference(found, expected) == 0
    found[1, 2, 1] += 1e-5
    assert difference(found, expected) == pytest.approx(1e-5)
    assert difference(100 * found, 100 * expected) == pytest.approx(1e-5)
    found[0, 0, 0] = np.nan
    assert difference(found, expected) == np.inf
