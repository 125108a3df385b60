"""What a report tells, as plain numbers and words: nothing of how it is drawn."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Spread(NamedTuple):
    """A metric and its confidence interval."""

    value: float
    low: float
    high: float


class Neighbor(NamedTuple):
    """What was found for a query.

    Attributes:
      row: of the held-out rows.
      label: the name of its class.
      distance: from the query.
      is_right: whether it has the query's class.
    """

    row: int
    label: str
    distance: float
    is_right: bool


class Query(NamedTuple):
    """A held-out row as a query.

    Attributes:
      row, label: see `Neighbor`.
      score: its MAP@R.
      first_right: the rank of the nearest row of its class, 1 for the nearest of all.
      neighbors: nearest first.
    """

    row: int
    label: str
    score: float
    first_right: int
    neighbors: tuple[Neighbor, ...]


class Projection(NamedTuple):
    """Held-out embeddings in the plane.

    Attributes:
      rows: [n], of the held-out rows.
      places: [n, 2] in [-1, 1].
      classes: [n] positions in the names of the classes.
      is_right: [n] bool, whether the nearest other row has the same class.
      share: of the variance that the plane shows.
    """

    rows: np.ndarray
    places: np.ndarray
    classes: np.ndarray
    is_right: np.ndarray
    share: float


class Pairs(NamedTuple):
    """Distances of pairs of held-out rows.

    Attributes:
      edges: [bins + 1] distances.
      same, different: [bins] shares of the pairs of one class and of two.
      num_same, num_different: how many pairs were measured.
      threshold: where as many of the ones are refused as of the others are accepted.
      rates: what `jaxmetric.retrieval.verification` returns.
    """

    edges: np.ndarray
    same: np.ndarray
    different: np.ndarray
    num_same: int
    num_different: int
    threshold: float
    rates: Mapping[str, float]


class Mistake(NamedTuple):
    """A class that is mistaken for another.

    Attributes:
      label, taken_for: names of the classes.
      count, size: how many of the queries of the class.
      row, other_row: one of these queries, and what was found for it.
    """

    label: str
    taken_for: str
    count: int
    size: int
    row: int
    other_row: int


class Confusion(NamedTuple):
    """Which classes the nearest rows are of.

    Attributes:
      mistakes: pairs of classes, the most frequent first.
      labels: [c] names of the classes in the matrix.
      counts: [c, c] queries of a class (line) by the class of what was found (column).
      elsewhere: [c] queries whose nearest row is of a class that is not in the matrix.
      num_wrong, num_queries: over all classes.
    """

    mistakes: tuple[Mistake, ...]
    labels: tuple[str, ...]
    counts: np.ndarray
    elsewhere: np.ndarray
    num_wrong: int
    num_queries: int


class Facts(NamedTuple):
    """All that a report tells.

    Attributes:
      name: of the run.
      config: the sections of config.yaml.
      summary: of summary.json; empty where the run has not finished.
      records: of metrics.jsonl.
      data: words on the data, name to value.
      blocks: metrics by what they are of: untrained, pixels or raw, trained.
      metrics: of the trained encoder, with their intervals.
      num_queries: that the metrics are averaged over.
      queries: the worst first.
      projection, pairs, confusion: see there; pairs is None without pairs of a kind.
      classes: names of the held-out classes.
      sweep: of sweep.json; None where the run is not the best of a sweep.
      is_image: whether rows can be seen.
      notes: what is odd.
      calibrated: the threshold that `jaxmetric calibrate` has kept, and the rate of
        false accepts that was asked for; None where it has not.
      texts: what the held-out rows say, None where they are no texts.
    """

    name: str
    config: Mapping[str, Mapping[str, Any]]
    summary: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    data: Mapping[str, str]
    blocks: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Spread]
    num_queries: int
    queries: tuple[Query, ...]
    projection: Projection
    pairs: Pairs | None
    confusion: Confusion
    classes: tuple[str, ...]
    sweep: Mapping[str, Any] | None
    is_image: bool
    notes: tuple[str, ...]
    calibrated: tuple[float, float] | None = None
    texts: tuple[str, ...] | None = None


class Told(NamedTuple):
    """What every report of a run of pairs tells.

    Attributes:
      name: of the run.
      title: what was measured.
      config, summary, records: of its files; the summary is empty for a run that was
        cut.
      columns: headings of metrics, the most important first.
      data: words on the data, name to value.
      notes: what is odd.
    """

    name: str
    title: str
    config: Mapping[str, Mapping[str, Any]]
    summary: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    columns: Mapping[str, str]
    data: Mapping[str, str]
    notes: Sequence[str] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """No classes are held out."""
        return ()
