"""How closely numbers must agree: the one table, by dtype.

Low precision is converted to float32 before the first multiplication, so values of
float16 and bfloat16 rows are as good as those of float32 rows with the same numbers;
only their gradients, which come back in the dtype of the input, are coarser.
"""

import numpy as np

# Against an oracle in float64: `VALUE * (1 + |value|)`, times the logit scale.
VALUE = {"float64": 1e-9, "float32": 2e-6, "bfloat16": 2e-6, "float16": 2e-6}

# Gradients against gradients: times the largest entry (at least 1), and logit scale.
GRADIENT = {"float64": 1e-9, "float32": 4e-6, "bfloat16": 2**-8, "float16": 2**-11}

# Against central differences of step `STEP` in float64, times max(1, logit scale).
STEP = 1e-6
DIFFERENCE = {"float64": 1e-7}

# Two ways to compute the same number in the same dtype, relative to its size.
SAME = {"float64": 1e-12, "float32": 4e-6}

# The nearest kink must be this far for counts and derivatives to be compared.
CLEARANCE = {"float64": 1e-4, "float32": 1e-4, "bfloat16": 1e-4, "float16": 1e-4}

# `pairwise_distance`, relative: in general, and up to offset / spread = 1e5.
DISTANCE = {"float64": 1e-13, "float32": 1e-5}
DISTANCE_OFFSET = {"float64": 1e-12, "float32": 1e-4}

# The norm of a pair's gradient is 1 within this; the bound of rule 6 likewise.
PAIR_GRADIENT = {"float64": 1e-6, "float32": 1e-3}

# Values that the sheet prints with this many digits.
PRINTED = {"hand": 5e-7, "regression": 2e-9, "float32": 2e-6}


def value_bound(dtype: str, expected: float, logit_scale: float = 1.0) -> float:
    """Return how far a value of this dtype may be from the expected one."""
    return VALUE[dtype] * (1 + abs(expected)) * max(1.0, logit_scale)


def gradient_bound(
    dtype: str, expected: np.ndarray, logit_scale: float = 1.0, table=None
) -> float:
    """Return how far an entry of a gradient may be from the expected one."""
    largest = float(np.max(np.abs(expected), initial=1.0))
    return (table or GRADIENT)[dtype] * largest * max(1.0, logit_scale)
