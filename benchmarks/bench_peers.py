"""Topic `peers`: what others take for the same number, on the same cores.

A peer is checked against float64 before it is timed. Where it gives another number, or
would need more memory than is allowed, the table says so.
"""

# PyTorch is an extra: without it nothing here is imported.
# pyright: reportMissingImports=false

from collections.abc import Iterator
from dataclasses import replace

from benchmarks import harness, peers_torch, programs, specs
from benchmarks.harness import Contestant
from benchmarks.measuring import Entrant, Race
from benchmarks.results import Result
from benchmarks.settings import Settings

_SIZES = (256, 1024, 2048)
# OpenMP's threads spin for a while after their work, on the cores of the next one.
_SETTLE = 0.01


def peers(settings: Settings) -> Iterator[Result]:
    """Ours, naive JAX, Optax and pytorch-metric-learning on P x 4 batches, by size."""
    for workload in settings.workloads or ("pk4",):
        for batch in settings.sizes or _SIZES:
            for dim in settings.dims or (128,):
                yield from _race(settings, workload, batch, dim)


def _race(settings: Settings, workload: str, batch: int, dim: int) -> list[Result]:
    """Return the results of ours and of their peers on one batch."""
    race = Race(settings, "peers", workload=workload, batch=batch, dim=dim)
    torch_peers = peers_torch.peers()
    judges = {peer.judge for peer in torch_peers} | set(programs.JAX_PEERS.values())
    functions = [f for f in specs.headlines() if f in judges]
    ours = {f: race.add(f, judge=f) for f in functions if _is_wanted(settings, f)}
    theirs: list[Entrant] = []
    for name, judge in programs.JAX_PEERS.items():
        if judge in ours:
            theirs.append(race.add(name, judge=judge))
    for peer in torch_peers:
        if peer.judge in ours:
            theirs.append(_enter(race, peer))
    race.run()
    for entrant in theirs:
        assert entrant.judge is not None
        _compare(entrant, ours[entrant.judge])
    return [entrant.result for entrant in race.entrants]


def _is_wanted(settings: Settings, function: str) -> bool:
    """Tell whether a loss is among those asked for."""
    return settings.functions is None or function in settings.functions


def _enter(race: Race, peer: peers_torch.Peer) -> Entrant:
    """Let a peer of PyTorch run, if it is installed and its memory is there."""
    entrant = race.enter(peer.name, judge=peer.judge)
    if not peers_torch.is_installed():
        text = "not timed: needs torch and pytorch-metric-learning (the extra bench)"
        entrant.result = replace(entrant.result, status=text)
        return entrant
    if race.is_refused(entrant, peers_torch.bytes_needed(peer, race.batch)):
        return entrant
    import torch

    peers_torch.use_cores()
    has_gpu = not race.settings.is_cpu and torch.cuda.is_available()
    device = "cuda" if has_gpu else "cpu"
    calls = peers_torch.Calls(peer, race.batch, device)
    entrant.answer = calls.answer
    entrant.contestants = {
        "value": Contestant(peer.name, calls.value, settle=_SETTLE),
        "gradient": Contestant(peer.name, calls.gradient, settle=_SETTLE),
    }
    extra = {"torch_device": device, "torch_threads": torch.get_num_threads()}
    entrant.result = replace(entrant.result, extra=extra)
    return entrant


def _compare(entrant: Entrant, ours: Entrant) -> None:
    """Note how many times ours a peer takes, round by round."""
    extra = dict(entrant.result.extra)
    for mode, name in (("value", "forward"), ("gradient", "gradient")):
        if mode in entrant.contestants and mode in ours.contestants:
            extra[f"{name}_over_ours"] = harness.ratio(
                entrant.contestants[mode], ours.contestants[mode]
            )
    entrant.result = replace(entrant.result, extra=extra)
