"""Users and items: interactions of a known structure, and who finds the next ones.

A user and an item have a place each in a space of a few directions, and an item is as
popular as its rank in a Zipf law says. A user meets items in sessions: in each the
interest is the user's own with something of the day added, and items are drawn, none
twice, with odds of exp(strength <interest, item>) times their popularity. The law is
known, so its own ranking is the most that anybody can find.

A fifth of each user's items are held out, the same for all methods of a seed.

* jaxmetric: the command `train` on the ids alone, in this process; the same without
  the correction for how often an item occurs; with features that tell a part of the
  places too.
* most popular: the same list for everybody, without what the user has seen.
* truncated SVD: scikit-learn's, of the matrix of interactions, with the number of
  components that is best on the items held out: more than fair.
* the law itself: the ceiling.
"""

import tempfile
from collections.abc import Container, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxmetric as jm
from jaxmetric.cli import main
from jaxmetric.cli.summary import read_summary

NAMES = ("items",)
_COMPONENTS = (4, 8, 16, 32, 64)
_TOLD = {
    "recall_at_10": "Recall@10",
    "recall_at_20": "Recall@20",
    "ndcg_at_10": "NDCG@10",
}


class Interactions(NamedTuple):
    """Interactions, and the law behind them.

    Attributes:
      users, items: [n] int32 ids, a row an interaction, sessions in their order.
      user_places, item_places: [users, d] and [items, d].
      log_popularity: [items].
    """

    users: np.ndarray
    items: np.ndarray
    user_places: np.ndarray
    item_places: np.ndarray
    log_popularity: np.ndarray


def make_interactions(
    seed: int,
    *,
    num_users: int = 3000,
    num_items: int = 2000,
    dim: int = 8,
    sessions: int = 4,
    per_session: int = 8,
    strength: float = 2.5,
    skew: float = 0.8,
) -> Interactions:
    """Return interactions of the law above.

    Args:
      seed: of everything.
      num_users, num_items, dim: sizes.
      sessions: of each user.
      per_session: items in one, on average.
      strength: how much the places matter.
      skew: popularity is the rank of an item to the power of minus this.
    """
    random = np.random.default_rng(seed)
    places = random.normal(size=(num_users, dim)) * dim**-0.25
    item_places = random.normal(size=(num_items, dim)) * dim**-0.25
    ranks = random.permutation(num_items) + 1
    log_popularity = -skew * np.log(ranks)
    users, items = [], []
    met = np.zeros((num_users, num_items), bool)
    for _ in range(sessions):
        interest = places + 0.5 * random.normal(size=places.shape) * dim**-0.25
        logits = strength * interest @ item_places.T + log_popularity
        # The largest of logits with Gumbel noise are draws without replacement.
        logits += random.gumbel(size=logits.shape)
        logits[met] = -np.inf
        order = np.argsort(-logits, axis=1)[:, : 2 * per_session]
        lengths = np.clip(random.poisson(per_session, num_users), 1, order.shape[1])
        is_met = np.arange(order.shape[1]) < lengths[:, None]
        users.append(np.nonzero(is_met)[0])
        items.append(order[is_met])
        met[users[-1], items[-1]] = True
    return Interactions(
        np.concatenate(users).astype(np.int32),
        np.concatenate(items).astype(np.int32),
        places,
        strength * item_places,
        log_popularity,
    )


def run(
    data_folder: Path | None, *, only: Container[str], num_seeds: int, is_reduced: bool
) -> Iterator[dict[str, Any]]:
    """Give a row for each method and seed."""
    del data_folder
    if "items" not in only:
        return
    sizes = {"num_users": 60, "num_items": 40} if is_reduced else {}
    for seed in range(num_seeds):
        made = make_interactions(seed, **sizes)
        for method, metrics in _measured(made, seed, is_reduced):
            told = {name: metrics[key] for key, name in _TOLD.items()}
            yield {"application": "items", "method": method, "seed": seed, **told}


def _measured(
    made: Interactions, seed: int, is_reduced: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the metrics of all methods on the interactions of a seed."""
    found: dict[str, Any] = {}
    for method, options in (
        ("jaxmetric", ()),
        ("jaxmetric, --no-correction", ("--no-correction",)),
    ):
        found = _trained(made, seed, options, is_reduced)
        yield method, found["trained"]
    noise = np.random.default_rng(seed).normal(size=made.item_places.shape)
    features = made.item_places + noise * made.item_places.std()
    with_features = _trained(made, seed, (), is_reduced, item_features=features)
    yield "jaxmetric, features of the items", with_features["trained"]
    yield "untrained", found["untrained"]
    yield "most popular", found["baseline"]
    yield "truncated SVD", _factorised(made, is_reduced)
    column = np.ones((len(made.user_places), 1))
    law = [
        np.concatenate([made.user_places, column], axis=1),
        np.concatenate([made.item_places, made.log_popularity[:, None]], axis=1),
    ]
    yield "the law itself", _ranked(made, *law)


def _trained(
    made: Interactions,
    seed: int,
    options: tuple[str, ...],
    is_reduced: bool,
    **more: np.ndarray,
) -> dict[str, Any]:
    """Return the summary of a run of `jaxmetric train`."""
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "items.npz", Path(folder) / "run"
        arrays: dict[str, Any] = {"user": made.users, "item": made.items, **more}
        np.savez(data, **arrays)
        words = ["train", str(data), "--query", "user", "--key", "item"]
        words += ["--out", str(out), "--seed", str(seed), "--plain", *options]
        words += ["--steps", "3"] if is_reduced else []
        with redirect_stdout(StringIO()):
            code = main(words)
        if code:
            raise RuntimeError(f"jaxmetric {' '.join(words)}: exit code {code}")
        summary = read_summary(out / "summary.json")
        assert summary is not None
        return summary


def _factorised(made: Interactions, is_reduced: bool) -> dict[str, Any]:
    """Return the metrics of a truncated SVD, at its best number of components."""
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import TruncatedSVD

    train, _ = jm.data.hold_out_interactions(made.users, made.items)
    shape = (len(made.user_places), len(made.item_places))
    ones = np.ones(len(train), np.float32)
    matrix = csr_matrix((ones, (made.users[train], made.items[train])), shape)
    every = []
    for num in _COMPONENTS[: 1 if is_reduced else None]:
        svd = TruncatedSVD(num, random_state=0).fit(matrix)
        components: Any = svd.components_
        every.append(_ranked(made, svd.transform(matrix), components.T))
    return max(every, key=lambda metrics: metrics["recall_at_10"])


def _ranked(made: Interactions, users: np.ndarray, items: np.ndarray) -> dict[str, Any]:
    """Return the metrics of rows whose inner products rank."""
    train, held_out = jm.data.hold_out_interactions(made.users, made.items)
    pairs = np.stack([made.users, made.items], axis=1)
    # The items that occur, as for the runs.
    known = np.unique(made.items)
    pairs[:, 1] = np.searchsorted(known, pairs[:, 1])
    found = jm.retrieval.recommendation(
        users.astype(np.float32),
        items[known].astype(np.float32),
        pairs[held_out],
        pairs[train],
        distance="dot",
    )
    return {name: np.asarray(value).item() for name, value in found.items()}
