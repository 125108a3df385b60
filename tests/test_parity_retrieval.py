"""Our retrieval metrics beside pytorch-metric-learning's, on hundreds of batches."""

# PyTorch is an extra: these tests are skipped without it.
# pyright: reportMissingImports=false

from typing import Any

import jax
import numpy as np
import parity_batches
import pytest
import sklearn.cluster
from subjects import fast_options

from jaxmetric import retrieval

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_metric_learning")
from pytorch_metric_learning.distances import (  # noqa: E402
    CosineSimilarity,
    LpDistance,
)
from pytorch_metric_learning.utils.accuracy_calculator import (  # noqa: E402
    AccuracyCalculator,
)
from pytorch_metric_learning.utils.inference import CustomKNN  # noqa: E402

pytestmark = pytest.mark.slow

METRICS = (
    "precision_at_1",
    "r_precision",
    "mean_average_precision",
    "mean_average_precision_at_r",
    "mean_reciprocal_rank",
)
DISTANCES = {
    "euclidean": LpDistance(normalize_embeddings=False),
    "cosine": CosineSimilarity(),
}

# Theirs counts in float32 here and there.
BOUND = 1e-6


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("side", ["self", "references"])
def test_retrieval_metrics_are_equal(side, distance):
    has_references = side == "references"
    stack = parity_batches.make("any", has_references=has_references)
    names = {"ref_embeddings": "reference", "ref_labels": "reference_labels"}
    names |= {"embeddings": "query", "labels": "query_labels"}
    found = jax.jit(
        jax.vmap(
            lambda batch: retrieval.evaluate(
                **{names[key]: array for key, array in batch.items()},
                distance=distance,
            )
        ),
        compiler_options=fast_options(),
    )(stack)
    knn = CustomKNN(DISTANCES[distance])
    calculator = AccuracyCalculator(include=METRICS, k=None, knn_func=knn)
    for k in range(parity_batches.NUM_BATCHES):
        batch = {key: torch.tensor(array[k]) for key, array in stack.items()}
        other = ()
        if has_references:
            other = (batch["ref_embeddings"], batch["ref_labels"])
        theirs = calculator.get_accuracy(batch["embeddings"], batch["labels"], *other)
        for name in METRICS:
            assert found[name][k] == pytest.approx(theirs[name], abs=BOUND), (k, name)
    assert len(set(np.asarray(found["mean_average_precision"]).tolist())) > 150


def test_clusters_agree_as_much():
    """With the same clusters: their default are those of another library."""

    def clusters(rows: Any, num_clusters: int) -> Any:
        kmeans = sklearn.cluster.KMeans(num_clusters, n_init=10, random_state=0)  # pyright: ignore (n_init may be a number)
        return torch.tensor(kmeans.fit_predict(rows.numpy()))

    calculator = AccuracyCalculator(
        include=("NMI", "AMI"),
        knn_func=CustomKNN(DISTANCES["euclidean"]),
        kmeans_func=clusters,
    )
    stack = parity_batches.make("any", count=20)
    for x, y in zip(stack["embeddings"], stack["labels"], strict=True):
        theirs = calculator.get_accuracy(torch.tensor(x), torch.tensor(y))
        ours = retrieval.clustering(x, y)
        assert ours["nmi"] == pytest.approx(theirs["NMI"], abs=BOUND)
        assert ours["ami"] == pytest.approx(theirs["AMI"], abs=BOUND)


def test_labels_beyond_the_digits_of_float32_stay_apart():
    """Theirs compares labels as float32: 2**24 and the next are one class to it."""
    x = np.arange(4, dtype=np.float32)[:, None]
    y = 2**24 + np.arange(4, dtype=np.int32)
    ours = retrieval.evaluate(x, y)
    assert ours["num_queries"] == 0
    calculator = AccuracyCalculator(
        include=("precision_at_1",), knn_func=CustomKNN(DISTANCES["euclidean"])
    )
    labels = torch.tensor(y, dtype=torch.int64)
    theirs = calculator.get_accuracy(torch.tensor(x), labels)["precision_at_1"]
    assert theirs > 0
