"""The checked arguments of a loss or miner: anchor rows against references.

The shared arguments (`where`, `ids`, `ref_*` and the rest) are checked and converted
here, once for the whole catalogue.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxmetric import _checks, _geometry, _numerics, pairs, relations
from jaxmetric._geometry import Distance, Precision
from jaxmetric.relations import Labels, Relation


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "y", "anchors", "references", "weights", "is_valid"],
    meta_fields=["distance", "precision", "axis_name", "has_proxies"],
)
@dataclasses.dataclass(frozen=True)
class Comparison:
    """Checked arguments of a loss: anchor rows against references.

    Attributes:
      x: [m, dim] anchor rows; y: [n, dim] references, None for the rows themselves.
      anchors, references: their labels (or relation), ids and `where`.
      weights: [m] or None.
      is_valid: scalar bool, False makes the loss NaN (a label without a proxy).
      distance, precision, axis_name: as in the losses.
      has_proxies: whether `y` are proxies, which every device has all of.
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
    has_proxies: bool = False

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
    labels: Labels,
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
    needs_classes: bool = False,
) -> Comparison:
    """Check the shared arguments of a labelled loss or miner.

    `needs_classes` refuses a relation in place of labels.
    """
    if needs_classes:
        relations.refuse(function, labels)
    x = _checks.embeddings(function, "embeddings", embeddings)
    _checks.not_explicit(function, "embeddings", x)
    relation, classes = None, None
    if isinstance(labels, Relation):
        relation = labels
        relations.refuse_ref_labels(function, ref_labels)
    else:
        classes = _checks.integers(function, "labels", labels, x, "embeddings")
    where = _checks.mask(function, "where", where, x, "embeddings")
    if ids is not None:
        ids = _checks.integers(function, "ids", ids, x, "embeddings")
    if weights is not None:
        dtype = _numerics.accumulation_dtype(x)
        weights = _checks.weights(function, weights, x.shape[0], dtype)
    anchors = pairs.Side(classes, where, ids, None)
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
        _checks.not_explicit(function, "ref_embeddings", y)
        _checks.same_width(function, "ref_embeddings", y, x)
        of = "ref_embeddings"
        ref_classes = None
        if classes is not None:
            if ref_labels is None:
                must, got = f"come with `{of}`", "None"
                remedy = "Pass one integer a reference."
                raise ValueError(
                    _checks.text(function, "ref_labels", must, got, remedy)
                )
            ref_classes = _checks.integers(function, "ref_labels", ref_labels, y, of)
            classes, ref_classes = _checks.alike(classes, ref_classes)
        ref_where = _checks.mask(function, "ref_where", ref_where, y, of)
        if (anchors.ids is None) != (ref_ids is None):
            name, other = ("ref_ids", "ids") if ref_ids is None else ("ids", "ref_ids")
            must, remedy = f"come with `{other}`", "Name the samples of both sides."
            raise ValueError(_checks.text(function, name, must, "None", remedy))
        anchors = anchors._replace(labels=classes)
        samples = None
        if anchors.ids is not None and ref_ids is not None:
            samples = _checks.integers(function, "ref_ids", ref_ids, y, of)
            ids, samples = _checks.alike(anchors.ids, samples)
            anchors = anchors._replace(ids=ids)
        references = pairs.Side(ref_classes, ref_where, samples, None)
    if relation is not None:
        shape = (x.shape[0], _num_references(x if y is None else y, axis_name))
        others = "`embeddings`" if y is None else "`ref_embeddings`"
        relation = relations.check(function, relation, shape, others)
        anchors = anchors._replace(relation=relation)
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


def is_shard(y: jax.Array, axis_name: str) -> bool:
    """Return whether references are one shard of the global ones, to be gathered.

    References that are alike on all devices are used as they are, where JAX tracks
    that.
    """
    is_tracked = axis_name in _numerics.varying_axes(lax.axis_index(axis_name))
    return not is_tracked or axis_name in _numerics.varying_axes(y)


def _num_references(y: jax.Array, axis_name: str | None) -> int:
    """Return how many references an anchor is compared with, on all devices."""
    if axis_name is None or not is_shard(y, axis_name):
        return y.shape[0]
    return y.shape[0] * lax.axis_size(axis_name)


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
    has_centers: bool = False,
) -> Comparison:
    """Check the arguments of a loss over class proxies: row c stands for label c.

    With `has_centers` the proxies are [C, K, dim], and the references of the result
    their rows [C K, dim], class by class.
    """
    relations.refuse(function, labels)
    num_centers = 1
    if has_centers:
        proxies = _checks.centers(function, "proxies", proxies)
        num_classes, num_centers, dim = proxies.shape
        proxies = proxies.reshape(num_classes * num_centers, dim)
    else:
        proxies = _checks.embeddings(function, "proxies", proxies)
        _checks.not_explicit(function, "proxies", proxies)
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
    # Labels of 8 bits may name 127 classes of a thousand.
    classes = jnp.arange(num_classes, dtype=jnp.int32)
    mine, classes = _checks.alike(comparison.anchors.labels, classes)
    known = _checks.classes(function, labels, mine, num_classes)
    classes = jnp.repeat(classes, num_centers)
    exists = jnp.ones(num_classes * num_centers, bool)
    return dataclasses.replace(
        comparison,
        y=proxies,
        anchors=comparison.anchors._replace(labels=mine),
        references=pairs.Side(classes, exists, None, None),
        is_valid=jnp.all(known | ~comparison.anchors.where),
        has_proxies=True,
    )
