"""Memory of compiled programs, measured in a process of its own.

On CPU some fused kernels of jaxlib bring working memory that XLA's analysis does not
see (it then reports 0), so the analysis is made with that fusion turned off. How much
memory a run really takes is seen in the process: the peak of its resident set above
what it held before.
"""

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import specs
from benchmarks.programs import Program
from benchmarks.settings import Device

_NO_FUSION = "--xla_cpu_experimental_ynn_fusion_type="
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def temp_bytes(
    programs: Sequence[Program], device: Device, *, timeout: float | None = None
) -> list[int | None]:
    """Return the bytes of temporaries of compiled programs; None where they fail."""
    if device.platform != "cpu":
        return [_analyse(program) for program in programs]
    requests = [{"program": program.to_json()} for program in programs]
    flags = (_NO_FUSION,) if is_flag_known() else ()
    answers = _in_process(requests, flags, timeout)
    return [answer.get("temp_bytes") for answer in answers]


def resident_bytes(
    program: Program, workload: str, *, timeout: float | None = None
) -> int | None:
    """Return how far the resident set of a process grows while a program runs.

    The arguments and the compilation are not counted. None where the system does not
    tell (other than Linux), or the run fails.
    """
    requests = [{"program": program.to_json(), "workload": workload}]
    return _in_process(requests, (), timeout)[0].get("resident_bytes")


@functools.cache
def is_flag_known() -> bool:
    """Tell whether this jaxlib knows the flag: it ends the process on one it does not.

    Without it the analysis is made as it is.
    """
    code = "import jax; jax.devices('cpu')"
    environment = _environment((_NO_FUSION,))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=False
    )
    return done.returncode == 0


def _in_process(
    requests: list[dict], flags: Sequence[str], timeout: float | None
) -> list[dict[str, Any]]:
    """Return the answers of another process; those it could not give are empty."""
    command = [sys.executable, "-m", "benchmarks.memory"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(requests),
            env=_environment(flags),
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        lines, failure = done.stdout, done.stderr
    except subprocess.TimeoutExpired as stopped:
        lines, failure = stopped.stdout or b"", f"stopped after {timeout:g} s"
        lines = lines.decode() if isinstance(lines, bytes) else lines
    answers = [json.loads(line) for line in lines.splitlines()]
    if len(answers) < len(requests):
        print(f"memory: {failure.strip().splitlines()[-1:]}", file=sys.stderr)
    return answers + [{}] * (len(requests) - len(answers))


def _environment(flags: Sequence[str]) -> dict[str, str]:
    """Return the environment of a CPU process with more flags of XLA."""
    present = os.environ.get("XLA_FLAGS", "").split()
    joined = " ".join((*present, *flags))
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": joined}


def _analyse(program: Program) -> int:
    """Compile and return what the analysis says."""
    compiled = jax.jit(program.build()).lower(*program.shapes()).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return int(analysis.temp_size_in_bytes)


def _run(program: Program, workload: str) -> int | None:
    """Compile, run once, and return the growth of the resident set."""
    compiled = jax.jit(program.build()).lower(*program.shapes()).compile()
    made, rows, dim = specs.WORKLOADS[workload], program.batch, program.dim
    batches = (made.make(rows, dim),)
    if program.function == "evaluate":
        batches = made.make(2 * rows, dim).halves()
    arguments = jax.device_put([np.asarray(a) for batch in batches for a in batch])
    jax.block_until_ready(arguments)
    if not (_STATUS.exists() and _CLEAR.exists()):
        return None
    # 5 sets the peak back to what is resident now.
    _CLEAR.write_text("5")
    before = _status("VmRSS")
    jax.block_until_ready(compiled(*arguments))
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """Return a field of the process's status, in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def main() -> None:
    """Answer the requests on standard input, one line of JSON each."""
    for request in json.load(sys.stdin):
        program = Program(**request["program"])
        answer: dict[str, Any] = {}
        try:
            if "workload" in request:
                answer["resident_bytes"] = _run(program, request["workload"])
            else:
                answer["temp_bytes"] = _analyse(program)
        except Exception as error:  # noqa: BLE001
            # One program that does not compile is no reason to lose the others.
            print(f"{program}: {error}", file=sys.stderr)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
