"""Writers of metrics: what TensorBoard and Weights & Biases are given, read back."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from jaxmetric import training
from jaxmetric.training.writers import scalars

RECORDS = [
    {"step": 0, "kind": "pixels", "recall_at_1": 0.25},
    {"step": 0, "kind": "eval", "recall_at_1": 0.5, "num_queries": 7},
    {"step": 5, "kind": "train", "loss": 0.5, "grad_norm": None, "seconds": 2.0},
    {"step": 10, "kind": "train", "loss": 0.25, "skipped": False, "seconds": 4.0},
]


def read_events(folder):
    """Return the events of all files of a folder, in their order."""
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_file_loader"
    )
    files = sorted(folder.glob("events.*"))
    return [e for file in files for e in loader.LegacyEventFileLoader(str(file)).Load()]


def read_scalars(folder):
    """Return (step, tag, value) of all scalars of a folder."""
    return [
        (event.step, value.tag, value.simple_value)
        for event in read_events(folder)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    ]


def _png(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (255, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_scalars_are_the_finite_numbers_under_their_kind():
    record = {"step": 3, "kind": "eval", "a": 1, "b": float("nan"), "c": "text"}
    assert scalars(record | {"d": None, "e": True}) == {"eval/a": 1.0, "eval/e": 1.0}
    assert scalars({"step": 3, "loss": 0.5}) == {"train/loss": 0.5}


@pytest.fixture
def tensorboard():
    """Skip where the package is missing."""
    pytest.importorskip("tensorboardX")


def test_every_number_is_read_back_at_its_step(tmp_path, tensorboard):
    with training.TensorBoardWriter(tmp_path / "log") as log:
        for record in RECORDS:
            log.write(record)
        # At once: nothing waits in a buffer for the end of the run.
        found = read_scalars(tmp_path / "log")
    want = [(r["step"], *item) for r in RECORDS for item in scalars(r).items()]
    assert found == [(step, tag, pytest.approx(value)) for step, tag, value in want]


def test_a_run_that_goes_on_has_every_step_once(tmp_path, tensorboard):
    with training.TensorBoardWriter(tmp_path) as log:
        for record in RECORDS:
            log.write(record)
    # Cut after step 10, with a checkpoint at step 5.
    kept = RECORDS[:3]
    with training.TensorBoardWriter(tmp_path, records=kept) as log:
        log.write(RECORDS[3])
    losses = [step for step, tag, _ in read_scalars(tmp_path) if tag == "train/loss"]
    assert losses == [5, 10]
    events = read_events(tmp_path)
    assert events[1].session_log.status == 1
    times = [e.wall_time for e in events]
    assert times == sorted(times)
    first, second = (e.wall_time for e in events if e.step in (5, 10))
    assert second >= first
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert [e.step for e in accumulator.Scalars("train/loss")] == [5, 10]


def test_pictures_keep_their_bytes(tmp_path, tensorboard):
    with training.TensorBoardWriter(tmp_path) as log:
        log.write_image("curves", _png(7, 5), step=10)
    (event,) = (e for e in read_events(tmp_path) if e.summary.value)
    image = event.summary.value[0].image
    assert event.step == 10
    assert (image.width, image.height) == (7, 5)
    assert image.encoded_image_string == _png(7, 5)


@pytest.mark.parametrize("shape", [(6, 6), (100, 40)])
def test_the_projector_finds_rows_labels_and_thumbnails(tmp_path, tensorboard, shape):
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    labels = ["a", "b", "c\td\ne", "ü", ""]
    pictures = (np.full((*shape, 3), 50 * i, np.uint8) for i in range(5))
    with training.TensorBoardWriter(tmp_path) as log:
        log.write_embeddings(rows, labels, pictures=pictures)
    proto = pytest.importorskip(
        "tensorboard.plugins.projector.projector_config_pb2"
    ).ProjectorConfig()
    from google.protobuf import text_format

    text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), proto)
    (found,) = proto.embeddings
    np.testing.assert_allclose(
        np.loadtxt(tmp_path / found.tensor_path, delimiter="\t"), rows, rtol=1e-5
    )
    told = (tmp_path / found.metadata_path).read_text(encoding="utf-8")
    assert told == "a\nb\nc d e\nü\n\n"
    side = min(max(shape), 64)
    assert list(found.sprite.single_image_dim) == [side, side]
    sheet = np.asarray(Image.open(tmp_path / found.sprite.image_path))
    # Three squares a line: ceil(sqrt(5)), as the projector counts them.
    assert sheet.shape == (3 * side, 3 * side, 3)
    for i in range(5):
        line, column = divmod(i, 3)
        middle = sheet[line * side + side // 2, column * side + side // 2]
        assert middle.tolist() == [50 * i] * 3


def test_labels_and_pictures_must_be_as_many_as_the_rows(tmp_path, tensorboard):
    rows = np.zeros((2, 3), np.float32)
    with training.TensorBoardWriter(tmp_path) as log:
        with pytest.raises(ValueError, match=r"`labels` must have 2 texts .* got 1\."):
            log.write_embeddings(rows, ["a"])
        one = [np.zeros((2, 2, 3), np.uint8)]
        with pytest.raises(ValueError, match=r"`pictures` must have 2 images .* 1\."):
            log.write_embeddings(rows, ["a", "b"], pictures=one)
    assert not (tmp_path / "projector_config.pbtxt").exists()


@pytest.mark.parametrize(
    ("name", "package"),
    [("TensorBoardWriter", "tensorboardX"), ("WandbWriter", "wandb")],
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path, monkeypatch, name, package
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {package}\. Use pip instal"):
        getattr(training, name)(tmp_path / "log")
    assert not (tmp_path / "log").exists()


class FakeWandb(types.ModuleType):
    """As much of wandb as is used; keeps what it is told."""

    def __init__(self):
        super().__init__("wandb")
        self.begun, self.rows = [], []
        self.offline, self.url = False, "https://example.org/run"

    def Settings(self, **settings):  # noqa: N802
        return settings

    def Image(self, picture):  # noqa: N802
        return picture.size

    def init(self, **options):
        self.begun.append(options)
        return self

    def define_metric(self, *_, **__):
        pass

    def log(self, row):
        self.rows.append(row)

    def finish(self):
        pass


def test_wandb_goes_on_with_its_run_and_is_told_no_step_twice(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = tmp_path / "digits-1"
    log = training.WandbWriter(folder, config={"loss": {"margin": 0.2}})
    for record in RECORDS:
        log.write(record)
    log.write_image("curves", _png(7, 5), step=10)
    # Nobody closed it. It was cut after step 10, with a checkpoint at step 0; a cut
    # right after going on must not lose the place either.
    for _ in range(2):
        again = training.WandbWriter(folder, records=RECORDS[:2])
        again.write(RECORDS[2])
    again.write(RECORDS[3])
    again.write({"step": 10, "kind": "eval", "recall_at_1": 0.75})
    again.write({"step": 10, "kind": "warning", "text": "no numbers"})
    again.close()
    first, second, _ = fake.begun
    assert first["name"] == "digits-1"
    assert first["config"] == {"loss": {"margin": 0.2}}
    assert (first["resume"], second["resume"]) == (None, "allow")
    assert first["id"] == second["id"]
    told = [(row["step"], *sorted(set(row) - {"step"})) for row in fake.rows]
    assert told == [
        (0, "pixels/recall_at_1"),
        (0, "eval/num_queries", "eval/recall_at_1"),
        (5, "train/loss", "train/seconds"),
        (10, "train/loss", "train/seconds", "train/skipped"),
        (10, "curves"),
        (10, "eval/recall_at_1"),
    ]
    assert again.url == fake.url


def test_wandb_gets_the_steps_before_it_was_asked_for(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    training.WandbWriter(tmp_path, records=RECORDS)
    assert [row["step"] for row in fake.rows] == [0, 0, 5, 10]
