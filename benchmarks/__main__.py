"""The command `python -m benchmarks`."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax

from benchmarks import environment, printing, results
from benchmarks.bench_blocks import blocks
from benchmarks.bench_losses import classes, losses, workloads
from benchmarks.bench_margins import margins
from benchmarks.bench_memory import memory_over_batch
from benchmarks.bench_peers import peers
from benchmarks.bench_population import population
from benchmarks.bench_quality import quality
from benchmarks.bench_retrieval import retrieval
from benchmarks.bench_step import step
from benchmarks.results import Result
from benchmarks.settings import Settings
from benchmarks.specs import WORKLOADS

Topic = Callable[[Settings], Iterator[Result]]

TOPICS: dict[str, Topic] = {
    "losses": losses,
    "classes": classes,
    "workloads": workloads,
    "peers": peers,
    "blocks": blocks,
    "memory": memory_over_batch,
    "margins": margins,
    "retrieval": retrieval,
    "population": population,
    "step": step,
    "quality": quality,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the topics that were asked for, print and keep the results."""
    options = _parser().parse_args(arguments)
    settings = _settings(options)
    # A cached executable would make the seconds of compilation a lie.
    is_cached = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        with jax.default_device(settings.device):
            _measure(options, settings)
    finally:
        jax.config.update("jax_enable_compilation_cache", is_cached)
    return 0


def _measure(options: argparse.Namespace, settings: Settings) -> None:
    """Measure topic by topic; results are printed and kept at once."""
    described = environment.describe(
        settings.device, precision=settings.precision, dtype=settings.dtype
    )
    print(_headline(described))
    if options.out is not None:
        results.append(options.out, [results.environment_line(described)])
    print(printing.header())
    for name in options.only or TOPICS:
        print(f"-- {name}: {_summary(TOPICS[name])}")
        for result in TOPICS[name](settings):
            print(printing.row(result), flush=True)
            if options.out is not None:
                results.append(options.out, [result.to_json()])


def _parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure jaxmetric; see the docstring of the package.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    names = ", ".join(TOPICS)
    add("--only", type=_topics, help=f"topics, with commas between: {names}")
    add("--sizes", type=_ints, help="batches (sides of images for step)")
    add("--dims", type=_ints, help="widths of the embeddings")
    add("--functions", type=_names, help="losses")
    add("--workloads", type=_workloads, help=f"of {', '.join(WORKLOADS)}")
    add("--device", default="cpu", help="cpu, gpu or tpu")
    add("--precision", default="highest", choices=("highest", "high", "default"))
    add("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    add("--samples", type=int, default=20, help="of each thing that is timed")
    add("--seconds", type=float, default=1.0, help="after which 3 samples are enough")
    add("--check-limit", type=int, default=4096, help="largest batch to be checked")
    add("--memory-limit", type=float, default=8.0, help="GiB that a peer may take")
    add("--no-memory", action="store_true", help="do not measure temporaries")
    add("--data", type=Path, help="of quality; else omniglot in JAXMETRIC_TEST_DATA")
    add("--seeds", type=int, default=1, help="of quality")
    add("--limit-seconds", type=float, default=120.0, help="of quality, for each")
    add("--target", type=float, default=0.8, help="of quality, Recall@1")
    add("--out", type=Path, help="a .jsonl file to add to")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    """Return the settings of the options."""
    try:
        device = jax.devices(options.device)[0]
    except RuntimeError as error:
        print(f"benchmarks: no device {options.device}: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    return Settings(
        device=device,
        sizes=options.sizes,
        dims=options.dims,
        functions=options.functions,
        workloads=options.workloads,
        precision=options.precision,
        dtype=options.dtype,
        samples=options.samples,
        seconds=options.seconds,
        check_limit=options.check_limit,
        memory_limit=options.memory_limit * 2**30,
        has_memory=not options.no_memory,
        data=options.data,
        num_seeds=options.seeds,
        limit_seconds=options.limit_seconds,
        target=options.target,
    )


def _headline(described: dict) -> str:
    """Return the environment in a few lines."""
    packages = ", ".join(f"{k} {v}" for k, v in described["versions"].items())
    load = " ".join(map(str, described["load"]))
    return (
        f"{described['device']}; {described['dtype']}, precision "
        f"{described['precision']}; load {load}; flags {described['flags'] or 'none'}\n"
        f"python {described['python']}, {packages}"
    )


def _summary(topic: Topic) -> str:
    """Return the first line of a topic's docstring."""
    return (topic.__doc__ or "").splitlines()[0]


def _names(text: str) -> tuple[str, ...]:
    """Return words between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _ints(text: str) -> tuple[int, ...]:
    """Return integers between commas."""
    return tuple(int(word) for word in _names(text))


def _chosen(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Return names between commas, all of them known."""
    names = _names(text)
    if unknown := sorted(set(names) - set(known)):
        what = f"{', '.join(unknown)} (choose from {', '.join(known)})"
        raise argparse.ArgumentTypeError(f"unknown: {what}")
    return names


def _topics(text: str) -> tuple[str, ...]:
    """Return names of topics."""
    return _chosen(text, tuple(TOPICS))


def _workloads(text: str) -> tuple[str, ...]:
    """Return names of workloads."""
    return _chosen(text, tuple(WORKLOADS))


if __name__ == "__main__":
    sys.exit(main())
