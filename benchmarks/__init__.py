"""Benchmarks: what the library costs, against floors, naive code and its peers.

`python -m benchmarks --only losses --out benchmarks/results/cpu.jsonl` measures and
prints a table; `--help` lists the topics. What is timed is interleaved in one process,
so read the ratios of one run: seconds of a shared machine compare with nothing.

  python -m benchmarks.targets FILE...     the goals, and what was measured
  python -m benchmarks.compare OLD NEW     what moved by more than its spread
  python -m benchmarks.plots FILE FOLDER   time and memory over the batch, margins
  python -m benchmarks.tables FILE README  the performance table of the README
  python -m benchmarks.catalogue --write   the catalogue page of the losses

The peers need the extra `bench` (PyTorch and pytorch-metric-learning); without it the
table says that they are missing.
"""
