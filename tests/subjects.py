"""The losses under test: found through `jaxmetric.losses.__all__`, not listed.

A loss whose parameters start with `embeddings, labels` is called as it is, `proxies`
filled by name; one of `queries, keys` gets the references as its keys. The few that
take ready-made triplets or pairs get an adapter, which makes every index triplet (pair)
of the batch a slot. Each is compiled as one function of a fixed shape that returns
everything the battery looks at; cases of any content go through it.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import jaxmetric as jm

# Batches in one call of a compiled function, each of [ROWS, DIM] (degenerate.py).
STACK = 64

# Keywords that mean the same in every loss; the others are its hyper-parameters.
SHARED = frozenset(
    "labels distance precision where weights ids ref_embeddings ref_labels ref_where "
    "ref_ids log_frequencies reduction block_size axis_name".split()
)

Arrays = Mapping[str, Any]


def _masks(case: Arrays) -> tuple[jax.Array, jax.Array]:
    """Return the [n, m] masks of positive and negative pairs of a case."""
    labels = jnp.asarray(case["labels"])
    n = labels.shape[0]
    is_self = case.get("ref_embeddings") is None
    ref_labels = labels if is_self else jnp.asarray(case["ref_labels"])
    m = ref_labels.shape[0]
    allowed = ~jnp.eye(n, dtype=bool) if is_self else jnp.ones((n, m), bool)
    ids, where = case.get("ids"), case.get("where")
    ref_ids = ids if is_self else case.get("ref_ids")
    ref_where = where if is_self else case.get("ref_where")
    if ids is not None and ref_ids is not None:
        allowed &= jnp.asarray(ids)[:, None] != jnp.asarray(ref_ids)[None, :]
    if where is not None:
        allowed &= jnp.asarray(where)[:, None]
    if ref_where is not None:
        allowed &= jnp.asarray(ref_where)[None, :]
    is_equal = labels[:, None] == ref_labels[None, :]
    return is_equal & allowed, ~is_equal & allowed


def _references(case: Arrays) -> jax.Array:
    is_self = case.get("ref_embeddings") is None
    return jnp.asarray(case["embeddings" if is_self else "ref_embeddings"])


def _triplet_slots(case: Arrays) -> jm.Triplets:
    is_positive, is_negative = _masks(case)
    n, m = is_positive.shape
    slots = np.indices((n, m, m)).reshape(3, -1).astype(np.int32)
    valid = (is_positive[:, :, None] & is_negative[:, None, :]).reshape(-1)
    anchor, positive, negative = map(jnp.asarray, slots)
    return jm.Triplets(anchor, positive, negative, valid)


def _per_slot(options: dict[str, Any], anchor: jax.Array) -> dict[str, Any]:
    """Return the options with one margin and one weight a slot instead of an anchor."""
    per_slot = ("margin", "weights")
    return {
        key: value[anchor] if key in per_slot and jnp.ndim(value) == 1 else value
        for key, value in options.items()
    }


def _triplet_margin_loss(case: Arrays, options: dict[str, Any]) -> Any:
    a, p, n, valid = _triplet_slots(case)
    x, y = jnp.asarray(case["embeddings"]), _references(case)
    options = _per_slot(options, a)
    return jm.losses.triplet_margin_loss(x[a], y[p], y[n], where=valid, **options)


def _triplet_loss(case: Arrays, options: dict[str, Any]) -> Any:
    keys = ("where", "ref_embeddings", "ref_where")
    sides = {key: case[key] for key in keys if case.get(key) is not None}
    triplets = _triplet_slots(case)
    return jm.losses.triplet_loss(case["embeddings"], triplets, **sides, **options)


def _pair_loss(case: Arrays, options: dict[str, Any]) -> Any:
    positive, negative = (mask.reshape(-1) for mask in _masks(case))
    x, y = jnp.asarray(case["embeddings"]), _references(case)
    i, j = np.indices((x.shape[0], y.shape[0])).reshape(2, -1)
    options, where = _per_slot(options, jnp.asarray(i)), positive | negative
    return jm.losses.pair_loss(x[i], y[j], positive, where=where, **options)


ADAPTERS: dict[str, Callable[[Arrays, dict[str, Any]], Any]] = {
    "triplet_margin_loss": _triplet_margin_loss,
    "triplet_loss": _triplet_loss,
    "pair_loss": _pair_loss,
}

# Losses of other arrays than embeddings and labels: the same promises are tested there.
ELSEWHERE: dict[str, str] = {
    "correlation_loss": "test_losses_unlabelled_correlation.py",
    "shrinkage_loss": "test_losses_unlabelled.py",
    "vicreg_loss": "test_losses_unlabelled.py",
}

# Rows outside of every slot do not reach these two, so that they cannot be poisoned.
ROWS_UNSEEN = frozenset({"triplet_margin_loss", "pair_loss"})


@dataclass(frozen=True)
class Subject:
    """A loss under test, called with the arrays of a case by keyword name."""

    name: str

    @property
    def function(self) -> Callable[..., Any]:
        """The public function."""
        return getattr(jm.losses, self.name)

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the public function."""
        return inspect.signature(self.function).parameters

    @property
    def oracle(self) -> oracles.Oracle:
        """The oracle, whose absence is a failure of its own test."""
        if self.name not in oracles.ORACLES:
            pytest.fail(f"{self.name} has no oracle: register one in tests/oracles.py")
        return oracles.ORACLES[self.name]

    @property
    def has_references(self) -> bool:
        """Whether the other side may be another set of rows."""
        has_other_side = "ref_embeddings" in self.parameters or self.is_paired
        return has_other_side or self.name in ADAPTERS

    @property
    def is_paired(self) -> bool:
        """Whether row i of one side belongs to row i of the other."""
        return _first_parameters(self.name) == ["queries", "keys"]

    @property
    def hyper(self) -> set[str]:
        """The names of the loss's own hyper-parameters and flags."""
        keyword = inspect.Parameter.KEYWORD_ONLY
        return {k for k, p in self.parameters.items() if p.kind is keyword} - SHARED

    def __call__(self, case: Arrays, **options: Any) -> Any:
        """Call the loss; arrays that are absent or None are left to their defaults."""
        case = {key: value for key, value in case.items() if value is not None}
        if self.name in ADAPTERS:
            if "weights" in case and "weights" in self.parameters:
                options["weights"] = case["weights"]
            return ADAPTERS[self.name](case, options)
        names = ["embeddings", "labels"] + ["proxies"] * ("proxies" in self.parameters)
        extra = {k: v for k, v in case.items() if k in self.parameters}
        if self.is_paired:  # the keys are the queries where a case has no others
            queries = case["embeddings"]
            keys = case.get("ref_embeddings", queries)
            return self.function(queries, keys, **extra, **options)
        arrays = [extra.pop(name) for name in names]
        return self.function(*arrays, **extra, **options)


def discovered() -> list[Subject]:
    """Return every loss of the catalogue that the battery can call."""
    names = [name for name in jm.losses.__all__ if callable(getattr(jm.losses, name))]
    return [Subject(name) for name in names if name in ADAPTERS or _is_labelled(name)]


def _is_labelled(name: str) -> bool:
    return _first_parameters(name) in (["embeddings", "labels"], ["queries", "keys"])


def _first_parameters(name: str) -> list[str]:
    return list(inspect.signature(getattr(jm.losses, name)).parameters)[:2]


SUBJECTS = discovered()

# Session scope brings the tests of a loss together, so that it is compiled once.
each_loss = pytest.mark.parametrize(
    "subject", SUBJECTS, ids=[s.name for s in SUBJECTS], scope="session"
)

# One loss of every kind of program: rows, searches, loops over positives, proxies,
# sums over the whole batch, two sides. What compiles anew for every loss and depends on
# the program more than on the formula is tested on these by default, on all as `slow`.
KINDS = frozenset(
    "angular_loss batch_all_triplet_loss batch_hard_triplet_loss contrastive_loss "
    "coupled_clusters_loss histogram_loss info_nce_loss lifted_structure_loss "
    "normalized_softmax_loss nt_xent_loss proxy_anchor_loss semi_hard_triplet_loss "
    "subcenter_arcface_loss triplet_loss weighted_softmax_loss".split()
)


def by_kind(subjects: Sequence[Subject]) -> list[Any]:
    """Return the subjects as parameters, all but one of each kind marked `slow`."""
    return [
        pytest.param(s, marks=[] if s.name in KINDS else [pytest.mark.slow], id=s.name)
        for s in subjects
    ]


each_kind = pytest.mark.parametrize("subject", by_kind(SUBJECTS), scope="session")

# What may differ between the batches of a stack but has no gradient.
_DATA = ("labels", "where", "weights", "ids", "ref_labels", "ref_where", "ref_ids")
_DIFFERENTIABLE = ("embeddings", "ref_embeddings", "proxies")


def derivatives(
    subject: Subject, case: Arrays, direction: Arrays | None, **options: Any
) -> dict[str, Any]:
    """Return value, gradient, jvp and hvp of one case, and the statistics.

    Gradients are over embeddings, references, proxies and real hyper-parameters; the
    statistics are without `weights`, so that counts are integers.
    """
    case = dict(case)
    hyper = case.pop("hyper", {})
    moving = {key: case.pop(key) for key in _DIFFERENTIABLE if key in case}

    def loss(moving: Arrays, hyper: Arrays) -> jax.Array:
        return subject({**case, **moving}, **hyper, **options)

    value_and_grad = jax.value_and_grad(loss, argnums=(0, 1))
    if direction is None:
        value, grad = value_and_grad(moving, hyper)
        result = {"value": value, "grad": {**grad[0], **grad[1]}}
    else:
        along = {key: direction[key] for key in moving}
        still = jax.tree.map(jnp.zeros_like, hyper)
        (value, grad), (jvp, hvp) = jax.jvp(
            value_and_grad, (moving, hyper), (along, still)
        )
        result = {"value": value, "grad": {**grad[0], **grad[1]}}
        result |= {"jvp": jvp, "hvp": {**hvp[0], **hvp[1]}}
    if "reduction" in subject.parameters:
        case.pop("weights", None)
        options = options | {"reduction": "none"}
        result["stats"] = subject({**case, **moving}, **hyper, **options)._asdict()
    return result


def reductions(subject: Subject, case: Arrays, direction: None, **options: Any) -> Any:
    """Return the value of one case under every reduction, and "none" with weights."""
    case = dict(case)
    hyper = case.pop("hyper", {})
    result = {
        name: subject(case, **hyper, reduction=name, **options)
        for name in oracles.REDUCTIONS
    }
    stats = subject(case, **hyper, reduction="none", **options)
    return result | {"stats": stats._asdict()}


def first_order(subject: Subject, case: Arrays, _: None, **options: Any) -> Any:
    """Return value, gradient and statistics of one case."""
    return derivatives(subject, case, None, **options)


def direction(case: Arrays, seed: int = 0) -> dict[str, np.ndarray]:
    """Return a random direction in which the rows of a case may move."""
    rng = np.random.default_rng([seed, 11])
    return {
        key: rng.normal(size=case[key].shape).astype(np.float32)
        for key in _DIFFERENTIABLE
        if key in case
    }


# These programs are small and run once or twice: compiling them is what costs.
FAST = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_llvm_disable_expensive_passes": True,
}


@functools.cache
def fast_options() -> dict[str, Any]:
    """Return the options, or none if this jaxlib has no longer one of them."""
    try:
        jax.jit(lambda: 0, compiler_options=FAST).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return FAST


@functools.cache
def _compiled(subject: Subject, body: Callable, options: tuple) -> Any:
    def one(case: Arrays, direction: Arrays | None) -> dict[str, Any]:
        return body(subject, case, direction, **dict(options))

    return jax.jit(jax.vmap(one), compiler_options=fast_options())


def run(
    subject: Subject,
    cases: Sequence[Arrays],
    dtype: str = "float32",
    *,
    directions: Sequence[Arrays] | None = None,
    body: Callable | None = None,
    **options: Any,
) -> list[Any]:
    """Run cases of one structure through one compiled function, STACK at a time.

    Floating arrays are cast to `dtype` first (hyper-parameters and weights to float32
    at least); the answer for each case is a dict of NumPy arrays. By default it has
    everything, with derivatives along random directions unless some are given.
    """
    if body is None:
        body = derivatives
        directions = directions or [direction(case, k) for k, case in enumerate(cases)]
    wide = "float64" if dtype == "float64" else "float32"
    options = {key: options[key] for key in sorted(options)}
    function = _compiled(subject, body, tuple(options.items()))

    def cast(case: Arrays) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in case.items():
            if key == "hyper":
                result[key] = {k: np.asarray(v, wide) for k, v in value.items()}
            elif key in _DIFFERENTIABLE:
                result[key] = np.asarray(value).astype(jnp.dtype(dtype))
            elif key == "weights":
                result[key] = np.asarray(value, wide)
            elif key in _DATA:
                result[key] = np.asarray(value)
        return result

    results: list[Any] = []
    with jax.enable_x64(dtype == "float64"):
        for first in range(0, len(cases), STACK):
            chunk = [cast(case) for case in cases[first : first + STACK]]
            ways = None
            if directions is not None:
                ways = [cast(way) for way in directions[first : first + STACK]]
            count = len(chunk)
            chunk += [chunk[-1]] * (STACK - count)
            stacked = jax.tree.map(lambda *a: jnp.stack(a), *chunk)
            if ways is not None:
                ways += [ways[-1]] * (STACK - count)
                ways = jax.tree.map(lambda *a: jnp.stack(a), *ways)
            answer = jax.tree.map(np.asarray, function(stacked, ways))
            results += [jax.tree.map(lambda a, k=k: a[k], answer) for k in range(count)]
    return results
