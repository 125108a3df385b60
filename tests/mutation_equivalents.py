"""Mutants that change no behaviour that the contract promises, each with the reason.

By the key that `tests/mutations.py` prints. They are still run, and not counted.
"""

REASONS: dict[str, str] = {}
