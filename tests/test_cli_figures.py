"""The pictures of a run: whole files, right colours, nothing lost or left behind."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from jaxmetric.cli import figures
from jaxmetric.cli.figures import write_curves, write_gallery
from jaxmetric.data import load_digits


def records(num_steps=30, switch=10):
    rows = [
        {
            "step": step,
            "phase": "softmax" if step < switch else "metric",
            "loss": 1 / (step + 1),
            "active_fraction": None if step < switch else 0.5,
            "positive_distance": 0.2,
            "negative_distance": 1.0,
        }
        for step in range(num_steps)
    ]
    held_out = {"recall_at_1": 0.5, "mean_average_precision_at_r": 0.25}
    return rows + [{"step": 0, **held_out}, {"step": num_steps, **held_out}]


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that gives back the figure that was saved last."""
    saved = []
    save = figures.save
    monkeypatch.setattr(figures, "save", lambda f, p: (saved.append(f), save(f, p))[1])
    return lambda: saved[-1]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def count(image, colour):
    """Return how many pixels of an image have exactly a colour."""
    wanted = np.round(255 * np.array(to_rgb(colour))).astype(int)
    return int((image == wanted).all(axis=-1).sum())


def render(figure):
    """Return the renderer that knows where everything of a figure is."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


def test_every_quantity_has_a_panel(tmp_path, drawn):
    write_curves(tmp_path / "curves.png", records())
    names = ["Loss", "Active fraction", "Mean distance", "Held-out classes"]
    assert titles(drawn()) == names
    assert os.listdir(tmp_path) == ["curves.png"]
    height, width, _ = pixels(tmp_path / "curves.png").shape
    assert width > 1000
    assert height > 700


def test_no_label_meets_another_or_the_edge(tmp_path, drawn):
    write_curves(tmp_path / "curves.png", records())
    figure = drawn()
    renderer = render(figure)
    boxes = [figure._suptitle.get_window_extent(renderer)]
    for ax in figure.axes:
        boxes.append(ax._left_title.get_window_extent(renderer))
        boxes.append(ax.xaxis.label.get_window_extent(renderer))
        if ax.get_legend():
            boxes.append(ax.get_legend().get_window_extent(renderer))
    boxes = [box for box in boxes if box.width]
    assert len(boxes) == 9
    for i, box in enumerate(boxes):
        assert figure.bbox.fully_containsx(box.x0)
        assert figure.bbox.fully_containsx(box.x1)
        assert figure.bbox.fully_containsy(box.y0)
        assert figure.bbox.fully_containsy(box.y1)
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), "absent"])
def test_a_quantity_without_numbers_has_no_panel(tmp_path, drawn, missing):
    rows = records(num_steps=9)
    for row in rows:
        if missing == "absent":
            row.pop("active_fraction", None)
        else:
            row["active_fraction"] = missing
    write_curves(tmp_path / "curves.png", rows)
    assert titles(drawn()) == ["Loss", "Mean distance", "Held-out classes"]


def test_the_switch_is_marked_in_every_panel(tmp_path, drawn):
    write_curves(tmp_path / "curves.png", records(switch=10))
    for ax in drawn().axes:
        dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
        assert [list(line.get_xdata()) for line in dotted] == [[10, 10]]
    assert drawn()._suptitle.get_text().endswith("step 10")


@pytest.mark.parametrize("switch", [0, 30])
def test_one_phase_has_no_switch(tmp_path, drawn, switch):
    write_curves(tmp_path / "curves.png", records(switch=switch))
    assert not [x for ax in drawn().axes for x in ax.lines if x.get_linestyle() == ":"]


def test_the_last_number_of_a_repeated_step_is_drawn(tmp_path, drawn):
    rows = [{"step": step, "loss": 9.0} for step in (1, 2, 3)]
    rows += [{"step": step, "loss": 1.0} for step in (2, 3, 4)]
    write_curves(tmp_path / "curves.png", rows)
    (line,) = drawn().axes[0].lines
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert list(line.get_ydata()) == [9, 1, 1, 1]


def test_the_running_mean_keeps_to_its_phase(tmp_path, drawn):
    rows = [
        {
            "step": n,
            "phase": "softmax" if n < 200 else "metric",
            "loss": 1.0 + (n < 200),
        }
        for n in range(400)
    ]
    write_curves(tmp_path / "curves.png", rows)
    _, softmax, metric, _ = drawn().axes[0].lines
    assert set(softmax.get_ydata()) == {2.0}
    assert set(metric.get_ydata()) == {1.0}
    assert metric.get_xdata()[0] == 200


def test_a_wide_range_of_losses_gets_a_logarithmic_axis(tmp_path, drawn):
    write_curves(tmp_path / "a.png", [{"step": n, "loss": 10.0**-n} for n in range(4)])
    assert drawn().axes[0].get_yscale() == "log"
    write_curves(tmp_path / "b.png", [{"step": n, "loss": float(n)} for n in range(99)])
    assert drawn().axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("rows", [[], [{}], [{"step": 3}], [{"loss": 1.0}]])
def test_a_run_without_numbers_has_a_picture_that_says_so(tmp_path, drawn, rows):
    write_curves(tmp_path / "curves.png", rows)
    assert drawn().texts[0].get_text() == "No step was recorded."


def test_one_step_can_be_seen(tmp_path):
    write_curves(tmp_path / "curves.png", [{"step": 1, "loss": 1.0}])
    assert count(pixels(tmp_path / "curves.png"), "#0072b2") > 20


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    script = (
        "import sys, matplotlib\n"
        "from jaxmetric.cli.figures import write_curves\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "matplotlib.rcParams['lines.linewidth'] = 7\n"
        "write_curves(sys.argv[1], [{'step': 1, 'loss': 1.0}])\n"
        "assert matplotlib.rcParams['lines.linewidth'] == 7\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    path = str(tmp_path / "curves.png")
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=60)


def test_an_old_picture_survives_a_failure(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def fail(self, name, **options):
        with open(name, "wb") as file:
            file.write(b"half a pic")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        write_curves(path, records())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["curves.png"]


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def gallery(path, digits, *, neighbors, queries, inputs=None, **options):
    assert digits.labels is not None
    write_gallery(
        path,
        inputs=digits.inputs if inputs is None else inputs,
        labels=digits.labels,
        class_names=options.pop("class_names", digits.class_names),
        neighbor_indices=np.array(neighbors),
        query_rows=np.array(queries),
        **options,
    )


def test_right_and_wrong_neighbours_differ_in_colour_line_and_mark(
    tmp_path, digits, drawn
):
    # Rows 0 to 19 are the digits 0 to 9, twice.
    gallery(tmp_path / "a.png", digits, neighbors=[[13, 15, 4]], queries=[3])
    shown = drawn().axes[0]
    frames = [(f.get_edgecolor()[:3], f.get_linestyle()) for f in shown.patches[1:]]
    right, wrong = (to_rgb("#009e73"), "-"), (to_rgb("#d55e00"), "--")
    assert [colour for colour, _ in frames] == [right[0], wrong[0], wrong[0]]
    assert len({style for _, style in frames}) == 2
    texts = [text.get_text() for text in shown.texts]
    assert texts[-8:-2] == ["3", "✓", "✗", "5", "✗", "4"]
    assert texts[-2] == "1 of 3 neighbours have the query's class"
    image = pixels(tmp_path / "a.png")
    assert count(image, "#009e73") > 1000
    assert count(image, "#d55e00") > 1000


def test_distances_are_shown(tmp_path, digits, drawn):
    options = {"neighbors": [[13]], "queries": [3], "distances": np.array([[0.12345]])}
    gallery(tmp_path / "a.png", digits, **options)
    assert "✓ 0.12" in [text.get_text() for text in drawn().axes[0].texts]


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("uint8", (9, 9, 1)),
        ("float32", (9, 9, 1)),
        ("float32", (5, 20, 3)),
        ("uint8", (30, 7, 4)),
        ("uint8", (1, 200, 2)),
    ],
)
def test_images_of_any_shape_are_shown(tmp_path, digits, dtype, shape):
    values = np.random.default_rng(0).uniform(0, 1, (20, *shape))
    inputs = (values * 255).astype(dtype) if dtype == "uint8" else values.astype(dtype)
    options = {"neighbors": [[13, 4]], "queries": [3], "inputs": inputs}
    gallery(tmp_path / "a.png", digits, **options)
    assert count(pixels(tmp_path / "a.png"), "#009e73") > 200


def test_a_picture_has_the_colours_of_its_image(tmp_path, digits):
    inputs = np.zeros((20, 4, 4, 3), np.uint8)
    inputs[3] = (10, 200, 30)
    inputs[13] = (250, 0, 60)
    gallery(tmp_path / "a.png", digits, neighbors=[[13]], queries=[3], inputs=inputs)
    image = pixels(tmp_path / "a.png")
    for colour in ("#0ac81e", "#fa003c"):
        assert count(image, colour) > 10_000


@pytest.mark.filterwarnings("ignore:.*[Gg]lyph.* missing")
def test_captions_of_long_and_strange_names_stay_apart(tmp_path, digits, drawn):
    strange = ["", "$a^", "a" * 60, "two words_and a tail", "文字", "x\ny", "\udcff"]
    names = [*strange, "\\", *["Japanese_(katakana)/character37"] * 2]
    gallery(
        tmp_path / "a.png",
        digits,
        neighbors=[[0, 1, 2, 3], [4, 5, 6, 7], [8, 7, 2, 2]],
        queries=[9, 3, 2],
        class_names=names,
    )
    figure = drawn()
    renderer = render(figure)
    boxes = [t.get_window_extent(renderer) for t in figure.axes[0].texts]
    for i, box in enumerate(boxes):
        assert box.x0 > 0
        assert box.x1 < figure.bbox.x1
        # Lines of one caption may share the slack above their letters.
        inner = box.shrunk(1.0, 0.7)
        assert not any(inner.overlaps(other.shrunk(1.0, 0.7)) for other in boxes[:i])


def test_a_long_name_is_shown_whole(tmp_path, digits, drawn):
    name = "Alphabet_of_the_Magi/" + "character" * 4
    names = [name] * 10
    gallery(tmp_path / "a.png", digits, neighbors=[[1]], queries=[0], class_names=names)
    lines = [text.get_text() for text in drawn().axes[0].texts]
    assert name in "".join(lines)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"inputs": np.zeros((20, 8))}, "`inputs` must be"),
        ({"inputs": np.zeros((20, 0, 8, 1))}, "`inputs` must be"),
        ({"neighbors": [1, 2]}, "`neighbor_indices` must be"),
        ({"neighbors": [[1], [2]]}, "`neighbor_indices` must be"),
        ({"neighbors": [[]]}, "`neighbor_indices` must be"),
        ({"distances": np.zeros((1, 3))}, "`distances` must have shape"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, digits, change, text):
    options = {"neighbors": [[1, 2]], "queries": [0]} | change
    with pytest.raises(ValueError, match=text):
        gallery(tmp_path / "a.png", digits, **options)
    assert os.listdir(tmp_path) == []


def test_records_may_come_straight_from_json(tmp_path):
    lines = [json.dumps(row) for row in records()]
    write_curves(tmp_path / "curves.png", [json.loads(line) for line in lines])
    assert (tmp_path / "curves.png").stat().st_size > 10_000
