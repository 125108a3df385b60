"""Do clusters of the embeddings agree with the classes?"""

import numpy as np
from jax.typing import ArrayLike

from jaxmetric import _checks, _numerics
from jaxmetric.retrieval import sides

__all__ = ["clustering"]


def clustering(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    num_clusters: int | None = None,
    num_restarts: int = 10,
    seed: int = 0,
    where: ArrayLike | None = None,
) -> dict[str, float | int]:
    """Return how well k-means clusters of the embeddings agree with the labels.

    With I the mutual information of clusters and labels, H their entropies, and E[I]
    its expectation over random clusters of the same sizes:

    nmi   I / mean of H(clusters) and H(labels)
    ami   (I - E[I]) / (mean of the entropies - E[I]): 0 on average for chance

    Both come from scikit-learn, as the clusters do; on the host, so not under `jit`.
    They are NaN where an existing row is not finite.

    Args:
      embeddings: [n, dim] floating.
      labels: [n] integer.
      num_clusters: of k-means; None for the number of classes. Where there are fewer
        distinct rows, they are the clusters.
      num_restarts: k-means keeps the best of so many starts.
      seed: of the starts.
      where: [n] bool, which rows exist.

    Returns:
      A dict of Python numbers: `nmi`, `ami`, and the number of `num_clusters`.

    Raises:
      ImportError: scikit-learn is not installed. ValueError: shapes or ranges do not
        fit. TypeError: dtypes do not fit, or an array is traced.

    Memory: O(n (dim + clusters)) on the host.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]])
      >>> found = clustering(x, jnp.array([0, 0, 1, 1, 1, 1]), num_clusters=3)
      >>> print(f"{found['nmi']:.3f} {found['ami']:.3f}")
      0.734 0.615

    Source: Vinh, Epps, Bailey. Information Theoretic Measures for Clusterings
    Comparison. JMLR, 2010.
    """
    function = "clustering"
    x = _checks.embeddings(function, "embeddings", embeddings)
    integers = _checks.integers(function, "labels", labels, x, "embeddings")
    exists = _checks.mask(function, "where", where, x, "embeddings")
    remedy = "Use 10 for stable clusters."
    sides.one_positive_int(function, "num_restarts", num_restarts, remedy)
    if num_clusters is not None:
        remedy = "Use None for the number of classes."
        sides.one_positive_int(function, "num_clusters", num_clusters, remedy)
    try:
        import sklearn.cluster
        import sklearn.metrics
    except ImportError as error:
        raise ImportError(
            f"{function}: scikit-learn is needed for k-means, and is not installed. "
            "Run pip install 'jaxmetric[cli]'."
        ) from error
    # Half precision as float32, as everywhere.
    x = x.astype(_numerics.accumulation_dtype(x))
    rows = sides.on_host(function, "embeddings", x)
    classes = sides.on_host(function, "labels", integers)
    exists = sides.on_host(function, "where", exists)
    rows, classes = rows[exists], classes[exists]
    if not rows.size or not np.isfinite(rows).all():
        return {"nmi": float("nan"), "ami": float("nan"), "num_clusters": 0}
    wanted = num_clusters or np.unique(classes).size
    distinct, clusters = np.unique(rows, axis=0, return_inverse=True)
    # k-means warns where it cannot fill its clusters; there is nothing to search then.
    if distinct.shape[0] > wanted:
        means = sklearn.cluster.KMeans(
            wanted,
            n_init=num_restarts,  # pyright: ignore (a name or a number)
            random_state=seed,
        )
        clusters = means.fit_predict(rows)
    clusters = clusters.ravel()
    return {
        "nmi": float(sklearn.metrics.normalized_mutual_info_score(classes, clusters)),
        "ami": float(sklearn.metrics.adjusted_mutual_info_score(classes, clusters)),
        "num_clusters": int(min(wanted, distinct.shape[0])),
    }
