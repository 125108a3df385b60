"""The checked arguments of a loss or miner: anchor rows against references.

The shared arguments (`where`, `ids`, `ref_*` and the rest) are checked and converted
here, once for the whole catalogue.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmetric import _checks, _geometry, _numerics, pairs
from jaxmetric._geometry import Distance, Precision


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "y", "anchors", "references", "weights", "is_valid"],
    meta_fields=["distance", "precision", "axis_name"],
)
@dataclasses.dataclass(frozen=True)
class Comparison:
    """Checked arguments of a loss: anchor rows against references.

    Attributes:
      x: [m, dim] anchor rows; y: [n, dim] references, None for the rows themselves.
      anchors, references: their labels, ids and `where`.
      weights: [m] or None.
      is_valid: scalar bool, False makes the loss NaN (a label without a proxy).
      distance, precision, axis_name: as in the losses.
    """

    x: jax.Array
    y: jax.Array | None
    anchors: pairs.Side
    references: pairs.Side
    weights: jax.Array | None
    is_valid: jax.Array
    distance: Distance
    precision: Precision
    axis_name: str | None

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype in which distances are computed."""
        return _numerics.accumulation_dtype(
            self.x, *([] if self.y is None else [self.y])
        )

    @property
    def num_rows(self) -> int:
        """The number of anchor rows."""
        return self.x.shape[0]


def compare(
    function: str,
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    distance: Distance,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    ref_embeddings: ArrayLike | None = None,
    ref_labels: ArrayLike | None = None,
    ref_where: ArrayLike | None = None,
    ref_ids: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Comparison:
    """Check the shared arguments of a labelled loss."""
    x = _checks.embeddings(function, "embeddings", embeddings)
    labels = _checks.integers(function, "labels", labels, x, "embeddings")
    where = _checks.mask(function, "where", where, x, "embeddings")
    if ids is not None:
        ids = _checks.integers(function, "ids", ids, x, "embeddings")
    if weights is not None:
        dtype = _numerics.accumulation_dtype(x)
        weights = _checks.weights(function, weights, x.shape[0], dtype)
    anchors = pairs.Side(labels, where, ids, None)
    y, references = None, anchors
    others = dict(ref_labels=ref_labels, ref_where=ref_where, ref_ids=ref_ids)
    if ref_embeddings is None:
        for name, value in others.items():
            if value is not None:
                must, got = "come with `ref_embeddings`", "it alone"
                remedy = "Pass both, or neither to compare the batch with itself."
                raise ValueError(_checks.text(function, name, must, got, remedy))
    else:
        y = _checks.embeddings(function, "ref_embeddings", ref_embeddings)
        _checks.same_width(function, "ref_embeddings", y, x)
        if ref_labels is None:
            must, got = "come with `ref_embeddings`", "None"
            remedy = "Pass one integer a reference."
            raise ValueError(_checks.text(function, "ref_labels", must, got, remedy))
        of = "ref_embeddings"
        ref_labels = _checks.integers(function, "ref_labels", ref_labels, y, of)
        ref_where = _checks.mask(function, "ref_where", ref_where, y, of)
        if (anchors.ids is None) != (ref_ids is None):
            name, other = ("ref_ids", "ids") if ref_ids is None else ("ids", "ref_ids")
            must, remedy = f"come with `{other}`", "Name the samples of both sides."
            raise ValueError(_checks.text(function, name, must, "None", remedy))
        labels, ref_labels = _checks.alike(labels, ref_labels)
        anchors = anchors._replace(labels=labels)
        samples = None
        if anchors.ids is not None and ref_ids is not None:
            samples = _checks.integers(function, "ref_ids", ref_ids, y, of)
            ids, samples = _checks.alike(anchors.ids, samples)
            anchors = anchors._replace(ids=ids)
        references = pairs.Side(ref_labels, ref_where, samples, None)
    _geometry.check_distance(function, distance, x, y)
    return Comparison(
        x=x,
        y=y,
        anchors=anchors,
        references=references,
        weights=weights,
        is_valid=jnp.array(True),
        distance=distance,
        precision=_checks.precision(function, precision),
        axis_name=axis_name,
    )


def compare_proxies(
    function: str,
    embeddings: ArrayLike,
    labels: ArrayLike,
    proxies: ArrayLike,
    *,
    distance: Distance,
    precision: Precision = "highest",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Comparison:
    """Check the arguments of a loss over class proxies: row c stands for label c."""
    proxies = _checks.embeddings(function, "proxies", proxies)
    num_classes = proxies.shape[0]
    comparison = compare(
        function,
        embeddings,
        labels,
        distance=distance,
        precision=precision,
        where=where,
        weights=weights,
        axis_name=axis_name,
    )
    remedy = "Make the head's width match."
    _checks.same_width(function, "proxies", proxies, comparison.x, remedy=remedy)
    known = _checks.classes(function, labels, comparison.anchors.labels, num_classes)
    classes = jnp.arange(num_classes, dtype=comparison.anchors.labels.dtype)
    exists = jnp.ones(num_classes, bool)
    return dataclasses.replace(
        comparison,
        y=proxies,
        references=pairs.Side(classes, exists, None, None),
        is_valid=jnp.all(known | ~comparison.anchors.where),
    )
