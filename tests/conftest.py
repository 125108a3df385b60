"""Settings of the whole suite: strict dtypes and ranks, eight devices on the CPU."""

import os

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
