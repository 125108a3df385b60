"""What the command line decides for every topic."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

# `jax.Device` is a variable to a type checker.
Device: TypeAlias = Any


@dataclass(frozen=True)
class Settings:
    """Settings of a run of the benchmarks.

    Attributes:
      device: where JAX computes, and PyTorch if it has the like.
      sizes, dims, functions, workloads: what to measure, None for the topic's own.
      precision: of matrix products. dtype: of the embeddings.
      samples: as many of each thing, or as take `seconds` but three at least.
      check_limit: largest batch that is compared with float64, which takes a while.
      memory_limit: bytes beyond which a peer is refused.
      has_memory: whether the memory of compiled programs is measured, which compiles
        them once more.
      data: an .npz or folder for `quality`.
      num_seeds, limit_seconds, target: of `quality`: how many runs, the time of
        training after which one is given up, and the Recall@1 to reach.
    """

    device: Device
    sizes: tuple[int, ...] | None = None
    dims: tuple[int, ...] | None = None
    functions: tuple[str, ...] | None = None
    workloads: tuple[str, ...] | None = None
    precision: str = "highest"
    dtype: str = "float32"
    samples: int = 20
    seconds: float = 1.0
    check_limit: int = 4096
    memory_limit: float = 8 * 2.0**30
    has_memory: bool = True
    data: Path | None = field(default=None)
    num_seeds: int = 1
    limit_seconds: float = 120.0
    target: float = 0.8

    @property
    def is_cpu(self) -> bool:
        """Whether the device is the processor."""
        return self.device.platform == "cpu"
