"""PyTorch's side of a comparison: builds a loss, and runs it on one batch at a time."""

# PyTorch is an extra: the tests that need it are skipped without it.
# pyright: reportMissingImports=false

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from peer_registry import DIFFERENTIABLE, Peer
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers

PRECISION = {"float32": torch.float32, "float64": torch.float64}


class Library(SimpleNamespace):
    """What peers are built of: pytorch-metric-learning with rows as they are given."""

    torch = torch
    losses, miners, reducers = losses, miners, reducers
    distances, regularizers = distances, regularizers

    @property
    def euclidean(self) -> Any:
        """Euclidean distance of rows as they are."""
        return distances.LpDistance(normalize_embeddings=False)

    @property
    def sqeuclidean(self) -> Any:
        """Squared Euclidean distance of rows as they are."""
        return distances.LpDistance(normalize_embeddings=False, power=2)

    @property
    def cosine(self) -> Any:
        """Cosine similarity."""
        return distances.CosineSimilarity()

    @property
    def dot(self) -> Any:
        """Scalar products of rows as they are."""
        return distances.DotProductSimilarity(normalize_embeddings=False)

    @property
    def snr(self) -> Any:
        """Ratio of variances of rows as they are."""
        return distances.SNRDistance(normalize_embeddings=False)

    @property
    def mean(self) -> Any:
        """The mean over all terms."""
        return reducers.MeanReducer()

    @property
    def sum(self) -> Any:
        """The sum of all terms."""
        return reducers.SumReducer()

    @staticmethod
    def mined(miner: Any, loss: Any) -> Any:
        """Return a loss of the triplets or pairs that a miner finds in the batch."""
        return loss, lambda x, y, **side: loss(x, y, miner(x, y, **side), **side)


def their_answers(
    entry: Peer, batches: Mapping[str, np.ndarray], dtype: str
) -> dict[str, np.ndarray]:
    """Return value and gradients of all batches, by keyword name as ours."""
    made = entry.theirs(Library())
    module, call = made if isinstance(made, tuple) else (made, made)
    count = len(batches["labels"])
    answers = []
    for k in range(count):
        # PyTorch's losses know self mode by the identity of the labels' array.
        batch = {key: array[k] for key, array in batches.items()}
        answers.append(_answer(entry, module, call, batch, PRECISION[dtype]))
    return {key: np.stack([one[key] for one in answers]) for key in answers[0]}


def _answer(
    entry: Peer, module: Any, call: Any, batch: dict[str, np.ndarray], dtype: Any
) -> dict[str, np.ndarray]:
    leaves = {
        key: torch.tensor(batch[key], dtype=dtype, requires_grad=True)
        for key in DIFFERENTIABLE
        if key in batch and key != "proxies"
    }
    if "proxies" in batch:
        proxies = torch.tensor(batch["proxies"], dtype=dtype)
        if entry.is_tangent:
            proxies = torch.nn.functional.normalize(proxies)
        if proxies.ndim > 1:
            proxies = proxies.reshape(-1, proxies.shape[-1])
        if entry.is_transposed:
            proxies = proxies.T.contiguous()
        leaves["proxies"] = torch.nn.Parameter(proxies)
        setattr(module, str(entry.parameter), leaves["proxies"])
    rows = dict(leaves)
    if entry.is_unit:
        for key in rows.keys() & {"embeddings", "ref_embeddings"}:
            rows[key] = torch.nn.functional.normalize(rows[key])
    labels = torch.tensor(batch["labels"], dtype=torch.int64)
    side = {}
    if "ref_embeddings" in batch:
        ref_labels = torch.tensor(batch["ref_labels"], dtype=torch.int64)
        side = {"ref_emb": rows["ref_embeddings"], "ref_labels": ref_labels}
    value = call(rows["embeddings"], labels, **side)
    value.backward()
    answer = {"value": value.detach().numpy()}
    for key, leaf in leaves.items():
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        if key == "proxies":
            gradient = gradient.T if entry.is_transposed else gradient
            if entry.is_tangent:
                unit = leaf.detach().T if entry.is_transposed else leaf.detach()
                length = np.linalg.norm(batch["proxies"], axis=-1, keepdims=True)
                along = torch.sum(gradient * unit, -1, keepdim=True) * unit
                gradient = (gradient - along) / torch.tensor(length, dtype=dtype)
            gradient = gradient.reshape(batch["proxies"].shape)
        answer[key] = gradient.numpy()
    return answer
