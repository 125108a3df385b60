"""What a global batch costs each of many devices: bytes, flops, memory, on paper.

  python -m benchmarks.scaling

computes the tables of SCALING.md and writes them between their marks; a test keeps
them equal. With `--measure`, weak scaling is measured on fake devices of this machine
as well, and with `--chunks` the memory of `grad_cache` over its chunks.
"""

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).with_name("SCALING.md")
BATCH, DIM = 1_048_576, 512
DEVICES = (8, 16, 32, 64, 128, 256, 512, 1024)

# Matrix products of [rows, dim] with [batch, dim], 2 rows batch dim flops each: the
# distances, and the gradients of both sides, which are taken while a block is at hand.
PRODUCTS = 3
# What XLA plans besides arguments and results, in gathered arrays and in blocks: the
# references, their gradient, and copies of both around the loop over the blocks.
GATHERED, BLOCKS = 4.5, 2
# A ring sends the references twice and their gradient once, gathering each once.
RING_SENDS, GATHER_SENDS = 3, 2


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A typical accelerator, in round numbers.

    Attributes:
      flops: a second, in matrix products of the precision at hand.
      bytes_per_number: of embeddings that are sent.
      near, far: bytes a second in one direction and for each device, among the
        `host` devices of one host and beyond.
      hop: seconds that a message takes besides.
      memory: bytes.
      block_rows: of the engine's blocks on accelerators.
    """

    flops: float = 50e12
    bytes_per_number: int = 4
    near: float = 400e9
    far: float = 50e9
    host: int = 8
    hop: float = 5e-6
    memory: float = 80e9
    block_rows: int = 128


PRECISE = Accelerator()
FAST = Accelerator(flops=500e12, bytes_per_number=2)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What value and gradient of the loss cost one of `devices` devices.

    Attributes:
      rows: of the batch that it holds.
      sent: bytes that it sends, and as many that it receives.
      flops: of its matrix products.
      gathered, block: bytes of memory.
      compute, communicate: seconds.
    """

    devices: int
    rows: int
    sent: float
    flops: float
    gathered: float
    block: float
    compute: float
    communicate: float

    @property
    def together(self) -> float:
        """Seconds with gathered references: first gather, then compute."""
        return self.compute + self.communicate

    @property
    def ring(self) -> float:
        """Seconds of a ring that sends one shard while it computes with another."""
        return max(self.compute, self.communicate * RING_SENDS / GATHER_SENDS)


def cost(
    devices: int,
    accelerator: Accelerator = PRECISE,
    *,
    batch: int = BATCH,
    dim: int = DIM,
) -> Cost:
    """Return what a global batch costs each device, references gathered."""
    a, rows = accelerator, batch // devices
    share = (devices - 1) / devices
    sent = GATHER_SENDS * share * batch * dim * a.bytes_per_number
    flops = PRODUCTS * 2.0 * rows * batch * dim
    link = a.near if devices <= a.host else a.far
    return Cost(
        devices,
        rows,
        sent,
        flops,
        gathered=GATHERED * batch * dim * 4,
        block=BLOCKS * min(a.block_rows, rows) * batch * 4,
        compute=flops / a.flops,
        communicate=sent / link + GATHER_SENDS * (devices - 1) * a.hop,
    )


def balance(accelerator: Accelerator) -> float:
    """Return the devices at which communication takes as long as computation.

    Both are counted between hosts; the batch and the width cancel out of all but one
    factor: 6 batch^2 dim / (n flops) = 2 batch dim bytes / far.
    """
    a = accelerator
    per_number = a.bytes_per_number / a.far
    return PRODUCTS * 2.0 * BATCH / (a.flops * GATHER_SENDS * per_number)


def largest_batch(accelerator: Accelerator, share: float = 0.5, dim: int = DIM) -> int:
    """Return the rows at which gathered references take a share of the memory."""
    a = accelerator
    per_row = GATHERED * dim * 4 + BLOCKS * a.block_rows * 4
    return int(share * a.memory / per_row)


def table(accelerator: Accelerator) -> str:
    """Return the table of one accelerator."""
    header = [
        "devices",
        "rows each",
        "sent, GB",
        "Tflop",
        "references, GB",
        "block, GB",
        "computes, s",
        "communicates, s",
        "first limit",
        "ring",
    ]
    lines = [_line(header), _line(["---:"] * 8 + ["---", "---:"])]
    for devices in DEVICES:
        c = cost(devices, accelerator)
        needs = c.gathered + c.block
        limit = "computation" if c.compute > c.communicate else "communication"
        if needs > accelerator.memory:
            limit = "memory"
        cells = [f"{devices:,}", f"{c.rows:,}", f"{c.sent / 1e9:.2f}"]
        cells += [f"{c.flops / 1e12:,.0f}"]
        cells += [f"{c.gathered / 1e9:.1f}", f"{c.block / 1e9:.1f}"]
        cells += [f"{c.compute:.3g}", f"{c.communicate:.2g}", limit]
        cells += [f"{c.together / c.ring:.2f} x"]
        lines.append(_line(cells))
    return "\n".join(lines)


def markdown() -> str:
    """Return what stands between the marks of the page."""
    parts = []
    for name, a in (
        ("float32 products, float32 rows sent", PRECISE),
        ("matrix units in half precision, 2 bytes a number sent", FAST),
    ):
        parts += [
            f"**{a.flops / 1e12:.0f} Tflop/s: {name}**",
            table(a),
            f"Communication takes as long as computation at {balance(a):,.0f} devices. "
            f"References take half of {a.memory / 1e9:.0f} GB at a batch of "
            f"{largest_batch(a):,}.",
        ]
    return "\n\n".join(parts)


def replaced(page: str, name: str, content: str) -> str:
    """Return a page with other content between the marks of a name.

    Raises:
      ValueError: the marks are not there.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    between = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if not between.search(page):
        raise ValueError(f"the page must have the lines {begin} and {end}")
    return between.sub(lambda _: f"{begin}\n{content}\n{end}", page)


def _line(cells: Sequence[str]) -> str:
    """Return a row of Markdown."""
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables into the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__
    )
    parser.add_argument("--measure", action="store_true", help="weak scaling here")
    parser.add_argument("--chunks", action="store_true", help="memory of grad_cache")
    options = parser.parse_args(arguments)
    page = replaced(PAGE.read_text(), "scaling", markdown())
    if options.measure or options.chunks:
        from benchmarks import scaling_measured

        if options.measure:
            page = replaced(page, "measured", scaling_measured.weak_scaling())
        if options.chunks:
            page = replaced(page, "chunks", scaling_measured.chunks())
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
