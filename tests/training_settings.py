"""How each loss of the catalogue is trained: what it is given besides its defaults.

Found through `jaxmetric.losses.__all__`: a loss of `embeddings, labels` is called on a
batch, one with `proxies` learns them with the encoder, one of `queries, keys` gets two
views. Only what a signature does not tell stands in a table here, with its reason.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

import jaxmetric as jm

NUM_CLASSES, DIM = 10, 16
LEARNING_RATE = 0.01

Objective = Callable[[Any, jax.Array, jax.Array], Any]


@dataclass(frozen=True)
class Setting:
    """What a loss is trained with; the defaults are those of most losses.

    `ending` is what the encoder ends in: "unit" rows, "raw" rows, or rows in the unit
    cube through a "sigmoid". `proxies` start from a normal distribution of standard
    deviation `proxy_scale`. `with_views` asks for two views of each example.
    """

    ending: str = "unit"
    options: dict[str, Any] = field(default_factory=dict)
    proxies: tuple[int, ...] = ()
    proxy_scale: float = 1.0
    with_views: bool = False
    learning_rate: float = LEARNING_RATE
    objective: Objective | None = None


def _mined_triplets(loss_params: Any, x: jax.Array, labels: jax.Array) -> Any:
    """Semi-hard triplets, chosen by a miner that no gradient passes through."""
    return jm.losses.triplet_loss(x, jm.miners.semi_hard(x, labels))


def _ready_triplets(loss_params: Any, x: jax.Array, labels: jax.Array) -> Any:
    """The hardest triplet of each anchor, as three arrays."""
    a, p, n, valid = jm.miners.batch_hard(x, labels)
    return jm.losses.triplet_margin_loss(x[a], x[p], x[n], where=valid)


def _mined_pairs(loss_params: Any, x: jax.Array, labels: jax.Array) -> Any:
    """The pairs that violate a margin, as two arrays."""
    mined = jm.miners.pair_margin(x, labels)
    first, second = x[mined.anchor], x[mined.other]
    return jm.losses.pair_loss(first, second, mined.is_positive, where=mined.valid)


def _regression(loss_params: Any, x: jax.Array, labels: jax.Array) -> Any:
    """The cosines of all pairs, from 0 to 1, regressed on being of one class."""
    cosines = 1 - jm.pairwise_distance(x, distance="cosine")
    is_same = (labels[:, None] == labels[None, :]).astype(x.dtype)
    return jm.losses.shrinkage_loss(
        ((1 + cosines) / 2).reshape(-1), is_same.reshape(-1)
    )


def _correlation(loss_params: Any, x: jax.Array, labels: jax.Array) -> Any:
    """The cosines of all pairs, in line with being of one class."""
    cosines = 1 - jm.pairwise_distance(x, distance="cosine")
    is_same = (labels[:, None] == labels[None, :]).astype(x.dtype)
    return jm.losses.correlation_loss(cosines.reshape(-1), is_same.reshape(-1))


def _vicreg(loss_params: Any, x: jax.Array, labels: jax.Array) -> Any:
    """Two views without their labels, behind a linear expander as in the paper."""
    first, second = jnp.split(x @ loss_params["proxies"], 2)
    return jm.losses.vicreg_loss(first, second)


def with_softmax(weight: float) -> Objective:
    """Center loss as in its paper: added to a softmax over the same classes."""

    def objective(loss_params: Any, x: jax.Array, labels: jax.Array) -> Any:
        proxies, centers = loss_params["proxies"], loss_params["centers"]
        softmax: Any = jm.losses.weighted_softmax_loss(x, labels, proxies)
        pull: Any = jm.losses.center_loss(x, labels, centers)
        return softmax + weight * pull

    return objective


def with_tuplets(weight: float) -> Objective:
    """Intra-pair variance as in its paper: added to the tuplet margin loss."""

    def objective(loss_params: Any, x: jax.Array, labels: jax.Array) -> Any:
        tuplets: Any = jm.losses.tuplet_margin_loss(x, labels)
        return tuplets + weight * jm.losses.intra_pair_variance_loss(x, labels)

    return objective


# Losses that are not like the others of their signature.
_OWN: dict[str, Setting] = {
    # These take what a miner returns, or plain numbers and no labels.
    "triplet_loss": Setting(objective=_mined_triplets),
    "triplet_margin_loss": Setting(objective=_ready_triplets),
    "pair_loss": Setting(objective=_mined_pairs),
    "shrinkage_loss": Setting(objective=_regression),
    "correlation_loss": Setting(objective=_correlation),
    # On what an expander makes of the rows, dropped after training (the paper).
    "vicreg_loss": Setting(
        ending="raw",
        with_views=True,
        proxies=(DIM, 128),
        proxy_scale=0.1,
        objective=_vicreg,
    ),
    # Defined on rows in a cube, through a sigmoid (the post), whose slope is 1/4.
    "lossless_triplet_loss": Setting(ending="sigmoid", learning_rate=0.03),
    # Of inner products or norms: unit rows would leave next to nothing to learn.
    "n_pairs_loss": Setting(ending="raw"),
    "weighted_softmax_loss": Setting(ending="raw", proxies=(NUM_CLASSES, DIM)),
    # Both papers train with annealing, down to 5. Without, rows shrink to nothing: of
    # a class that the angles do not yet separate the norm only raises the loss.
    "sphereface_loss": Setting(
        ending="raw", proxies=(NUM_CLASSES, DIM), options={"annealing": 5.0}
    ),
    "large_margin_softmax_loss": Setting(
        ending="raw", proxies=(NUM_CLASSES, DIM), options={"annealing": 5.0}
    ),
    # Of the sigmoids of inner products, which must not start out saturated.
    "distributional_ranking_loss": Setting(
        ending="raw", proxies=(NUM_CLASSES, DIM), proxy_scale=0.1
    ),
    # A row is in its own softmax at similarity 1: at gamma 64 it holds all the weight.
    "instance_loss": Setting(options={"gamma": 4.0}),
    # At alpha 8 a positive behind some negatives has no gradient left (1 - (1 + R)^-8),
    # and of an untrained network dozens are in front.
    "pnp_loss": Setting(options={"alpha": 1.0}),
    # The hinge lets go of a row at a margin of 5e-4, long before ranks are settled.
    "manifold_loss": Setting(proxies=(NUM_CLASSES, DIM), options={"margin": 0.05}),
    # The hardest of all from the first step on collapses small encoders; the authors'
    # code adds up all of them by default.
    "cross_modal_triplet_loss": Setting(with_views=True, options={"hardest": False}),
    # Several proxies a class.
    "subcenter_arcface_loss": Setting(proxies=(NUM_CLASSES, 3, DIM)),
    "soft_triple_loss": Setting(proxies=(NUM_CLASSES, 3, DIM)),
    # These two only draw rows of a class together, so their papers add them to another
    # loss: the first at 0.003 to a softmax, the second to a loss of scale 64, which it
    # would not be felt beside at a weight of 1.
    "center_loss": Setting(
        ending="raw", proxies=(NUM_CLASSES, DIM), objective=with_softmax(0.003)
    ),
    "intra_pair_variance_loss": Setting(objective=with_tuplets(64.0)),
}


def names() -> list[str]:
    """Return every loss of the catalogue."""
    return [n for n in jm.losses.__all__ if callable(getattr(jm.losses, n))]


def setting(name: str) -> Setting:
    """Return how a loss is trained."""
    if name in _OWN:
        return _OWN[name]
    parameters = inspect.signature(getattr(jm.losses, name)).parameters
    first = list(parameters)[:3]
    if first[:2] == ["queries", "keys"]:
        return Setting(with_views=True)
    if first[:2] != ["embeddings", "labels"]:
        raise LookupError(f"{name} needs a setting of its own in {__file__}")
    return Setting(proxies=(NUM_CLASSES, DIM) if "proxies" in first else ())


def objective(name: str) -> Objective:
    """Return loss_fn(loss_params, embeddings, labels) of a loss."""
    own = setting(name)
    if own.objective is not None:
        return own.objective
    loss = getattr(jm.losses, name)

    def of_views(loss_params: Any, x: jax.Array, labels: jax.Array) -> Any:
        queries, keys = jnp.split(x, 2)
        # Another example of the class is no negative: it could not be told apart.
        return loss(queries, keys, labels=labels[: len(queries)], **own.options)

    def of_classes(loss_params: Any, x: jax.Array, labels: jax.Array) -> Any:
        proxies = (loss_params["proxies"],) if own.proxies else ()
        return loss(x, labels, *proxies, **own.options)

    return of_views if own.with_views else of_classes
