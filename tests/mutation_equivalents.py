"""Mutants that change no behaviour that the contract promises, each with the reason.

By the key that `tests/mutations.py` prints. They are still run, and not counted.
"""

REASONS: dict[str, str] = {
    "jaxmetric/retrieval/episodes.py:_few_shot: aggregate: jnp.sum => jnp.mean #1": (
        "squared distances are only compared with each other, and the mean over the "
        "coordinates has the order of their sum"
    ),
}
