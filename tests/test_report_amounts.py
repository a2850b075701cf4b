"""The curves of transfer: score against the number of training pictures a class."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from report_run import make_run

from pipeline.figures.style import LOOKS, Look
from pipeline.report import draw, load
from pipeline.report.amounts import amount_chart, curves, pictures_a_class
from pipeline.report.page import html, markdown


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with one dataset at 5, 20 and all of its pictures a class, and one dataset by itself."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "demo", training=False, side=0)
    file = folder / "transfer" / "vehicles.json"
    whole = json.loads(file.read_text())
    for place, (name, number, trained) in enumerate([("all", None, 2000), ("20", 20, 80), ("5", 5, 20)]):
        results = [each | {"n_train": trained, "confusion": None} for each in whole["results"]]
        for cell in (*whole["summary"].values(), *whole["improvement"].values()):
            cell |= {key: cell[key] - 0.05 * place for key in ("value", "low", "high")}
        point = {"dataset": f"mnist-{name}", "curve": "mnist", "per_class": number, "results": results}
        (folder / "transfer" / f"mnist-{name}.json").write_text(json.dumps(whole | point))
    return load(folder)


def test_points_of_a_curve_go_from_few_to_many(run):
    (found,) = curves(run.transfers).items()
    assert found[0] == "mnist"
    assert [pictures_a_class(point) for point in found[1]] == [5, 20, 500]
    assert not curves(run.transfers[:1]), "one point is no curve"


def test_lines_pass_through_the_means_and_bands_are_the_intervals(run):
    points = curves(run.transfers)["mnist"]
    score, gain = amount_chart(points, Look()).axes
    for axes, key, modes in ((score, "summary", 3), (gain, "improvement", 2)):
        lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
        assert len(lines) == len(axes.collections) == modes
        shown = {tuple(np.round(line.get_ydata(), 6)) for line in lines}
        wanted = {
            tuple(np.round([100 * point[key][mode]["value"] for point in points], 6))
            for mode in points[0][key]
        }
        assert shown == wanted
        low, high = axes.collections[0].get_datalim(axes.transData).intervaly
        first = next(iter(mode for mode in ("scratch", "frozen") if mode in points[0][key]))
        assert low == pytest.approx(100 * min(point[key][first]["low"] for point in points))
        assert high == pytest.approx(100 * max(point[key][first]["high"] for point in points))
        assert [each.get_text() for each in axes.get_xticklabels()] == ["5", "20", "all (500)"]


def test_without_scratch_there_is_no_gain(run):
    points = [
        point | {"summary": {"frozen": point["summary"]["frozen"]}, "improvement": {}}
        for point in curves(run.transfers)["mnist"]
    ]
    (score,) = amount_chart(points, Look()).axes
    assert len(score.collections) == 1


def test_the_report_shows_it_in_every_look(run):
    drawn = draw(replace(run, transfers=curves(run.transfers)["mnist"]))
    assert drawn["amount-mnist"].keys() == LOOKS.keys()
    widths = {name: Image.open(io.BytesIO(png)).width for name, png in drawn["amount-mnist"].items()}
    assert widths["light_narrow"] < widths["light"]
    assert "mnist: how many pictures" in html(run, drawn)
    assert "(plots/amount-mnist.png)" in markdown(run, drawn)
    assert "how many pictures" not in html(replace(run, transfers=run.transfers[-1:]), {})
