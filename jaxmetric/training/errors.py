"""What can be wrong with a run on disk."""


class CheckpointError(RuntimeError):
    """A run or checkpoint cannot be written or read; names the file and the remedy."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over for an older one that is intact."""
