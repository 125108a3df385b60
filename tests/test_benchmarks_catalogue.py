"""The catalogue page: what the code says, complete, and with links that lead."""

import functools
import inspect
import re
from pathlib import Path

import pytest

import jaxmetric as jm
from benchmarks import catalogue

PAGE = catalogue.PAGE.read_text(encoding="utf-8")
PAGES = sorted(catalogue.PAGE.parent.glob("*.md"))


def test_the_page_is_what_the_code_says():
    again = catalogue.replaced(PAGE, catalogue.markdown())
    assert again == PAGE, "run: python -m benchmarks.catalogue --write"


@pytest.mark.parametrize(
    "module", [jm.losses, jm.miners, jm.retrieval, jm.regularizers]
)
def test_every_public_function_has_a_row(module):
    for name in module.__all__:
        if inspect.isfunction(getattr(module, name)):
            assert f"| [`{name}`](" in PAGE, name


def test_every_loss_has_a_family():
    rows = re.findall(r"^\| \[`(\w+_loss)`\]", PAGE, re.M)
    assert sorted(rows) == jm.losses.__all__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_on_the_pages_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\bjm\.([a-zA-Z_]\w*(?:\.[a-zA-Z_]\w*)*)", text):
        functools.reduce(getattr, name.split("."), jm)
    if page.name == "GUIDE.md":
        for name in re.findall(r"`(\w+_loss)\b", text):
            assert name in jm.losses.__all__


def test_a_source_without_title_or_year_is_refused():
    def nameless():
        """Return nothing.

        Source: Somebody. NIPS 2016.
        """

    def unknown():
        """Return nothing.

        Source: no paper; the habit of a library.
        """

    with pytest.raises(ValueError, match="nameless: `Source:` must name"):
        catalogue.paper(nameless)
    assert catalogue.paper(unknown) == "no paper; the habit of a library"


def test_costs_are_read_or_refused():
    def stated():
        """Return nothing.

        Memory: O(block x batch) forward, O(batch x dim) backward; fast. Time: O(n (a)).
        """

    def silent():
        """Return nothing.

        Memory: O(batch^7).
        """

    orders = "O(n (a))", "O(block x batch) forward, O(batch x dim) backward"
    assert catalogue.costs(stated) == orders
    with pytest.raises(ValueError, match="silent: its docstring needs a `Time"):
        catalogue.costs(silent)


def test_marks_are_asked_for_and_the_command_prints(capsys):
    with pytest.raises(ValueError, match="catalogue:begin"):
        catalogue.replaced("no marks", "")
    assert catalogue.main([]) == 0
    assert "### Triplets" in capsys.readouterr().out


def test_the_command_writes_the_page(tmp_path, monkeypatch):
    copy = Path(tmp_path, "README.md")
    copy.write_text(f"above\n{catalogue.BEGIN}\n{catalogue.END}\nbelow\n")
    monkeypatch.setattr(catalogue, "PAGE", copy)
    monkeypatch.setattr(catalogue, "markdown", lambda: "tables")
    assert catalogue.main(["--write"]) == 0
    lines = ["above", catalogue.BEGIN, "tables", catalogue.END, "below", ""]
    assert copy.read_text() == "\n".join(lines)
