"""Settings of the whole suite: strict dtypes and ranks, eight devices on the CPU."""

import os
import pathlib

import jax
import pytest

# One machine stands for eight devices.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def test_data():
    """Return the folder of real data, or skip the test where none is given."""
    folder = os.environ.get("JAXMETRIC_TEST_DATA")
    if not folder:
        pytest.skip("JAXMETRIC_TEST_DATA is not set")
    return folder


_MOST_MAPS, _EVERY = 30_000, 20
_num_tests = 0


@pytest.fixture(autouse=True)
def bounded_programs():
    """Drop compiled programs before they use up the memory maps of a process.

    Each holds some, Linux gives a process 65,530, and XLA ends it when they are gone.
    """
    global _num_tests
    yield
    _num_tests += 1
    maps = pathlib.Path("/proc/self/maps")
    if _num_tests % _EVERY == 0 and maps.exists():
        with maps.open() as lines:
            if sum(1 for _ in lines) > _MOST_MAPS:
                jax.clear_caches()
