"""Where a measurement was made: what belongs to every number in a result file."""

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.settings import Device

_PACKAGES = (
    "jaxmetric",
    "jax",
    "jaxlib",
    "numpy",
    "optax",
    "flax",
    "torch",
    "pytorch-metric-learning",
)
_VARIABLES = ("XLA_FLAGS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "JAX_ENABLE_X64")


def describe(device: Device, *, precision: str, dtype: str) -> dict[str, Any]:
    """Return versions, device, settings and load of this process, as plain values."""
    return {
        "kind": "environment",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "versions": versions(),
        "platform": device.platform,
        "device": device_name(device),
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "load": [round(x, 2) for x in os.getloadavg()],
        "precision": precision,
        "dtype": dtype,
        "flags": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def versions() -> dict[str, str]:
    """Return the versions of what is installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: Device) -> str:
    """Return what the device is; the processor and its cores for the CPU."""
    if device.platform != "cpu":
        return device.device_kind
    return f"{_processor()}, {cores()} cores"


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the memory of the machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _processor() -> str:
    """Return the model of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
