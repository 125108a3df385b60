"""The measured tables of SCALING.md: weak scaling on fake devices, memory of chunks."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmetric as jm

_LOSS, _DIM, _ROWS_EACH, _DEVICES = "contrastive_loss", 128, 512, (1, 2, 4, 8)
_SAMPLES = 15
# A batch of images whose activations are most of the memory.
CHUNK_BATCH, CHUNKS, _SIDE = 1024, (1024, 256, 64, 16), 35


def weak_scaling() -> str:
    """Return the time of a loss as devices and batch grow together.

    All devices are fake: they share the cores. What can be seen is whether dividing the
    batch costs anything, so each time stands beside that of one device with the whole
    batch; of links and their speed nothing can be seen.
    """
    jax.config.update("jax_num_cpu_devices", max(_DEVICES))
    loss: Any = getattr(jm.losses, _LOSS)
    lines = ["| devices | batch | one device, ms | so many, ms | ratio |"]
    lines.append("| ---: | ---: | ---: | ---: | ---: |")
    for count in _DEVICES:
        batch = _ROWS_EACH * count
        mesh = jax.make_mesh(
            (count,),
            ("data",),
            axis_types=(AxisType.Auto,),
            devices=jax.devices()[:count],
        )
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(batch, _DIM)), jnp.float32)
        labels = jnp.arange(batch, dtype=jnp.int32) // 4
        spread = jax.device_put((x, labels), NamedSharding(mesh, PartitionSpec("data")))
        parallel = jm.sharding.data_parallel(loss, mesh=mesh)
        alone = jax.jit(jax.value_and_grad(loss))
        shared = jax.jit(jax.value_and_grad(parallel))
        whole, many = _seconds((alone, (x, labels)), (shared, spread))
        cells = [f"{count}", f"{batch:,}", f"{whole * 1e3:.1f}", f"{many * 1e3:.1f}"]
        lines.append(f"| {' | '.join(cells)} | {many / whole:.2f} |")
    return "\n".join(lines)


def chunks() -> str:
    """Return the temporaries of `grad_cache` that XLA plans, over the chunk size."""
    sizes = [temporary_bytes(size) for size in CHUNKS]
    cells = [f"{size / 1e6:.1f}" for size in sizes]
    return "\n".join(
        [
            f"| chunk_size | {' | '.join(map(str, CHUNKS))} |",
            f"| --- |{' ---: |' * len(CHUNKS)}",
            f"| temporary, MB | {' | '.join(cells)} |",
        ]
    )


def temporary_bytes(chunk_size: int, batch: int = CHUNK_BATCH) -> int:
    """Return the bytes that XLA plans for the gradient of a batch by chunks."""
    module = jm.models.ConvEncoder((_SIDE, _SIDE, 1), rngs=nnx.Rngs(0))
    embed_fn, params, model_state = jm.training.as_functional(module)

    def loss_fn(loss_params: Any, embeddings: Any, labels: Any) -> Any:
        return jm.losses.batch_hard_triplet_loss(embeddings, labels)

    function = jm.training.grad_cache(embed_fn, loss_fn, chunk_size=chunk_size)
    images = jax.ShapeDtypeStruct((batch, _SIDE, _SIDE, 1), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    lowered = jax.jit(function).lower(params, model_state, images, labels)
    memory = lowered.compile().memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes


def _seconds(*calls: tuple[Callable[..., Any], Sequence[Any]]) -> list[float]:
    """Return the least time of each call, which take turns.

    Whatever else runs on the cores makes times longer, never shorter.
    """
    times: list[list[float]] = [[] for _ in calls]
    for sample in range(_SAMPLES + 1):
        for (function, arguments), own in zip(calls, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            if sample:  # before, it was compiled
                own.append(time.perf_counter() - start)
    return [min(own) for own in times]
