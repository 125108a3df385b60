"""What ends a command before its time."""


class UsageError(Exception):
    """A mistake in the arguments or the data, told in one line; exit code 2."""


class DivergedError(Exception):
    """Training has gone where no step is finite, told in one line; exit code 1."""


class LostError(Exception):
    """Another process of the run does not answer, told in one line; exit code 1."""
