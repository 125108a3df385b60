"""The report in a real browser: it draws, and it answers to mouse and fingers."""

import re

import numpy as np
import pytest
from browser import Browser, find
from paired_files import train, write_pairs
from report_pages import HOSTILE, told_of_features, write_images

from jaxmetric.cli import main
from jaxmetric.cli.report import page as pages


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    # First: without one the rows need not be ranked either.
    path = find()
    if path is None:
        pytest.skip("no chromium is installed")
    with Browser(path, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def run(browser, tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("report") / "images")


@pytest.fixture(scope="module")
def feature_run(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    pages.write_page(
        folder / "report.html", told_of_features(folder), np.zeros((40, 3))
    )
    return folder


TIP = "document.getElementById('tip')"
SPOT = """(() => {
  const box = document.getElementById("plot").getBoundingClientRect();
  return [box.x, box.y, box.width, box.height];
})()"""


def points_at(browser, act):
    """Point at one place after another until a thumbnail shows; return the place."""
    browser.run("document.getElementById('plot').scrollIntoView({block: 'center'})")
    browser.settle()
    left, top, width, height = browser.run(SPOT)
    for x in np.linspace(0.02, 0.98, 40):
        for y in np.linspace(0.02, 0.98, 12):
            place = (left + x * width, top + y * height)
            act(*place)
            if not browser.run(f"{TIP}.hidden"):
                there = browser.run(f"{TIP}.dataset.place").split()
                return left + float(there[0]), top + float(there[1])
    raise AssertionError("no place of the plot shows a row")


def test_a_person_can_point_at_the_rows_and_zoom(run, browser):
    browser.told.clear()
    browser.asked.clear()
    browser.screen(1000, 800)
    browser.open(run / "report.html")
    inked = """(() => {
      const c = document.querySelector("#plot canvas");
      const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
      return d.some((v, i) => i % 4 === 3 && v > 0);
    })()"""
    assert browser.run(inked)
    assert browser.run(f"{TIP}.hidden")
    x, y = points_at(browser, lambda x, y: browser.mouse("mouseMoved", x, y))
    assert browser.run(f"{TIP}.querySelector('b').textContent") in HOSTILE
    assert browser.run(f"getComputedStyle({TIP}).display") == "block"
    thumbnail = f"{TIP}.querySelector('canvas')"
    shades = browser.run(
        f"new Set({thumbnail}.getContext('2d').getImageData(0, 0, 8, 8).data).size"
    )
    assert shades > 20
    inside = browser.run(
        f"(() => {{const t = {TIP}.getBoundingClientRect(), p = "
        "document.getElementById('plot').getBoundingClientRect();"
        "return t.left >= p.left && t.right <= p.right && t.top >= p.top "
        "&& t.bottom <= p.bottom})()"
    )
    assert inside
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-400)
    browser.wait("document.getElementById('plot').dataset.zoom > 1.5")
    # What was under the pointer has stayed there.
    browser.mouse("mouseMoved", x, y)
    assert not browser.run(f"{TIP}.hidden")
    for kind in ("mousePressed", "mouseReleased"):
        browser.mouse(kind, x, y, button="left", clickCount=1)
    assert browser.run("document.getElementById('pick').value") != "-1"
    browser.run("document.getElementById('whole').click()")
    assert browser.run("document.getElementById('plot').dataset.zoom") == "1"
    assert browser.told == []
    assert all(a.startswith(("file:", "data:")) for a in browser.asked)


@pytest.mark.parametrize("is_dark", [False, True])
def test_a_phone_shows_all_of_it(run, browser, is_dark):
    browser.told.clear()
    browser.screen(390, 844, is_phone=True, is_dark=is_dark)
    browser.open(run / "report.html")
    assert browser.run("document.documentElement.scrollWidth") <= 390
    too_wide = browser.run(
        "[...document.querySelectorAll('section, section > *:not(.wide)')]"
        ".filter(e => e.getBoundingClientRect().right > 390.5).map(e => e.outerHTML)"
    )
    assert too_wide == []
    shade = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", shade)[0]) < 128) == is_dark

    def tap(x, y):
        browser.touch("touchStart", (x, y))
        browser.touch("touchEnd")

    x, y = points_at(browser, tap)
    # Two fingers that part.
    browser.touch("touchStart", (x, y), (x + 20, y))
    for k in range(1, 6):
        browser.touch("touchMove", (x, y), (x + 20 + 10 * k, y))
    browser.touch("touchEnd")
    browser.wait("document.getElementById('plot').dataset.zoom > 1.5")
    assert browser.told == []


def test_rows_without_pictures_can_be_pointed_at(feature_run, browser):
    browser.told.clear()
    browser.screen(1000, 800)
    browser.open(feature_run / "report.html")
    points_at(browser, lambda x, y: browser.mouse("mouseMoved", x, y))
    assert browser.run(f"{TIP}.textContent").endswith("class")
    assert browser.told == []


def test_reports_of_pairs_and_of_items_can_be_pointed_at(browser, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.npz")
    train(pairs, tmp_path / "pairs", "--labels", "kind", "--steps", "2")
    random = np.random.default_rng(0)
    users, items = np.repeat(np.arange(30), 8), random.integers(0, 40, 240)
    np.savez(tmp_path / "clicks.npz", user=users, item=items)
    words = ["train", str(tmp_path / "clicks.npz"), "--query", "user", "--key", "item"]
    words += ["--steps", "2", "--dim", "4", "--plain", "--out", str(tmp_path / "items")]
    assert main(words) == 0
    for name, said in (("pairs", r"(query|key) \d+, "), ("items", r"item \d+, met ")):
        browser.told.clear()
        browser.open(tmp_path / name / "report.html")
        browser.settle()
        points_at(browser, lambda x, y: browser.mouse("mouseMoved", x, y))
        assert re.search(said, browser.run(f"{TIP}.textContent"))
        assert browser.told == []
