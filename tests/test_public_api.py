"""The public face: names, signatures, docstrings, and what importing does not do."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from typing import Any

import pytest

import jaxmetric as jm

# Importing these needs neither Flax nor Optax.
FLOORS = [
    "jaxmetric.losses",
    "jaxmetric.miners",
    "jaxmetric.regularizers",
    "jaxmetric.retrieval",
]
GEOMETRY = [
    "l2_normalize",
    "mine_dataset",
    "paired_distance",
    "pairwise_distance",
    "reduce",
    "relation_from_multi_hot",
]


def _functions() -> dict[str, Any]:
    """Return every public function of floors 1 to 5, by its name for the user."""
    found = {f"jm.{name}": getattr(jm, name) for name in GEOMETRY}
    for module_name in FLOORS:
        module = importlib.import_module(module_name)
        short = module_name.removeprefix("jaxmetric.")
        for name in module.__all__:
            if inspect.isfunction(getattr(module, name)):
                found[f"jm.{short}.{name}"] = getattr(module, name)
    return found


FUNCTIONS = _functions()
each_function = pytest.mark.parametrize("name", FUNCTIONS)


def _modules() -> list[str]:
    """Return every module of the package without private names in its path."""
    walked = pkgutil.walk_packages(jm.__path__, "jaxmetric.")
    names = [m.name for m in walked if "._" not in m.name and ".cli" not in m.name]
    return ["jaxmetric", *names]


@pytest.mark.parametrize("module", _modules())
def test_all_is_sorted_and_importable(module):
    loaded = importlib.import_module(module)
    names = list(getattr(loaded, "__all__", []))
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    assert all(hasattr(loaded, name) for name in names)
    assert loaded.__doc__, f"{module} has no docstring"


def test_the_names_of_the_top_level_are_there():
    for name in (*GEOMETRY, "LossStats", "Triplets", "Pairs", "losses", "miners"):
        assert hasattr(jm, name)
    for name in ("retrieval", "training", "models", "data"):
        assert inspect.ismodule(getattr(jm, name))
    with pytest.raises(AttributeError, match="nonsense"):
        jm.nonsense  # noqa: B018
    assert set(jm.LossStats._fields) == {"total", "num_terms", "num_active"}
    assert jm.Triplets._fields == ("anchor", "positive", "negative", "valid")
    assert jm.Pairs._fields == ("anchor", "other", "is_positive", "valid")
    assert jm.HardNegatives._fields == ("ids", "similarities", "valid")
    assert jm.Relation._fields == ("positive", "negative")


@each_function
def test_signatures_have_arrays_first_and_keywords_with_defaults(name):
    for parameter in inspect.signature(FUNCTIONS[name]).parameters.values():
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name
        required = {"num_triplets", "k"}  # a count that has no natural default
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in required:
            assert parameter.default is not inspect.Parameter.empty, parameter.name
    signature = inspect.signature(FUNCTIONS[name])
    assert signature.return_annotation is not inspect.Signature.empty


@each_function
def test_docstrings_have_their_sections(name):
    documentation = inspect.getdoc(FUNCTIONS[name])
    assert documentation
    first = documentation.splitlines()[0]
    assert first.endswith("."), first
    for section in ("Args:", "Returns:", "Memory:", "Example:"):
        assert section in documentation, section
    assert ">>> " in documentation
    assert "+SKIP" not in documentation
    if ".losses." in name:
        assert "Raises:" in documentation
        assert "Source:" in documentation
    arguments = documentation.split("Args:")[1].split("Returns:")[0]
    for parameter in inspect.signature(FUNCTIONS[name]).parameters:
        assert parameter in arguments, parameter


def test_importing_touches_no_device_and_neither_flax_nor_optax():
    code = """
import sys
import jaxmetric as jm
jm.losses.contrastive_loss, jm.miners.batch_hard, jm.pairwise_distance
import jaxmetric.retrieval
for name in ("flax", "optax", "sklearn", "PIL", "orbax", "tyro", "matplotlib"):
    assert name not in sys.modules, name
import jax
# Refused once a backend has started.
jax.config.update("jax_num_cpu_devices", 3)
assert jax.device_count() == 3
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_changes_no_setting_of_jax():
    code = """
import jax
before = dict(jax.config.values)
import jaxmetric, jaxmetric.losses, jaxmetric.miners, jaxmetric.retrieval
after = dict(jax.config.values)
assert before == after, {k: v for k, v in after.items() if before.get(k) != v}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_version_is_told():
    assert jm.__version__[0].isdigit()
