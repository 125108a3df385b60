"""Which tests belong to a source file: the narrowest first, one failure is enough.

A run is the files that pytest is given and what it selects among them with `-k`. The
battery of contracts is asked only for the losses that a mutant can reach.
"""

import ast
import functools
import pathlib
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
GROUPS = {
    "losses": ["jaxmetric/losses"],
    "miners": ["jaxmetric/miners", "jaxmetric/pairs.py"],
    "retrieval": ["jaxmetric/retrieval", "jaxmetric/reductions.py"],
}


class Run(NamedTuple):
    """Test files of one call of pytest, and the expression that selects in them."""

    files: tuple[str, ...]
    selected: str = ""


_CONTRACT = (
    "test_loss_contract.py",
    "test_loss_contract_masks.py",
    "test_loss_contract_gradients.py",
)
_SHARDED = (
    "test_losses_pairs_sharding.py",
    "test_losses_softmax_sharding.py",
    "test_losses_triplets_sharding.py",
    "test_sharding_losses.py",
)
_VALUES, _PAIR_VALUES = "test_losses_values.py", "test_losses_pairs_values.py"
# Where the tests of a family module are not in `test_losses_<module>.py` alone.
_LOSSES = {
    "cross_modal": (_VALUES, "test_losses_cross_modal.py"),
    "cross_modal_triplets": ("test_losses_cross_modal.py",),
    "pairs": (_VALUES,),
    "pairs_cosine": (_VALUES, _PAIR_VALUES),
    "proxies": (_VALUES,),
    "ranking_histogram": ("test_losses_ranking.py",),
    "softmax": (_VALUES, "test_strips.py"),
    "softmax_neighbours": ("test_losses_softmax_neighbours.py",),
    "triplets": (_VALUES,),
    "triplets_mined": (_VALUES, "test_hinges.py"),
    "triplets_semi_hard": ("test_losses_semi_hard.py", _VALUES),
    "unlabelled": ("test_losses_unlabelled.py", "test_sharding_unlabelled.py"),
}
_MINERS = {
    "_slots": Run(("test_miners_loops.py",), "equals_loops"),
    "dataset": Run(("test_miners_dataset.py",)),
    "drawn": Run(
        ("test_miners_random.py", "test_miners.py"),
        "random_triplets or bad or no_triplet",
    ),
    "extremes": Run(("test_miners.py", "test_miners_loops.py"), "hand or batch or bad"),
    "histogram": Run(("test_miners_random.py", "test_miners.py"), "histogram or bad"),
    "negatives": Run(
        ("test_miners_loops.py", "test_miners_random.py", "test_miners.py"),
        "semi_hard or distance_weighted or bad or no_pair",
    ),
    "quantiles": Run(("test_miners_loops.py", "test_miners.py"), "hard_pairs or whole"),
    "thresholds": Run(
        ("test_miners_loops.py", "test_miners.py"),
        "pair_margin or multi_similarity or margin_may or bad",
    ),
    "violations": Run(
        ("test_miners_loops.py", "test_miners.py"),
        "triplet_margin or angular or margin_may or angle or bad",
    ),
}
# Run apart: all in one are longer than a mutant is given.
_SHARED_BY_MINERS = (
    Run(("test_miners.py",), "sharded"),
    Run(("test_miners_loops.py",), "size or finite"),
)
# All tests of evaluations together are longer than a mutant is given.
_EVALUATION = tuple(
    Run(("test_retrieval_evaluation.py",), selected)
    for selected in (
        "hand or paper or against or minus or self or left_out or beyond or masked or "
        "finite or no_number or integers or keep_their_order or bad",
        "rank_exactly",
        "same_bits or float64",
        "random or block_size or each_query or scikit or scale or half",
        "devices or jit or sizes",
    )
)
_PLAIN, _TIES, _SORTED, _RANDOM, _PROGRAMS = _EVALUATION
_NEIGHBORS = Run(("test_retrieval_neighbors.py",))
# Only the tests of `shards` itself run on eight devices.
_RETRIEVAL = {
    "evaluation": (_PLAIN, _RANDOM, _PROGRAMS),
    "fixed_point": (Run(("test_retrieval_fixed_point.py",)), _PLAIN, _PROGRAMS),
    "ranks": (_SORTED, _TIES, _PLAIN, Run(("test_retrieval_groups.py",))),
    "reciprocal_sets": (Run(("test_retrieval_reciprocal.py",)),),
    "scores": (*_EVALUATION, Run(("test_retrieval_votes.py",))),
    "sides": (
        Run(
            tuple(
                f"test_retrieval_{name}.py"
                for name in ("neighbors", "votes", "reciprocal", "classes", "clusters")
            ),
            "bad or distances_of or callable",
        ),
        *_EVALUATION,
        _NEIGHBORS,
    ),
}
_OTHERS = {
    "pairs": (
        Run(("test_pairs.py",)),
        Run(("test_miners_dataset.py",)),
        Run(("test_relations.py",), "not masks_of_labels and not soft_weights"),
    ),
    "reductions": (Run(("test_reductions.py",)), Run(_CONTRACT[:1], "fast_ap_loss")),
}


def sources(group: str) -> list[str]:
    """Return the paths of the source files of a group, relative to the root."""
    found: list[str] = []
    for place in GROUPS[group]:
        path = ROOT / place
        files = [path] if path.is_file() else sorted(path.glob("*.py"))
        found += [file.relative_to(ROOT).as_posix() for file in files]
    return found


def runs(path: str, function: str) -> list[Run]:
    """Return the runs of pytest that a mutant of a function has to survive."""
    *_, package, module = pathlib.PurePosixPath(path).with_suffix("").parts
    if package == "losses":
        return _loss_runs(module, function)
    if package == "miners":
        found = [_MINERS[module]]
        return [*_SHARED_BY_MINERS, *found] if module == "_slots" else found
    if package == "retrieval":
        return list(_RETRIEVAL.get(module, (Run((f"test_retrieval_{module}.py",)),)))
    return list(_OTHERS[module])


def _loss_runs(module: str, function: str) -> list[Run]:
    names = sorted(reached(module, function))
    selected = " or ".join(
        f"[{name}] or [{name}- or -{name}] or -{name}-" for name in names
    )
    own = _LOSSES.get(module, (f"test_losses_{module}.py",))
    found = [Run(_CONTRACT, selected), Run(own)]
    if module.startswith("pairs"):
        found.append(Run((_PAIR_VALUES,), " or ".join(names)))
    return [*found, Run(_SHARDED, selected)]


def reached(module: str, function: str) -> set[str]:
    """Return the losses whose value a function of a module of losses may change.

    Names are followed, so a name too many may be among them. Of a function that many
    losses use, three are enough.
    """
    graph, published = _calls()
    users = {(module, function)}
    while True:
        more = {
            caller
            for caller, (used, modules) in graph.items()
            for name_module, name in users
            if name in used and (caller[0] == name_module or name_module in modules)
        }
        if more <= users:
            break
        users |= more
    losses = sorted(name for _, name in users if name in published)
    return set([function] if function in published else losses[:3])


@functools.cache
def _calls() -> tuple[dict[tuple[str, str], tuple[set[str], set[str]]], set[str]]:
    """Return the names that each function uses and its module imports; `__all__`."""
    graph, published = {}, set()
    for file in (ROOT / "jaxmetric" / "losses").glob("*.py"):
        tree = ast.parse(file.read_text())
        imported = {
            part
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for part in [*(node.module or "").split("."), *(n.name for n in node.names)]
        }
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                used |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                graph[file.stem, node.name] = (used, imported)
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == "__all__"
            ):
                if isinstance(node.value, ast.List):
                    published |= set(ast.literal_eval(node.value))
    return graph, published
