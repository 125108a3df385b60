"""The catalogue page of the losses, generated from signatures and docstrings.

  python -m benchmarks.catalogue            prints the tables
  python -m benchmarks.catalogue --write    puts them into jaxmetric/losses/README.md

The tables stand between two marks of the page; a test keeps page and code equal. What
a docstring does not say in a form that can be read here is refused, with its name.
"""

import argparse
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jaxmetric as jm
from benchmarks import results

BEGIN, END = "<!-- catalogue:begin -->", "<!-- catalogue:end -->"
_BETWEEN = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
_ROOT = Path(__file__).resolve().parents[1]
PAGE = _ROOT / "jaxmetric" / "losses" / "README.md"
MEASURED = Path(__file__).parent / "results" / "cpu.jsonl"
_BATCH = 4096

FAMILIES = {
    "triplets": "Triplets",
    "pairs": "Pairs",
    "softmax": "Softmax over references",
    "cross": "Two sides, row by row",
    "ranking": "Ranking",
    "proxies": "Proxies and classes",
    "unlabelled": "Without labels",
}
# What all losses share is described once, above the tables.
_SHARED = {
    *("precision", "where", "weights", "ids", "reduction", "block_size", "axis_name"),
    *("ref_embeddings", "ref_labels", "ref_where", "ref_ids"),
    "log_frequencies",
}
_INPUTS = {
    ("embeddings", "labels"): "labels",
    ("embeddings", "triplets"): "a miner's triplets",
    ("anchors", "positives", "negatives"): "triplets, row by row",
    ("x", "y", "is_positive"): "pairs, row by row",
    ("queries", "keys"): "two sides, row by row",
    ("x", "y"): "two views, row by row",
    ("predictions", "targets"): "predictions and targets",
}
# Statistics that a caller may keep between batches or over the data set.
_STATISTICS = {
    "beta": "a boundary, learned if wished",
    "class_counts": "counts of the classes",
    "class_weights": "weights of the classes",
    "histogram": "a running histogram",
}
# Without a choice of `distance` losses and miners are of cosines, apart from these.
_OWN_DISTANCE = {
    "angular": "euclidean",
    "center_loss": "sqeuclidean",
    "coupled_clusters_loss": "sqeuclidean",
    "large_margin_softmax_loss": "dot, of the angle",
    "correlation_loss": "-",
    "random_triplets": "-",
    "shrinkage_loss": "-",
    "snr_contrastive_loss": "noise to signal",
    "sphereface_loss": "cosine x norm",
    "vicreg_loss": "-",
}
# The time where a docstring leaves it out, by the order of its memory.
_TIMES = {
    "O(block x batch)": "O(batch^2 dim)",
    "O(block x n)": "O(batch n dim)",
    "O(block x C)": "O(batch C dim)",
    "O(block x C K)": "O(batch C K dim)",
    "O(batch (block + dim))": "O(batch^2 dim)",
    "O(batch x (block + num_bins))": "O(batch^2 dim)",
    "O((batch + t) x dim)": "O(t dim)",
    "O((batch + C) x dim)": "O(batch dim)",
    "O(batch x dim)": "O(batch dim)",
    "O(batch x dim + dim^2)": "O(batch dim^2)",
    "O(batch)": "O(batch)",
    "O(elements)": "O(elements)",
}
# Authors, title, venue and year, of the first work that a docstring names.
_CITATION = re.compile(
    r"(?P<authors>[^;]+?)\. (?P<title>[^;]+?)\. (?P<venue>[^.:;]*?),? ?"
    r"(?P<year>(?:19|20)\d\d)\b"
)
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def markdown() -> str:
    """Return all tables of the page."""
    ratios = _ratios()
    parts = []
    for prefix, title in FAMILIES.items():
        functions = [f for f in _public(jm.losses) if _family(f) == prefix]
        lines = [f"### {title}", "", *_loss_table(functions, ratios)]
        parts.append("\n".join(lines))
    parts.append("\n".join(["### Miners", "", *_miner_table()]))
    parts.append("\n".join(["### Retrieval", "", *_other_table(jm.retrieval)]))
    parts.append("\n".join(["### Regularizers", "", *_other_table(jm.regularizers)]))
    return "\n\n".join(parts)


def replaced(page: str, tables: str) -> str:
    """Return the text of a page with other tables between the marks.

    Raises:
      ValueError: the marks are not there.
    """
    if not _BETWEEN.search(page):
        raise ValueError(f"the page must have the lines {BEGIN} and {END}")
    return _BETWEEN.sub(lambda _: f"{BEGIN}\n{tables}\n{END}", page)


def section(function: Callable[..., Any], name: str) -> str:
    """Return a section of a docstring as one line, "" if it is not there."""
    text = inspect.getdoc(function) or ""
    found = re.search(rf"^{name}:(.*?)(?=^[A-Z][a-z]+:|\Z)", text, re.M | re.S)
    return " ".join(found[1].split()) if found else ""


def paper(function: Callable[..., Any]) -> str:
    """Return who published what when, with a link to arXiv where there is one.

    Raises:
      ValueError: the docstring names a work without authors, title or year.
    """
    source = section(function, "Source")
    works = []
    for part in source.split("; "):
        if found := _CITATION.match(part):
            works.append((found, _ARXIV.search(part)))
        elif re.search(r" (19|20)\d\d\b", part):
            must = f'name "Authors. Title. Venue Year.", got {part!r}'
            raise ValueError(f"{function.__name__}: `Source:` must {must}")
    if not works:
        return source.rstrip(".")
    found, arxiv = works[0]
    authors = found["authors"].split(", ")
    who = found["authors"] if len(authors) <= 3 else f"{authors[0]} et al."
    who = re.sub(r" et al$", " et al.", who)
    text = f"{who} {found['year']}"
    if arxiv:
        text = f"[{text}](https://arxiv.org/abs/{arxiv[1]})"
    return f"{text}, *{found['title']}*"


def costs(function: Callable[..., Any]) -> tuple[str, str]:
    """Return the orders of time and of memory.

    Raises:
      ValueError: the docstring says no memory, or no time where none follows.
    """
    text = section(function, "Memory")
    memory = re.split(r"\.(?:\s|$)|:\s|;(?! backward)|, time ", text)[0]
    memory = re.sub(r", (forward and backward|on every device)$", "", memory)
    stated = re.search(r"[Tt]ime:? (O\()", text)
    if stated:
        return _balanced(text, stated.start(1)), memory
    first = _balanced(memory, memory.find("O("))
    if first not in _TIMES:
        raise ValueError(f"{function.__name__}: its docstring needs a `Time: O(...)`")
    is_of_proxies = "proxies" in inspect.signature(function).parameters
    time = _TIMES[first]
    return (time.replace("batch^2", "batch C") if is_of_proxies else time), memory


def _balanced(text: str, start: int) -> str:
    """Return the part of a text from `start` to the parenthesis that closes it."""
    depth = 0
    for end in range(start, len(text)):
        depth += (text[end] == "(") - (text[end] == ")")
        if depth == 0 and text[end] == ")":
            return text[start : end + 1]
    return text[start:]


def _loss_table(
    functions: Iterable[Callable[..., Any]], ratios: dict[str, float]
) -> list[str]:
    """Return the lines of a family's table."""
    header = ["loss", "paper", "needs", "distance", "hyper-parameters", "reduction"]
    header += ["time", "memory", "x `x @ x.T`"]
    lines = _header(header)
    for function in functions:
        name = function.__name__
        parameters = inspect.signature(function).parameters
        time, memory = costs(function)
        reduction = parameters.get("reduction")
        lines.append(
            _line(
                _link(function),
                paper(function),
                _needs(function),
                _distance(function),
                _hyper_parameters(function, _SHARED | {"distance", "labels"}),
                f"`{reduction.default}`" if reduction else "none, one number",
                time,
                memory,
                f"{ratios[name]:.2g}" if name in ratios else "",
            )
        )
    return lines


def _miner_table() -> list[str]:
    """Return the lines of the table of miners."""
    lines = _header(
        ["miner", "paper", "returns", "distance", "hyper-parameters", "memory"]
    )
    for function in [*_public(jm.miners), jm.mine_dataset]:
        annotation = inspect.signature(function).return_annotation
        what = _summary(function).removeprefix("Return ")
        lines.append(
            _line(
                _link(function),
                paper(function),
                f"`{annotation.__name__}`: {what}",
                _distance(function),
                _hyper_parameters(function, _SHARED | {"distance"}),
                _memory(function),
            )
        )
    return lines


def _memory(function: Callable[..., Any]) -> str:
    """Return the first order of memory that a docstring names."""
    text = section(function, "Memory")
    return _balanced(text, text.find("O("))


def _other_table(module: Any) -> list[str]:
    """Return the lines of a table of metrics or regularizers."""
    lines = _header(["function", "what", "paper", "parameters", "memory"])
    for function in _public(module):
        lines.append(
            _line(
                _link(function),
                _summary(function).removeprefix("Return "),
                paper(function),
                _hyper_parameters(function, _SHARED - {"reduction"}),
                _memory(function),
            )
        )
    return lines


def _public(module: Any) -> list[Callable[..., Any]]:
    """Return the public functions of a module, in the order of files and lines."""
    functions = [getattr(module, name) for name in module.__all__]
    functions = [f for f in functions if inspect.isfunction(f)]
    return sorted(functions, key=lambda f: (f.__module__, f.__code__.co_firstlineno))


def _family(function: Callable[..., Any]) -> str:
    """Return the first word of the file that a loss is in."""
    return function.__module__.rpartition(".")[2].partition("_")[0]


def _link(function: Callable[..., Any]) -> str:
    """Return the name, linked to its file as seen from the page."""
    file = Path(importlib.import_module(function.__module__).__file__ or "")
    path = Path(os.path.relpath(file.resolve(), PAGE.parent)).as_posix()
    return f"[`{function.__name__}`]({path})"


def _needs(function: Callable[..., Any]) -> str:
    """Return what a loss is given, and what it may be given."""
    parameters = inspect.signature(function).parameters
    positional = [p for p in parameters.values() if p.kind is not p.KEYWORD_ONLY]
    names = tuple(p.name for p in positional if p.name != "proxies")
    parts = [_INPUTS[names]]
    if "Relation" in str(parameters.get("labels", "")):
        parts[0] = "labels or a relation"
    if "proxies" in parameters:
        shape = re.search(r"proxies: (\[[^]]*\])", inspect.getdoc(function) or "")
        parts.append(f"proxies {shape[1] if shape else ''}".strip())
    if "queries" in names:
        parts.append("labels if wished")
    parts += [text for name, text in _STATISTICS.items() if _is_kept(parameters, name)]
    if "ref_embeddings" in parameters:
        parts.append("refs")
    return "; ".join(parts)


def _is_kept(parameters: Any, name: str) -> bool:
    """Tell whether a parameter is a statistic: `beta` is a plain number elsewhere."""
    if name == "beta":
        return "nu" in parameters
    return name in parameters


def _distance(function: Callable[..., Any]) -> str:
    """Return the default of a distance that can be chosen, or the one there is."""
    parameters = inspect.signature(function).parameters
    if "distance" in parameters:
        return f"any, `{parameters['distance'].default}`"
    return _OWN_DISTANCE.get(function.__name__, "cosine")


def _hyper_parameters(function: Callable[..., Any], left_out: set[str]) -> str:
    """Return the keywords with their defaults."""
    parts = []
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.KEYWORD_ONLY and p.name not in left_out:
            parts.append(p.name if p.default is p.empty else _assigned(p))
    return ", ".join(f"`{part}`" for part in parts) or "-"


def _assigned(parameter: inspect.Parameter) -> str:
    """Return `name=default`, floats to four digits."""
    value = parameter.default
    text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    return f"{parameter.name}={text}"


def _summary(function: Callable[..., Any]) -> str:
    """Return the first line of a docstring without its full stop."""
    return (inspect.getdoc(function) or "").splitlines()[0].rstrip(".")


def _ratios() -> dict[str, float]:
    """Return measured times over the time of `x @ x.T`, by loss."""
    file = results.read(MEASURED)
    found = file.of("losses", dim=128, workload="pk4", batch=_BATCH)
    usual = [r for r in found if (r.dtype, r.precision) == ("float32", "highest")]
    return {r.function: r.gradient_ratio["median"] for r in usual if r.gradient_ratio}


def _header(cells: Sequence[str]) -> list[str]:
    """Return the two lines that begin a table."""
    return [_line(*cells), _line(*["---"] * len(cells))]


def _line(*cells: str) -> str:
    """Return a row of Markdown."""
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalogue")
    parser.add_argument("--write", action="store_true", help="into the page")
    options = parser.parse_args(arguments)
    tables = markdown()
    if options.write:
        PAGE.write_text(replaced(PAGE.read_text("utf-8"), tables), encoding="utf-8")
    else:
        print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
