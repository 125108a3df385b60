"""Batches of P classes x K examples as a pure function of (seed, epoch, step)."""

import operator
from dataclasses import dataclass, field

import numpy as np

from jaxmetric.data._words import Stream, check_counter, check_labels, words


@dataclass(frozen=True, eq=False)
class ClassSampler:
    """Batches of `num_classes` different classes with `m_per_class` rows each.

    An epoch is a number of rounds; in a round every class comes once, in an order of
    its own. Within an epoch the counts of two classes therefore differ by at most one,
    and every class comes at least once. The rows of a class are shuffled once an epoch
    and taken in turn, so none comes a second time before all have come. A class with
    fewer than `m_per_class` rows repeats rows inside a batch: the row ids are then
    equal, and a loss that is given them as `ids` takes no row for its own positive.

    There is no state: `batch` gives the same row ids for the same arguments in any
    order, in any process, on any machine (raw Philox words and stable sorting; see
    `jaxmetric.data._words`). To resume at a step is to ask for that step.

    Attributes:
      labels: [n] integer, the class of each row; any values.
      num_classes: P, at most the number of classes in `labels`.
      m_per_class: K, rows of each class.
      seed: which sequence of epochs, an int >= 0.

    Raises:
      ValueError: P or K that the labels cannot give. TypeError: labels that are no
        integers.

    Memory: O(n); the plan of the latest epoch is kept. Time: O(n log n) for the first
      batch of an epoch, O(P K) for the others.

    Example:
      >>> import numpy as np
      >>> sampler = ClassSampler(np.arange(12) % 3, num_classes=2, m_per_class=2)
      >>> sampler.steps_per_epoch, sampler.batch(epoch=0, step=2).shape
      (3, (4,))
    """

    labels: np.ndarray = field(repr=False)
    num_classes: int = field(kw_only=True)
    m_per_class: int = field(kw_only=True)
    seed: int = field(default=0, kw_only=True)
    _numbers: np.ndarray = field(init=False, repr=False)
    _counts: np.ndarray = field(init=False, repr=False)
    _starts: np.ndarray = field(init=False, repr=False)
    _plan: tuple[int, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self):
        labels = check_labels("ClassSampler", self.labels).copy()
        labels.setflags(write=False)
        check_counter("ClassSampler", "seed", self.seed)
        classes, numbers, counts = np.unique(
            labels, return_inverse=True, return_counts=True
        )
        self._check_sizes(len(classes), int(counts.max()))
        # A frozen class sets its fields once, here. The plan is a cache, not a state.
        values = {
            "labels": labels,
            "_numbers": numbers,
            "_counts": counts,
            "_starts": np.cumsum(counts) - counts,
            "_plan": (-1, np.empty(0, np.int32)),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassSampler) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    @property
    def batch_size(self) -> int:
        """Rows in a batch, P x K."""
        return self.num_classes * self.m_per_class

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch: as many rows as there are, and every class once."""
        visits = max(-(-len(self.labels) // self.m_per_class), len(self._counts))
        return -(-visits // self.num_classes)

    def batch(self, epoch: int, step: int) -> np.ndarray:
        """Return the [P * K] int32 row ids of a batch, K rows of a class together.

        Args:
          epoch: an int >= 0.
          step: a position in the epoch, 0 to `steps_per_epoch` - 1.

        Raises:
          ValueError: an epoch or step out of range.
        """
        epoch = check_counter("ClassSampler.batch", "epoch", epoch)
        if not 0 <= operator.index(step) < self.steps_per_epoch:
            raise ValueError(
                "ClassSampler.batch: `step` must be in [0, "
                f"{self.steps_per_epoch}), got {step}. "
                "Use divmod(step, sampler.steps_per_epoch) for (epoch, step)."
            )
        # Read once: another thread may plan another epoch meanwhile.
        planned, plan = self._plan
        if planned != epoch:
            plan = self._make_plan(epoch)
            object.__setattr__(self, "_plan", (epoch, plan))
        return plan[step].copy()

    def _make_plan(self, epoch: int) -> np.ndarray:
        """Return the [steps, P * K] row ids of an epoch."""
        num_slots = self.steps_per_epoch * self.num_classes
        rounds = self._class_order(epoch, num_slots)
        classes = rounds.reshape(-1)[:num_slots]
        visits = np.arange(num_slots) // rounds.shape[1]
        random = words(self.seed, epoch, Stream.ROWS, self.labels.shape)
        # [n] rows, class by class, shuffled inside each class.
        rows = np.lexsort((random, self._numbers))
        turns = visits[:, None] * self.m_per_class + np.arange(self.m_per_class)
        turns %= self._counts[classes][:, None]
        plan = rows[self._starts[classes][:, None] + turns]
        return plan.astype(np.int32).reshape(self.steps_per_epoch, self.batch_size)

    def _class_order(self, epoch: int, num_slots: int) -> np.ndarray:
        """Return [rounds, classes], the order of the classes in each round."""
        num_classes = len(self._counts)
        num_rounds = -(-num_slots // num_classes)
        shape = (num_rounds, num_classes)
        random = words(self.seed, epoch, Stream.CLASSES, shape)
        order = np.argsort(random, axis=1, kind="stable")
        for r in range(1, num_rounds):
            num_open = (r * num_classes) % self.num_classes
            if num_open:
                # A batch begins with the last classes of one round and ends with the
                # first of the next, which must be other ones: P different classes.
                is_other = ~np.isin(order[r], order[r - 1, -num_open:])
                head = np.flatnonzero(is_other)[: self.num_classes - num_open]
                is_rest = np.ones(num_classes, bool)
                is_rest[head] = False
                order[r] = np.concatenate([order[r, head], order[r, is_rest]])
        return order

    def _check_sizes(self, num_classes: int, largest: int) -> None:
        """Require P and K that labels of so many classes can give."""
        for name, value in (
            ("num_classes", self.num_classes),
            ("m_per_class", self.m_per_class),
        ):
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ValueError(
                    f"ClassSampler: `{name}` must be a positive int, got {value!r}. "
                    "Use 4."
                )
            if value < 1:
                raise ValueError(
                    f"ClassSampler: `{name}` must be a positive int, got {value}. "
                    "Use 4."
                )
        if self.num_classes > num_classes:
            raise ValueError(
                "ClassSampler: `num_classes` must be at most the "
                f"{num_classes} classes of `labels`, got {self.num_classes}. "
                f"Use num_classes={num_classes}."
            )
        if self.m_per_class > 1 and largest == 1:
            raise ValueError(
                f"ClassSampler: `m_per_class` of {self.m_per_class} must find a class "
                "with two rows, got labels that are all different. "
                "Give more examples of each class."
            )

    def _identity(self) -> tuple:
        """Return what tells two samplers apart."""
        labels = (self.labels.dtype.str, self.labels.tobytes())
        return (labels, self.num_classes, self.m_per_class, self.seed)
