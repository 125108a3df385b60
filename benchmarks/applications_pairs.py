"""Pairs: a text for a picture and a picture for a text; two views of a digit.

One fixed split of the rows (seed 0, a fifth held out), the same for all methods; the
features are standardised by the training rows for all of them.

* jaxmetric: the command `train` with the options that are named, in this process.
* CCA: scikit-learn's, compared by the cosine, with the number of components that is
  best on the held-out rows: more than fair.
* class probabilities: a logistic regression on each side (semantic matching), its
  strength chosen so as well, in three ways: probabilities by the cosine and by the
  Euclidean distance, and centred log-probabilities by the cosine.
"""

import tempfile
from collections.abc import Container, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxmetric as jm
from jaxmetric.cli import main
from jaxmetric.cli.paired.measure import evaluate_pairs
from jaxmetric.cli.summary import read_summary

NAMES = ("wiki", "digits-views")
_COMPONENTS, _STRENGTHS = (2, 5, 9, 20, 40), (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
_DIRECTIONS = {"query_to_key": "query to key", "key_to_query": "key to query"}


class _Views(NamedTuple):
    """A file of two views, and how it is trained on.

    Attributes:
      file: its name.
      query, key, labels: names of its arrays.
      methods: options of `train`, by what they are called; None is without labels.
    """

    file: str
    query: str
    key: str
    labels: str
    methods: dict[str, tuple[str, ...] | None]


_VIEWS = {
    "wiki": _Views(
        "wiki_train.npz",
        "image",
        "text",
        "category",
        {
            "the defaults (smooth_ap)": (),
            "supervised_contrastive": ("--loss", "supervised_contrastive"),
            "info_nce": ("--loss", "info_nce"),
            "cross_modal": ("--loss", "cross_modal"),
            "cross_modal, all negatives": ("--loss", "cross_modal", "--no-hardest"),
            "sigmoid_contrastive": ("--loss", "sigmoid_contrastive"),
            "frozen text": ("--freeze", "key"),
            "the defaults without labels (info_nce)": None,
        },
    ),
    "digits-views": _Views(
        "uci_digits_train.npz",
        "fourier",
        "karhunen_loeve",
        "labels",
        {
            "the defaults (smooth_ap)": (),
            "supervised_contrastive": ("--loss", "supervised_contrastive"),
            "info_nce": ("--loss", "info_nce"),
            "cross_modal": ("--loss", "cross_modal"),
            "the defaults without labels (info_nce)": None,
        },
    ),
}


def run(
    data_folder: Path | None, *, only: Container[str], num_seeds: int, is_reduced: bool
) -> Iterator[dict[str, Any]]:
    """Give a row for each method and seed."""
    for name, views in _VIEWS.items():
        if name not in only:
            continue
        path = None if data_folder is None else data_folder / views.file
        if path is None or not path.exists():
            yield {"application": name, "method": "not run: give --data FOLDER"}
            continue
        for method, options in views.methods.items():
            for seed in range(num_seeds):
                metrics = _trained(path, views, options, seed, is_reduced)
                told = {"application": name, "method": f"jaxmetric, {method}"}
                yield {**told, "seed": seed, **_told(metrics)}
        for method, metrics in _baselines(path, views, is_reduced):
            yield {"application": name, "method": method, "seed": 0, **_told(metrics)}


def _trained(
    path: Path,
    views: _Views,
    options: tuple[str, ...] | None,
    seed: int,
    is_reduced: bool,
) -> dict[str, Any]:
    """Return the metrics of a run of `jaxmetric train` on its held-out rows."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        if options is None:
            with np.load(path) as file:
                sides = {name: file[name] for name in (views.query, views.key)}
            path = Path(folder) / "pairs.npz"
            np.savez(path, **sides)
        words = ["train", str(path), "--query", views.query, "--key", views.key]
        words += [] if options is None else ["--labels", views.labels, *options]
        words += ["--out", str(out), "--seed", str(seed), "--plain"]
        words += ["--steps", "3"] if is_reduced else []
        with redirect_stdout(StringIO()):
            code = main(words)
        if code:
            raise RuntimeError(f"jaxmetric {' '.join(words)}: exit code {code}")
        summary = read_summary(out / "summary.json")
        assert summary is not None
        return summary["trained"]


def _baselines(
    path: Path, views: _Views, is_reduced: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the metrics of CCA and of class probabilities, each at its best."""
    from sklearn.cross_decomposition import CCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    with np.load(path) as file:
        x, y, labels = file[views.query], file[views.key], file[views.labels]
    train, held_out = jm.data.hold_out_rows(len(x))
    x, y = (
        np.asarray(StandardScaler().fit(side[train]).transform(side)) for side in (x, y)
    )
    classes, labels = np.unique(labels, return_inverse=True)

    def measured(a: np.ndarray, b: np.ndarray, *, cosine: bool) -> dict[str, Any]:
        rows = [side.astype(np.float32) for side in (a, b)]
        if cosine:
            rows = [np.asarray(jm.l2_normalize(jnp.asarray(side))) for side in rows]
        return evaluate_pairs(rows[0], rows[1], labels[held_out].astype(np.int32))

    found: dict[str, list[dict[str, Any]]] = {}
    for num in _COMPONENTS[: 1 if is_reduced else None]:
        # No more than the narrower side has directions: proportions lack one.
        if num < min(x.shape[1], y.shape[1]):
            cca = CCA(n_components=num, max_iter=1000).fit(x[train], y[train])
            rows = cca.transform(x[held_out], y[held_out])
            found.setdefault("CCA", []).append(measured(*rows, cosine=True))
    for strength in _STRENGTHS[: 1 if is_reduced else None]:
        shares = []
        for side in (x, y):
            model = LogisticRegression(C=strength, max_iter=3000)
            model.fit(side[train], labels[train])
            shares.append(model.predict_proba(side[held_out]))
        logs = [np.log(np.maximum(share, 1e-12)) for share in shares]
        logs = [log - log.mean(axis=1, keepdims=True) for log in logs]
        for how, rows, cosine in (
            ("cosine", shares, True),
            ("Euclidean", shares, False),
            ("logarithms", logs, True),
        ):
            name = f"class probabilities, {how}"
            found.setdefault(name, []).append(measured(*rows, cosine=cosine))
    for name, every in found.items():
        yield name, max(every, key=lambda metrics: sum(_told(metrics).values()))


def _told(metrics: dict[str, Any]) -> dict[str, float]:
    """Return what the table shows, in percent."""
    return {
        f"{word}, {direction}": round(100 * metrics[f"{key}_{name}"], 2)
        for name, word in (
            ("mean_average_precision", "mAP"),
            ("recall_at_10", "Recall@10"),
        )
        for key, direction in _DIRECTIONS.items()
        if f"{key}_{name}" in metrics
    }
