"""Batches of different rows as a pure function of (seed, epoch, step)."""

import operator
from dataclasses import dataclass, field

import numpy as np

from jaxmetric.data._words import Stream, check_counter, words


@dataclass(frozen=True)
class PairSampler:
    """Batches of `batch_size` different rows; an epoch takes the rows in a new order.

    The rows that are left over at the end of an epoch, too few for a batch, are left
    out; other ones the next time. There is no state: `batch` gives the same row ids for
    the same arguments, in any process and on any machine.

    Attributes:
      num_rows: how many rows there are.
      batch_size: rows in a batch, at most `num_rows`.
      seed: which sequence of epochs, an int >= 0.

    Raises:
      ValueError: a number out of range.

    Memory: O(num_rows), the plan of the latest epoch.

    Example:
      >>> sampler = PairSampler(10, batch_size=4)
      >>> sampler.steps_per_epoch, sampler.batch(epoch=0, step=1).shape
      (2, (4,))
    """

    num_rows: int
    batch_size: int = field(kw_only=True)
    seed: int = field(default=0, kw_only=True)
    _plan: tuple[int, np.ndarray] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        check_counter("PairSampler", "seed", self.seed)
        if not 1 <= self.batch_size <= self.num_rows:
            raise ValueError(
                f"PairSampler: `batch_size` must be 1 to the {self.num_rows} rows "
                f"there are, got {self.batch_size}. Use {min(128, self.num_rows)}."
            )
        # A frozen class sets its fields once, here. The plan is a cache, not a state.
        object.__setattr__(self, "_plan", (-1, np.empty(0, np.int32)))

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.num_rows // self.batch_size

    def batch(self, epoch: int, step: int) -> np.ndarray:
        """Return the [batch_size] int32 row ids of a batch, all different.

        Args:
          epoch: an int >= 0.
          step: a position in the epoch, 0 to `steps_per_epoch` - 1.

        Raises:
          ValueError: an epoch or step out of range.
        """
        epoch = check_counter("PairSampler.batch", "epoch", epoch)
        if not 0 <= operator.index(step) < self.steps_per_epoch:
            raise ValueError(
                f"PairSampler.batch: `step` must be in [0, {self.steps_per_epoch}), "
                f"got {step}. Use divmod(step, sampler.steps_per_epoch) for "
                "(epoch, step)."
            )
        # Read once: another thread may plan another epoch meanwhile.
        planned, plan = self._plan
        if planned != epoch:
            random = words(self.seed, epoch, Stream.PAIRS, (self.num_rows,))
            plan = np.argsort(random, kind="stable").astype(np.int32)
            object.__setattr__(self, "_plan", (epoch, plan))
        start = step * self.batch_size
        return plan[start : start + self.batch_size].copy()
