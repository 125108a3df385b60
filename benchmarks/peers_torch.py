"""PyTorch's peers: pytorch-metric-learning, set to compute the same number as ours."""

# PyTorch is an extra: without it nothing here is imported.
# pyright: reportMissingImports=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import environment, specs


@dataclass(frozen=True)
class Peer:
    """A loss of pytorch-metric-learning.

    Attributes:
      name: in results.
      judge: the loss of ours that it is, with the same options.
      make: () -> (embeddings, labels) -> loss.
      bytes_needed: (batch, pairs, triplets) -> about how much memory it takes.
    """

    name: str
    judge: str
    make: Callable[[], Callable[[Any, Any], Any]]
    bytes_needed: Callable[[float, float, float], float]


def is_installed() -> bool:
    """Tell whether PyTorch and pytorch-metric-learning can be imported."""
    try:
        import pytorch_metric_learning  # noqa: F401
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def use_cores() -> None:
    """Give PyTorch the cores that this process may use."""
    import torch

    torch.set_num_threads(environment.cores())


def peers() -> tuple[Peer, ...]:
    """Return the peers, none of them built yet."""
    return (
        # Index triplets of 64 bits, and the array of all of them as bytes.
        Peer(
            "pml_all_triplets",
            "batch_all_triplet_loss",
            _all_triplets,
            lambda n, pairs, triplets: (n**3 if n**3 < 2**31 else 0) + 80 * triplets,
        ),
        Peer(
            "pml_batch_hard",
            "batch_hard_triplet_loss",
            _batch_hard,
            lambda n, pairs, triplets: 40 * n**2,
        ),
        # A row of all negative pairs of the batch for every positive pair.
        Peer(
            "pml_nt_xent",
            "nt_xent_loss",
            _nt_xent,
            lambda n, pairs, triplets: 24 * pairs * (n**2 - n - pairs),
        ),
        Peer(
            "pml_supcon",
            "supervised_contrastive_loss",
            _supervised_contrastive,
            lambda n, pairs, triplets: 80 * n**2,
        ),
    )


def bytes_needed(peer: Peer, batch: specs.Batch) -> float:
    """Return about how much memory a peer takes on a batch, in bytes."""
    rows = float(len(batch.labels))
    return peer.bytes_needed(rows, batch.num_positives, batch.num_triplets)


def tensors(batch: specs.Batch, device: str) -> tuple[Any, Any]:
    """Return the embeddings, which require a gradient, and the labels."""
    import torch

    x = torch.tensor(batch.embeddings, device=device, requires_grad=True)
    return x, torch.tensor(batch.labels, dtype=torch.int64, device=device)


class Calls:
    """A peer on a batch: what is timed, and its answer.

    Memory: what the peer takes.
    """

    def __init__(self, peer: Peer, batch: specs.Batch, device: str):
        self._loss, self._device = peer.make(), device
        self._x, self._labels = tensors(batch, device)

    def value(self) -> Any:
        """Compute the value without a gradient."""
        import torch

        with torch.no_grad():
            value = self._loss(self._x, self._labels)
        self._wait()
        return value

    def gradient(self) -> Any:
        """Compute the value and the gradient."""
        self._x.grad = None
        value = self._loss(self._x, self._labels)
        value.backward()
        self._wait()
        return value

    def answer(self) -> tuple[float, np.ndarray]:
        """Return value and gradient."""
        value = float(self.gradient().detach())
        return value, self._x.grad.cpu().numpy()

    def _wait(self) -> None:
        """Wait for an accelerator."""
        if self._device != "cpu":
            import torch

            torch.cuda.synchronize()


def _euclidean() -> Any:
    """The distance of ours: rows as they are, which are of length 1 here."""
    from pytorch_metric_learning import distances

    return distances.LpDistance(normalize_embeddings=False)


def _all_triplets() -> Callable:
    from pytorch_metric_learning import losses

    margin = specs.OPTIONS["batch_all_triplet_loss"]["margin"]
    return losses.TripletMarginLoss(margin=margin, distance=_euclidean())


def _batch_hard() -> Callable:
    from pytorch_metric_learning import losses, miners, reducers

    margin = specs.OPTIONS["batch_hard_triplet_loss"]["margin"]
    miner = miners.BatchHardMiner(distance=_euclidean())
    loss = losses.TripletMarginLoss(
        margin=margin, distance=_euclidean(), reducer=reducers.MeanReducer()
    )
    return lambda x, labels: loss(x, labels, miner(x, labels))


def _nt_xent() -> Callable:
    from pytorch_metric_learning import losses

    temperature = specs.OPTIONS["nt_xent_loss"]["temperature"]
    return losses.NTXentLoss(temperature=temperature)


def _supervised_contrastive() -> Callable:
    from pytorch_metric_learning import losses

    temperature = specs.OPTIONS["supervised_contrastive_loss"]["temperature"]
    return losses.SupConLoss(temperature=temperature)
