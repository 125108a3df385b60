"""Plant mistakes in the losses, miners and metrics, and see whether a test fails.

    python -m tests.mutations [--only losses|miners|retrieval] [--sample N --seed S]

Works in a temporary copy of the package and its tests; the checkout is only read. One
mutant at a time is written, the tests that belong to its file are run until one fails,
and the file is restored. Every survivor is printed with its change. Those that change
no behaviour are listed with reasons in `mutation_equivalents.py`, and not counted.

`--results FILE` appends one line of JSON a mutant and skips those that it has already,
so that a long run may be ended and continued. `--key TEXT` takes the mutants whose key
holds the text. `--baseline` runs the same tests without any mutant: all must pass.
"""

import argparse
import difflib
import importlib
import json
import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback

from tests import mutation_equivalents, mutation_targets
from tests.mutation_operators import Mutant, mutants

# A mutant that no test has caught by then, or that loops for ever, has survived.
_CPU_SECONDS, _WALL_SECONDS = 40, 1800
# Of pytest: 2 is a mutant that cannot be imported. A signal has a negative code.
_PASSED, _FAILED, _BROKEN, _NOTHING_SELECTED = 0, 1, 2, 5
_OPTIONS = (
    "-x -q --no-header --assert=plain -p no:cacheprovider -p no:xdist -o addopts="
).split()


def chosen(
    group: str | None, sample: int | None, seed: int, key: str = ""
) -> list[Mutant]:
    """Return the mutants of a group, or of all, or a sample of them.

    Which are in a sample depends on the seed and the mutants' own keys alone: a change
    elsewhere in a file does not draw others.
    """
    found = []
    for name in [group] if group else mutation_targets.GROUPS:
        for path in mutation_targets.sources(name):
            source = (mutation_targets.ROOT / path).read_text()
            found += [m for m in mutants(path, source) if key in m.key]
    if sample is None:
        return found
    # Another seed starts elsewhere in the same order.
    start = f"{(seed * 0x9E3779B97F4A7C15) % 2**64:016x}"
    ranked = sorted(found, key=lambda m: (m.rank < start, m.rank))
    return ranked[:sample]


def change(mutant: Mutant) -> str:
    """Return the changed lines of a mutant's file, as a diff shows them."""
    before = mutant.source.splitlines()
    lines = difflib.unified_diff(before, mutant.text.splitlines(), n=0, lineterm="")
    kept = [f"  {x}" for x in lines if x[:1] in "+-" and x[:3] not in ("+++", "---")]
    return "\n".join([f"{mutant.path}:{mutant.line} in {mutant.function}", *kept])


class Workshop:
    """A copy of the package and its tests in which files are changed and restored."""

    def __init__(self, folder: pathlib.Path):
        """Copy what the tests need."""
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        for name in ("jaxmetric", "tests"):
            source = mutation_targets.ROOT / name
            shutil.copytree(source, folder / name, ignore=ignored)
        shutil.copy(mutation_targets.ROOT / "pyproject.toml", folder)

    def write(self, path: str, text: str) -> None:
        """Write a source file and forget its bytecode, whose time stamp is coarse."""
        file = self.folder / path
        file.write_text(text)
        for stale in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
            stale.unlink()

    def test(self, run: mutation_targets.Run) -> tuple[int, str]:
        """Return the exit code of a run of pytest (negative: a signal) and its end."""
        log = self.folder / "log.txt"
        # A copy of this process, which has imported what the tests import; JAX must
        # not have started a backend in it, nor the package been imported.
        child = os.fork()
        if child == 0:
            self._become_pytest(run, log)
        status, deadline = None, time.monotonic() + _WALL_SECONDS
        while status is None:
            done, waited = os.waitpid(child, os.WNOHANG)
            if done:
                status = waited
            elif time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                status = os.waitpid(child, 0)[1]
            else:
                time.sleep(0.05)
        return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")

    def _become_pytest(self, run: mutation_targets.Run, log: pathlib.Path) -> None:
        code = 99
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            used = int(time.process_time())
            limit = used + _CPU_SECONDS, used + _CPU_SECONDS + 30
            resource.setrlimit(resource.RLIMIT_CPU, limit)
            os.chdir(self.folder)
            root = str(mutation_targets.ROOT)
            sys.path[:] = [p for p in sys.path if p not in ("", root)]
            sys.path.insert(0, str(self.folder))
            for name in [m for m in sys.modules if m.split(".")[0] == "tests"]:
                del sys.modules[name]
            import pytest

            selection = ["-m", "not slow", "-k", run.selected]
            files = [f"tests/{name}" for name in run.files]
            code = int(pytest.main([*_OPTIONS, *selection, *files]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def verdict(workshop: Workshop, mutant: Mutant) -> tuple[str, str]:
    """Return "caught" or "survived", and the test that failed."""
    ran = False
    workshop.write(mutant.path, mutant.text)
    try:
        for run in mutation_targets.runs(mutant.path, mutant.function):
            code, log = workshop.test(run)
            if code == _NOTHING_SELECTED:
                continue
            ran = True
            if code > _BROKEN:
                raise SystemExit(f"pytest did not run {run}:\n{log}")
            if code in (-signal.SIGXCPU, -signal.SIGKILL):
                return "survived", "out of time"
            if code != _PASSED:
                lines = log.splitlines()
                failed = [x for x in lines if x.startswith(("FAILED", "ERROR", "E  "))]
                why = failed[-1] if failed else f"exit code {code}"
                return "caught", why[:150]
    finally:
        workshop.write(mutant.path, mutant.source)
    if not ran:
        raise SystemExit(f"no test belongs to {mutant.path}")
    return "survived", ""


def check_baseline(workshop: Workshop, sample: list[Mutant]) -> None:
    """Require that all tests that a sample asks pass without a mutant."""
    wanted = {
        run: m.path for m in sample for run in mutation_targets.runs(m.path, m.function)
    }
    for run, path in wanted.items():
        code, log = workshop.test(run)
        if code not in (_PASSED, _NOTHING_SELECTED):
            raise SystemExit(f"{run} of {path} fails without a mutant:\n{log[-3000:]}")
        _say(f"passes without a mutant: {path}: {' '.join(run.files)}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _preload() -> None:
    """Import what every run imports, once; nothing of the package."""
    for name in ("jax.numpy", "hypothesis", "optax", "scipy.stats", "pytest"):
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def _earlier(results: pathlib.Path | None) -> dict[str, dict]:
    if results is None or not results.exists():
        return {}
    found = [json.loads(line) for line in results.read_text().splitlines()]
    return {line["key"]: line for line in found}


def summary(answers: list[dict]) -> str:
    """Return the counts of each group, and what survived."""
    lines = ["", "group      mutants  equivalent  caught  survived  caught of counted"]
    equivalent = mutation_equivalents.REASONS
    counted = [a for a in answers if a["key"] not in equivalent]
    for group in [*mutation_targets.GROUPS, "all"]:
        mine = [a for a in answers if group in (a["group"], "all")]
        kept = [a for a in counted if group in (a["group"], "all")]
        caught = sum(a["verdict"] == "caught" for a in kept)
        if mine:
            cells = len(mine), len(mine) - len(kept), caught, len(kept) - caught
            share = f"{caught / max(len(kept), 1):.1%}"
            lines.append(
                f"{group:<10}{cells[0]:8}{cells[1]:12}{cells[2]:8}{cells[3]:10}"
                f"{share:>19}"
            )
    for answer in counted:
        if answer["verdict"] == "survived":
            lines += ["", "survived: " + answer["key"], answer["change"]]
    for answer in answers:
        if answer["key"] in equivalent:
            lines += ["", "equivalent: " + answer["key"], equivalent[answer["key"]]]
            if answer["verdict"] == "caught":
                lines.append(f"  but it was caught: {answer['why']}")
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(mutation_targets.GROUPS))
    parser.add_argument("--sample", type=int, help="how many, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key", default="", help="only mutants whose key holds this")
    parser.add_argument("--results", type=pathlib.Path, help="JSON lines, continued")
    parser.add_argument("--list", action="store_true", help="name the mutants only")
    parser.add_argument("--baseline", action="store_true", help="run no mutant")
    options = parser.parse_args()
    sample = chosen(options.only, options.sample, options.seed, options.key)
    if options.list:
        _say("\n".join(m.key for m in sample))
        return
    _preload()
    groups = {
        p: g for g in mutation_targets.GROUPS for p in mutation_targets.sources(g)
    }
    earlier = _earlier(options.results)
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(pathlib.Path(folder))
        if options.baseline:
            check_baseline(workshop, sample)
            return
        for number, mutant in enumerate(sample, 1):
            answer = earlier.get(mutant.key)
            if answer is None:
                start = time.monotonic()
                told, why = verdict(workshop, mutant)
                answer = {
                    "key": mutant.key,
                    "group": groups[mutant.path],
                    "verdict": told,
                    "why": why,
                    "change": change(mutant),
                    "seconds": round(time.monotonic() - start, 1),
                }
                if options.results:
                    with options.results.open("a") as file:
                        file.write(json.dumps(answer) + "\n")
            answers.append(answer)
            _say(f"{number}/{len(sample)} {answer['verdict']}: {mutant.key}")
    _say(summary(answers))


if __name__ == "__main__":
    main()
