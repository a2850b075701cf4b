"""What the report says of transfers beside the table: the slide, gains, worst classes, surest mistakes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from report_run import make_run

from pipeline.config import Loading, Pictures
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.figures.style import Look, styled
from pipeline.monitor.confusion import worst_of
from pipeline.report import load, table
from pipeline.report.gains import gain_chart
from pipeline.report.inputs import Samples
from pipeline.report.page import html, markdown
from pipeline.report.plots import transfer_chart
from pipeline.report.slide import SLIDE, beside
from pipeline.report.worst import of_transfer, worst_chart
from pipeline.transfer.answers import Answers
from pipeline.transfer.mistakes import MOST, keep_mistakes, surest_mistakes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load(make_run(tmp_path_factory.mktemp("runs") / "demo", training=False, side=0))


def named(transfer: dict, protocol: str) -> dict:
    return transfer | {"results": [each | {"protocol": protocol} for each in transfer["results"]]}


# --- the slide --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "printed"),
    [
        ("caltech101-102", "87.7 → 88.4"),
        ("voc2007-difficult-negative", "79.7 → 82.4"),
        ("cub200-448", "61.0 → 70.4"),
        ("aircraft", "45.0 → 74.1"),
        ("cars", "36.5 → 79.8"),
        ("carsick", None),
    ],
)
def test_the_slides_figures_stand_beside_the_datasets_that_it_has(run, protocol, printed):
    transfer = named(run.transfers[0], protocol)
    found = beside(transfer)
    assert (str(found) if found else None) == printed
    told = table([transfer])
    assert (printed is not None) == ("| the slide |" in told)
    if printed:
        assert f"| {printed} |" in told
        assert found.source in told


def test_what_is_unconfirmed_is_said_to_be(run):
    told = table([named(run.transfers[0], "cars"), named(run.transfers[0], "voc2007")])
    assert "FC-CNN of Lin et al. 2015 [unconfirmed]" in told
    assert "vehicles 59.2" in told
    assert "so they are not the best" in told
    assert "[unconfirmed]" not in table([named(run.transfers[0], "caltech101-102")])
    assert "the slide" not in table(run.transfers)
    assert all(each.frozen < each.finetuned for each in SLIDE.values())


def test_the_page_has_the_column_only_with_something_in_it(run):
    assert ">the slide<" not in html(run, {})
    assert "36.5 → 79.8" in html(replace(run, transfers=[named(run.transfers[0], "cars")]), {})


# --- gains ------------------------------------------------------------------------------------------------


def test_bars_are_the_gains_and_whiskers_their_intervals(run):
    (axes,) = gain_chart(run.transfers, Look()).axes
    gains = run.transfers[0]["improvement"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(
        [100 * gains[mode]["value"] for mode in ("frozen", "finetuned")]
    )
    whiskers = [line.get_xdata() for line in axes.get_lines() if len(set(line.get_xdata())) == 2]
    for drawn, mode in zip(whiskers, ("frozen", "finetuned"), strict=True):
        assert drawn == pytest.approx([100 * gains[mode]["low"], 100 * gains[mode]["high"]])
    assert gain_chart([run.transfers[0] | {"improvement": {}}], Look()) is None


@pytest.mark.parametrize("narrow", [False, True])
def test_no_figure_is_cut_off_at_the_edge(run, narrow):
    """Matplotlib's own font, the widest of the wanted ones, is the only one on many machines."""
    cell = {"value": 1.0, "low": 1.0, "high": 1.0}
    summary = {mode: figures | cell for mode, figures in run.transfers[0]["summary"].items()}
    look = Look(narrow=narrow)
    figure = transfer_chart([run.transfers[0] | {"summary": summary}], look)
    with styled(look):
        figure.canvas.draw()
    told = [text for text in figure.axes[0].texts if text.get_text().startswith("100.0")]
    assert len(told) == 3
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in told)


# --- worst classes ----------------------------------------------------------------------------------------


def test_the_worst_of_many_classes_are_the_best_modes(run):
    k = 40
    counts = {"frozen": np.eye(k, dtype=int) * 9, "scratch": np.full((k, k), 1)}
    counts["frozen"][7, 3] = 27
    transfer = run.transfers[0] | {
        "classes": [f"c{number}" for number in range(k)],
        "summary": {"frozen": {"value": 0.9}, "scratch": {"value": 0.1}},
        "results": [{"mode": mode, "confusion": each.tolist()} for mode, each in counts.items()] * 2,
    }
    (worst,) = of_transfer(transfer)["worst"]
    assert (worst["class"], worst["pictures"], worst["recall"]) == ("c7", 72, 0.25)
    assert worst["taken_for"] == [{"class": "c3", "pictures": 54}]
    one = worst_of(counts["frozen"], transfer["classes"])[0]
    assert (worst["low"], worst["high"]) == (one["low"], one["high"]), "two seeds may test the same pictures"
    assert worst_chart(of_transfer(transfer), Look())
    assert not of_transfer(run.transfers[0]), "four classes: the matrix names them all"


# --- surest mistakes --------------------------------------------------------------------------------------


def test_the_surest_mistakes_come_first(tmp_path):
    rng = np.random.default_rng(0)
    labels, said, sure = rng.integers(0, 3, 50), rng.integers(0, 3, 50), rng.random(50).astype(np.float32)
    Answers(said, labels, np.arange(50), {}, {}, sure).keep(tmp_path / "a.npz")
    places, classes, shares = surest_mistakes(Answers.read(tmp_path / "a.npz"))
    wrong = np.flatnonzero(labels != said)
    assert places.tolist() == sorted(wrong, key=lambda each: -sure[each])[:MOST]
    assert classes.tolist() == said[places].tolist()
    assert shares.tolist() == sure[places].tolist()
    # A file of an earlier version has no confidences, and one without mistakes has none to show.
    Answers(said, labels, np.arange(50), {}, {}).keep(tmp_path / "old.npz")
    assert Answers.read(tmp_path / "old.npz").confidence is None
    assert not len(surest_mistakes(Answers.read(tmp_path / "old.npz"))[0])
    assert not len(surest_mistakes(Answers(labels, labels, np.arange(50), {}, {}, sure))[0])


def test_pictures_of_mistakes_are_those_that_were_tested(small_index, tmp_path):
    split = open_index(small_index).split("test")
    rng = np.random.default_rng(0)
    said, sure = rng.integers(0, 5, len(split)), rng.random(len(split)).astype(np.float32)
    labels = split.labels.astype(np.int64)
    wrong, right = (Answers(each, labels, np.arange(70), {}, {}, sure) for each in (said, labels))
    pictures = Pictures(size=32, eval_resize=None)
    loader = Loader(split, pictures, Loading(threads=1), torch.device("cpu"), channels_last=True)
    file = tmp_path / "x.mistakes.npz"
    keep_mistakes(file, loader, {"frozen": wrong, "scratch": right})
    with np.load(file, allow_pickle=False) as held:
        places, classes, shares = surest_mistakes(wrong)
        assert held["modes"].tolist() == ["frozen"] * MOST
        assert held["said"].tolist() == classes.tolist()
        assert held["labels"].tolist() == labels[places].tolist()
        assert held["confidence"].tolist() == shares.tolist()
        assert np.array_equal(held["pictures"], split.pixels[places])
    keep_mistakes(file, loader, {"frozen": right})
    assert not file.exists(), "mistakes of an earlier run are not this one's"


def test_of_several_labels_what_is_hard_to_tell_is_no_mistake():
    labels = np.array([[1, -1, 0], [-1, 1, -1], [1, 1, 0], [-1, -1, 1]], np.int8)
    scores = np.array([[5, 1, 9], [2, 3, -1], [1, 1, 8], [-3, -1, 4]], np.float32)
    places, said, sure = surest_mistakes(Answers(scores, labels, np.arange(4), {}, {}))
    assert (places.tolist(), said.tolist()) == ([1, 0], [0, 1])
    assert sure == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))])


def test_mistakes_and_pictures_of_several_labels_are_shown(tmp_path):
    folder = make_run(tmp_path / "voc", training=False)
    file = folder / "transfer" / "vehicles.json"
    classes = json.loads(file.read_text())["classes"]
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    labels = np.array([[1, -1, 1, -1], [-1, -1, -1, 0], [-1, 1, -1, -1]], np.int8)
    about = {"pictures": pictures, "labels": labels}
    np.savez(file.with_suffix(".samples.npz"), **about, predictions_frozen=np.array([2, 0, 1]))
    modes, sure = np.array(["frozen", "frozen", "scratch"]), np.array([0.987, 0.6, 0.9], np.float32)
    np.savez(
        file.with_suffix(".mistakes.npz"), **about, modes=modes, said=np.array([1, 0, 0]), confidence=sure
    )
    run = load(folder)
    shown: Samples = run.transfer_samples["vehicles"]
    assert [shown.truth(number) for number in range(3)] == [f"{classes[0]}, {classes[2]}", "none", classes[1]]
    assert [shown.wrong(number, "frozen") for number in range(3)] == [None, classes[0], None]
    found = run.mistakes["vehicles"]
    assert {mode: len(each.pictures) for mode, each in found.items()} == {"scratch": 1, "frozen": 2}
    assert found["frozen"].wrong(0, "frozen") == f"99 % {classes[1]}"
    page = html(run, {})
    assert "The surest mistakes" in page
    assert "60 % airplane" in page
    assert "mistakes-vehicles-frozen.png" in markdown(run, {"mistakes-vehicles-frozen": {"light": b""}})
