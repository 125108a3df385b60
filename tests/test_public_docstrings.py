"""Docstrings of everything public: one sentence, all arguments, memory, an example.

What stands in the sections is run by the doctests, and `test_public_api` asks more of
the functions of the lower floors.
"""

import importlib
import inspect
import re
from typing import Any

import pytest

import jaxmetric as jm

MODULES = (
    *("losses", "miners", "regularizers", "retrieval"),
    *("sharding", "training", "models", "data"),
)
# What stands at the top of the package beside modules.
TOP = [name for name in vars(jm) if not name.startswith("_")]
TOP = [name for name in TOP if not inspect.ismodule(getattr(jm, name))]
# An example would need the folder of a finished run; README and tests of runs have one.
WITHOUT_EXAMPLE = {"load_run"}


def _public() -> dict[str, Any]:
    """Return everything public that can have a docstring, by its name for the user."""
    found = {f"jm.{name}": getattr(jm, name) for name in TOP}
    for short in MODULES:
        module = importlib.import_module(f"jaxmetric.{short}")
        found |= {
            f"jm.{short}.{name}": getattr(module, name) for name in module.__all__
        }
    own = {
        k: v for k, v in found.items() if inspect.isfunction(v) or inspect.isclass(v)
    }
    return {k: v for k, v in own.items() if v.__module__.startswith("jaxmetric")}


PUBLIC = _public()
FUNCTIONS = {k: v for k, v in PUBLIC.items() if inspect.isfunction(v)}
CLASSES = {k: v for k, v in PUBLIC.items() if inspect.isclass(v)}
each_thing = pytest.mark.parametrize("name", PUBLIC)
each_function = pytest.mark.parametrize("name", FUNCTIONS)
each_class = pytest.mark.parametrize("name", CLASSES)


def _section(thing: Any, name: str) -> str:
    """Return a section of a docstring, "" without it."""
    text = inspect.getdoc(thing) or ""
    found = re.search(rf"^{name}\b.*?:(.*?)(?=^[A-Z][a-z]+\b.*:|\Z)", text, re.M | re.S)
    return found[1] if found else ""


def _missing(names: Any, text: str) -> list[str]:
    """Return the names that a text does not explain: `name:` or `name, other:`."""
    begin, end = r"(?:^ *|[.;,]\s+)", r"(?:,\s+\w+)*:"
    return [n for n in names if not re.search(rf"{begin}{n}{end}", text, re.M)]


@each_thing
def test_the_first_line_is_one_sentence(name):
    documentation = inspect.getdoc(PUBLIC[name]) or ""
    first = documentation.split("\n\n")[0]
    assert first.endswith("."), first
    assert first[:1].isupper()
    # A docstring of the base class says nothing of this one.
    assert PUBLIC[name].__doc__, name


@each_function
def test_functions_say_what_goes_in_and_comes_out(name):
    function = FUNCTIONS[name]
    for section in ("Returns", "Memory"):
        assert _section(function, section).strip(), section
    arguments = _section(function, "Args")
    parameters = inspect.signature(function).parameters
    assert not _missing(parameters, arguments), _missing(parameters, arguments)


@each_function
def test_functions_are_used_in_their_example(name):
    function = FUNCTIONS[name]
    if function.__name__ not in WITHOUT_EXAMPLE:
        example = _section(function, "Example")
        assert f"{function.__name__}(" in example
        # An example without output shows nothing and tests nothing.
        assert re.search(r"^ *(?!>>>|\.\.\.)\S", example.split(">>>")[-1], re.M)
        assert "+SKIP" not in example


@pytest.mark.parametrize(
    "name", [name for name in FUNCTIONS if re.match(r"jm\.(losses|miners|retr)", name)]
)
def test_functions_of_embeddings_say_what_they_refuse(name):
    assert "ValueError" in _section(FUNCTIONS[name], "Raises")


@each_class
def test_classes_explain_their_fields_or_arguments(name):
    thing = CLASSES[name]
    if issubclass(thing, Exception) or getattr(thing, "_is_protocol", False):
        return
    fields = getattr(thing, "_fields", None)
    if fields:
        assert not _missing(fields, _section(thing, "Attributes"))
        return
    given = _section(thing, "Args") or _section(thing, "Attributes")
    _, *names = inspect.signature(thing.__init__).parameters
    names = [name for name in names if not name.startswith("_")]
    assert not _missing(names, given), _missing(names, given)
    assert _section(thing, "Memory").strip()
    assert ">>> " in _section(thing, "Example")


@each_class
def test_public_methods_have_a_docstring(name):
    for key, value in vars(CLASSES[name]).items():
        if not key.startswith("_") and (callable(value) or isinstance(value, property)):
            assert inspect.getdoc(value), key
