"""What the report shows of frozen features: the path of λ, few pictures, depths, resolutions, a map."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from report_run import CLASSES, make_run

from pipeline.config import UserError
from pipeline.figures.style import DARK, LOOKS, PNG_LIMIT, Look
from pipeline.report import draw, load
from pipeline.report.analyses import charts, features_chart, path_chart, rows
from pipeline.report.atlas import MOST, Atlas, atlas_chart
from pipeline.report.page import html, markdown

X = {
    "neighbours": [None],
    "shots": [1, 5, 20],
    "depth": ["stage1", "stage2", "embed"],
    "resolution": [24, 32],
}


def analyses(frozen: dict) -> list[dict]:
    found, value = [], 0.3
    for kind, places in X.items():
        for x in places:
            value += 0.03
            about = {"kind": kind, "x": x, "metric": "top1", "protocol": None, "n_train": 80, "seeds": 2}
            if x in ("embed", 24):
                found.append(about | {"mode": "frozen", "results": []} | frozen)
                continue
            chosen = [{"k": 5}, {"k": 1}] if kind == "neighbours" else [{"lambda": 0.1}, {"lambda": 0.01}]
            each = [
                {"seed": seed, "value": value + seed / 100, "low": 0.1, "high": 0.9, "chosen": chosen[seed]}
                for seed in (0, 1)
            ]
            cell = {"value": value + 0.005, "low": value - 0.04, "high": value + 0.05}
            found.append(about | cell | {"results": each})
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("runs") / "demo", training=False, side=0)
    file = folder / "transfer" / "vehicles.json"
    transfer = json.loads(file.read_text())
    lams = np.logspace(-6, 5, 45)
    for each in transfer["results"]:
        each["confusion"] = None  # a plot less to draw
        if each["mode"] == "frozen":
            scores = 0.6 - 0.01 * (np.log10(lams) + each["seed"]) ** 2
            path = np.stack([lams, scores, 2 - scores], axis=1).tolist()
            each["chosen"] = {"lambda": lams[scores.argmax()], "path": path, "by": "top1"}
    transfer["analyses"] = analyses(transfer["summary"]["frozen"])
    file.write_text(json.dumps(transfer))
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 4, 2000)
    places = (10 * rng.normal(size=(5, 2))[labels] + rng.normal(size=(2000, 2))).astype(np.float32)
    np.savez(folder / "transfer" / "vehicles.map.npz", places=places, labels=labels, method="t-SNE")
    return load(folder)


def test_lines_and_rings_of_the_path_are_the_figures(run):
    (transfer,) = run.transfers
    (axes,) = path_chart(transfer, Look()).axes
    lines, rings = axes.get_lines()[::2], axes.get_lines()[1::2]
    frozen = [each["chosen"] for each in transfer["results"] if each["mode"] == "frozen"]
    assert len(lines) == len(rings) == 3
    for chosen, line, ring in zip(frozen, lines, rings, strict=True):
        path = np.array(chosen["path"])
        assert np.allclose(line.get_xydata(), path[:, :2] * [1, 100])
        best = path[path[:, 1].argmax()]
        assert np.allclose(ring.get_xydata(), [[chosen["lambda"], 100 * best[1]]])
    by_loss = [each | {"chosen": each["chosen"] | {"by": "loss"}} for each in transfer["results"]]
    (axes,) = path_chart(transfer | {"results": by_loss}, Look()).axes
    assert np.allclose(axes.get_lines()[0].get_ydata(), np.array(frozen[0]["path"])[:, 2])


LOSSES = [(0.64, 0.9, 6.0), (0.52, 0.6, 0.9), (1e-4, 0.5, 40.0), (0.4, 0.9, np.inf)]


@pytest.mark.parametrize("losses", LOSSES)
def test_cross_entropies_can_be_read(run, losses):
    """Two numbers at least beside the axis, plain, and none of them cut off at the picture's edge."""
    (transfer,) = run.transfers
    path = [[lam, 0.5, loss] for lam, loss in zip((0.01, 1.0, 100.0), losses, strict=True)]
    chosen = {"lambda": 1.0, "path": path, "by": "loss"}
    figure = path_chart(transfer | {"results": [{"mode": "frozen", "chosen": chosen}]}, Look())
    (axes,) = figure.axes
    figure.canvas.draw()
    low, high = axes.get_ylim()
    labels = [label for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert len(labels) >= 2
    for label in labels:
        assert float(label.get_text()) == pytest.approx(label.get_position()[1])
        assert label.get_window_extent().x0 >= 0, label.get_text()


def test_points_and_intervals_are_the_figures(run):
    (transfer,) = run.transfers
    panels = features_chart(transfer, Look()).axes
    assert len(panels) == 3
    for axes, kind in zip(panels, ("shots", "depth", "resolution"), strict=True):
        wanted = [each for each in transfer["analyses"] if each["kind"] == kind]
        (bars,) = axes.containers
        value = bars.lines[0].get_ydata()
        assert value == pytest.approx([100 * each["value"] for each in wanted])
        ends = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
        assert ends == [pytest.approx([100 * each["low"], 100 * each["high"]]) for each in wanted]
    assert [each.get_text() for each in panels[0].get_xticklabels()] == ["1", "5", "20"]
    assert [each.get_text() for each in panels[1].get_xticklabels()] == ["1", "2", "embed"]


def test_rows_say_what_was_asked_and_chosen(run):
    found = [(row["kind"], row["x"], row["chosen"]) for row in rows(run.transfers[0])]
    assert found[0] == ("nearest neighbours", "", "k 1, 5")
    assert found[1] == ("few pictures", "1 a class", "λ 0.01, 0.1")
    assert found[6] == ("depth", "in front of the head", "as frozen")
    assert found[8] == ("resolution", "32 pixels", "λ 0.01, 0.1")
    each = run.transfers[0]["analyses"][0]
    assert rows(run.transfers[0])[0]["score"] == f"{100 * each['value']:.1f}"


@pytest.mark.parametrize("look", [Look(), Look(DARK, narrow=True)])
def test_the_map_colours_the_commonest_classes_and_counts_the_others(look):
    rng = np.random.default_rng(1)
    labels = np.concatenate([np.arange(30), np.repeat(np.arange(5, 5 + MOST), 3), [-1]])
    atlas = Atlas(rng.normal(size=(len(labels), 2)), labels, "t-SNE")
    names = [f"class {number}" for number in range(28)] + [r"$\frac$ [red]", "_"]
    axes, key = atlas_chart(atlas, names, look).axes
    told = [text.get_text() for text in key.texts]
    assert told == [
        *(f"class {each}" for each in range(5, 5 + MOST)),
        "not just one class",
        "18 other classes",
    ]
    shown = {line.get_color(): 0 for line in axes.get_lines()}
    for line in axes.get_lines():
        shown[line.get_color()] += len(line.get_xdata())
    assert shown.pop(look.theme.muted) == 18 + 1
    assert set(shown.values()) == {2 * 4}
    assert sum(shown.values()) == MOST * 4


def test_the_report_shows_what_there_is(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw(run)
    wanted = {"path-vehicles", "features-vehicles", "map-vehicles"}
    assert wanted <= drawn.keys()
    for name in wanted:
        assert drawn[name].keys() == LOOKS.keys()
        assert all(len(png) < PNG_LIMIT for png in drawn[name].values())
    page, report = html(run, drawn), markdown(run, drawn)
    for name in wanted:
        assert f"(plots/{name}.png)" in report
    for text in ("A map of the features", "2,000 test pictures by t-SNE", "How λ was chosen", "k 1, 5"):
        assert text in page
        assert text in report
    (transfer,) = run.transfers
    few = transfer | {"analyses": [], "results": [each | {"chosen": {}} for each in transfer["results"]]}
    assert charts(few, None) == {}
    assert "of frozen features" not in html(replace(run, transfers=[few], maps={}), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "size"}, r"analyses\.0\.kind: not one of neighbours, shots"),
        ({"low": None}, r"analyses\.0\.low: not a number"),
        ({"kind": "shots", "x": "many"}, r"analyses\.0\.x: not a number"),
        ({"results": [{"value": 1.0}]}, r"analyses\.0\.results: not rows"),
    ],
)
def test_a_file_of_another_layout_is_a_line(run, tmp_path, change, message):
    folder = make_run(tmp_path / "demo", training=False, side=0)
    file = folder / "transfer" / "vehicles.json"
    wrong = [run.transfers[0]["analyses"][0] | change]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"analyses": wrong}))
    with pytest.raises(UserError, match=message):
        load(folder)


def test_a_map_that_is_none_is_a_line(tmp_path):
    folder = make_run(tmp_path / "demo", training=False, side=0)
    file = folder / "transfer" / "vehicles.map.npz"
    file.write_bytes(b"PK\3\4 cut off")
    with pytest.raises(UserError, match=r"vehicles\.map\.npz: cannot be read as a map"):
        load(folder)
    np.savez(file, places=np.zeros((3, 2)), labels=np.full(3, len(CLASSES)), method="")
    with pytest.raises(UserError, match="labels: not all among the 4 classes"):
        load(folder)
