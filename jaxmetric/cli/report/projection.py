"""The held-out embeddings in the plane of their greatest variance."""

import numpy as np

from jaxmetric.cli.report.facts import Projection

_MOST = 2000


def project(
    embeddings: np.ndarray,
    labels: np.ndarray,
    is_right: np.ndarray,
) -> Projection:
    """Return rows in the plane of their first two principal components.

    Args:
      embeddings: [n, dim].
      labels: [n] integer.
      is_right: [n] bool, whether the nearest other row has the same class.

    Returns:
      At most 2,000 rows.
    """
    rows = np.argsort(labels, kind="stable")
    if len(rows) > _MOST:
        rows = rows[_some_classes(labels[rows])]
    x = embeddings[rows].astype(np.float64)
    x -= x.mean(axis=0)
    # The [dim, dim] products: dim is far below the number of rows.
    values, vectors = np.linalg.eigh(x.T @ x)
    plane = vectors[:, ::-1][:, :2]
    # The sign of a component is free; every machine should show the same.
    greatest = np.take_along_axis(plane, np.abs(plane).argmax(axis=0)[None], axis=0)
    plane = plane * np.where(greatest < 0, -1.0, 1.0)
    places = np.zeros((len(rows), 2))
    places[:, : plane.shape[1]] = x @ plane
    size = np.abs(places).max(initial=0)
    total = float(np.maximum(values, 0).sum())
    share = float(values[::-1][:2].sum()) / total if total > 0 else 1.0
    return Projection(
        rows, places / (size if size > 0 else 1), labels[rows], is_right[rows], share
    )


def _some_classes(labels: np.ndarray) -> np.ndarray:
    """Return at most so many positions of ascending labels, of classes spread evenly.

    Classes are shown whole: single points of each would show no cluster.
    """
    classes, counts = np.unique(labels, return_counts=True)
    share = _MOST / len(labels)
    num = max(int(len(classes) * share), 1)
    chosen = np.linspace(0, len(classes), num, endpoint=False).astype(int)
    positions = np.flatnonzero(np.isin(labels, classes[chosen]))
    if len(positions) <= _MOST:
        return positions
    return positions[np.linspace(0, len(positions), _MOST, endpoint=False).astype(int)]
