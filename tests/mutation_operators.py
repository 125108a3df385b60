"""Mistakes to plant in a source file: which there are, each as a changed text.

A mutant changes one expression of a function body and leaves every other character of
the file alone. Mistakes are those that loss code really has: a comparison with or
without equality, a mask left out, a sign, the wrong aggregate, a guard left out.
Docstrings, annotations, assertions and the texts of errors are not touched.
"""

import ast
import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
_SIGNS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
}
_AGGREGATES = {
    "sum": "mean",
    "mean": "sum",
    "max": "min",
    "min": "max",
    "maximum": "minimum",
    "minimum": "maximum",
    "argmax": "argmin",
    "argmin": "argmax",
    "masked_argmax": "masked_argmin",
    "masked_argmin": "masked_argmax",
    "any": "all",
    "all": "any",
    "psum": "pmean",
    "pmax": "pmin",
}
# Keywords that hand a mask, or what is like one, to a function.
_MASKS = frozenset({"where", "ref_where", "ids", "ref_ids", "weights"})
# Calls whose first argument is the value and the others its guard.
_GUARDS = frozenset({"poisoned", "where", "stop_gradient"})


@dataclass(frozen=True)
class Mutant:
    """One mistake: which file, function and line, and the file with it.

    `key` names it whatever its line number is, so that notes on it stay valid while
    the rest of the file changes.
    """

    path: str
    function: str
    line: int
    operator: str
    before: str
    after: str
    ordinal: int
    source: str
    text: str

    @property
    def key(self) -> str:
        """The name of the mutant."""
        number = f" #{self.ordinal}" if self.ordinal else ""
        change = f"{self.before} => {self.after or 'nothing'}"
        return f"{self.path}:{self.function}: {self.operator}: {change}{number}"

    @property
    def rank(self) -> str:
        """A number that is random over mutants and does not change with the others."""
        return hashlib.sha256(self.key.encode()).hexdigest()


def mutants(path: str, source: str) -> list[Mutant]:
    """Return every mutant of a source text, in the order of the text."""
    found: list[Mutant] = []
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    raw = source.encode()
    seen: dict[str, int] = {}
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef | ast.ClassDef):
            continue
        for node, operator, change in _changes(function):
            first = starts[node.lineno - 1] + node.col_offset
            last = starts[node.end_lineno - 1] + node.end_col_offset
            after = change
            if operator == "mask keyword":  # with the comma that follows it
                rest = raw[last:].lstrip()
                last = len(raw) - len(rest) + 1 if rest[:1] == b"," else last
            before = " ".join(raw[first:last].decode().split())
            name = f"{function.name}{operator}{before}{after}"
            ordinal = seen[name] = seen.get(name, -1) + 1
            text = (raw[:first] + after.encode() + raw[last:]).decode()
            found.append(
                Mutant(
                    *(path, function.name, node.lineno, operator),
                    *(before, after, ordinal, source, text),
                )
            )
    return sorted(found, key=lambda m: (m.line, m.before, m.after))


def _changes(function: ast.AST) -> Iterator[tuple]:
    """Yield (node to replace, operator, new text) within a function or class."""
    for node in _bodies(function):
        match node:
            case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
                changed = copy.deepcopy(node)
                changed.ops = [_COMPARISONS[type(op)]()]
                yield node, "comparison", _text(changed)
            case ast.BinOp(left=left, op=ast.BitAnd() | ast.BitOr(), right=right):
                yield node, "mask operand", _text(left)
                yield node, "mask operand", _text(right)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _SIGNS:
                if not _is_text(left) and not _is_text(right):
                    changed = copy.deepcopy(node)
                    changed.op = _SIGNS[type(op)]()
                    yield node, "sign", _text(changed)
            case ast.AugAssign(op=ast.BitAnd() | ast.BitOr()):
                yield node, "mask operand", "pass"
            case ast.AugAssign(op=op) if type(op) in _SIGNS:
                changed = copy.deepcopy(node)
                changed.op = _SIGNS[type(op)]()
                yield node, "sign", ast.unparse(changed)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                # The numbers of axes are no signs.
                if not isinstance(operand, ast.Constant):
                    yield node, "sign", _text(operand)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                yield node, "negation", _text(operand)
            case ast.Call():
                yield from _call_changes(node)


def _call_changes(node: ast.Call) -> Iterator[tuple]:
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    # Python's own min and max of sizes are names, those of arrays attributes.
    if name in _AGGREGATES and isinstance(node.func, ast.Attribute):
        changed = copy.deepcopy(node.func)
        changed.attr = _AGGREGATES[name]
        yield node.func, "aggregate", ast.unparse(changed)
    if name == "where" and len(node.args) == 3:
        yield node, "guard", _text(node.args[1])
    elif name in _GUARDS and name != "where" and node.args:
        yield node, "guard", _text(node.args[0])
    for keyword in node.keywords:
        if keyword.arg in _MASKS:
            yield keyword, "mask keyword", ""


def _bodies(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of function bodies that compute something."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "args") and not (
            name == "args" and isinstance(node, ast.Call)
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            # Places within f-strings are unknown before Python 3.12.
            if isinstance(child, ast.AST) and not _is_no_computation(child):
                yield child
                yield from _bodies(child)


def _is_no_computation(node: ast.AST) -> bool:
    """Return whether a node only checks types, or tells a mistake of the caller."""
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    if is_call and node.func.id == "isinstance":  # pyright: ignore
        return True
    return isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr)


def _text(node: ast.AST) -> str:
    text = ast.unparse(node)
    is_whole = isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Constant)
    return text if is_whole else f"({text})"


def _is_text(node: ast.AST) -> bool:
    is_string = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return is_string or isinstance(node, ast.JoinedStr)
