"""The written report: figures exactly as computed, nothing from outside, no fall over missing parts."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_run import make_run

from launch.report import main
from pipeline.figures.style import PNG_LIMIT
from pipeline.report import table, write


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A whole run with its report written; tests read it only."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "demo")
    assert write(folder) == folder / "report.html"
    return folder


class Page(HTMLParser):
    """Tags with their attributes, and all text outside of style."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] != "style":
            self.text += data + " "


def test_page_holds_everything_and_points_nowhere(run):
    source = (run / "report.html").read_text()
    page = Page(source)
    pictures = [(tag, attrs) for tag, attrs in page.tags if tag in ("img", "source")]
    # Four plots in four looks, and both sheets' pictures.
    assert len(pictures) == 4 * 4 + 2 * 24
    for tag, attrs in pictures:
        assert attrs["src" if tag == "img" else "srcset"].startswith("data:image/")
        assert tag == "source" or attrs["alt"]
    assert not {"script", "link", "iframe", "base", "object"} & {tag for tag, _ in page.tags}
    assert not [attrs for _, attrs in page.tags if "href" in attrs]
    assert not re.search(r"https?://|@import|url\(", source)
    assert "prefers-color-scheme: dark" in source
    assert 'name="viewport"' in source


def test_figures_are_the_files_figures(run):
    transfer = json.loads((run / "transfer" / "vehicles.json").read_text())
    text = " ".join(Page((run / "report.html").read_text()).text.split())
    report = (run / "report.md").read_text()

    def form(cell, sign=""):
        value, low, high = (100 * cell[key] for key in ("value", "low", "high"))
        return f"{value:{sign}.1f} [{low:.1f}, {high:.1f}]"

    cells = [form(transfer["summary"][mode]) for mode in ("scratch", "frozen", "finetuned")]
    cells.append(form(transfer["improvement"]["finetuned"], "+") + " finetuned")
    assert f"| vehicles | {' | '.join(cells)} | 80 | 4,000 | 3 |" in report
    assert f"vehicles {' '.join(cells)} 80 / 4,000 3" in text
    assert "81.2 %" in text
    assert "81.2 %" in report
    assert f"{100 * transfer['results'][4]['value']:.1f}" in text
    assert "C 0.3162" in report


def test_names_are_escaped(run):
    source, report = (run / "report.html").read_text(), (run / "report.md").read_text()
    assert "<script" not in source
    assert "&lt;script&gt;alert(1)" in source
    assert "<b>tested" not in source + report
    assert "<script" not in report
    transfer = json.loads((run / "transfer" / "vehicles.json").read_text())
    line = table([transfer | {"dataset": "a|b <script>"}]).splitlines()[2]
    assert line.startswith(r"| a\|b &lt;script&gt; | ")


def test_wrong_predictions_are_marked(run):
    wrong = 0
    for file in (run / "samples.npz", run / "transfer" / "vehicles.samples.npz"):
        with np.load(file, allow_pickle=False) as arrays:
            wrong += sum((arrays[n] != arrays["labels"]).sum() for n in arrays.files if n.startswith("pred"))
    marked = [
        attrs for tag, attrs in Page((run / "report.html").read_text()).tags if attrs.get("class") == "wrong"
    ]
    keys = 2  # above each sheet
    assert len(marked) == wrong + keys


def test_plots_are_small_pngs(run):
    files = sorted(run.glob("plots/*.png"))
    assert {file.stem for file in files} == {
        "confusion-vehicles", "curves", "gains", "samples", "samples-vehicles", "transfer"
    }  # fmt: skip
    for file in files:
        with Image.open(file) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert picture.width >= 600
        assert file.stat().st_size < PNG_LIMIT
        assert f"](plots/{file.name})" in (run / "report.md").read_text()


@pytest.mark.parametrize(
    ("parts", "told", "plots", "headings"),
    [
        (
            {"transfer": False},
            "81.2\u00a0% top-1 on the test set",
            {"curves", "samples"},
            ["Training", "Settings"],
        ),
        (
            {"training": False},
            "Finetuned reaches",
            {"transfer", "gains", "samples-vehicles", "confusion-vehicles"},
            ["Transfer", "vehicles", "Settings"],
        ),
        ({"training": False, "transfer": False}, "Nothing measured yet", set(), ["Settings"]),
    ],
)
def test_missing_parts_are_left_out(tmp_path, parts, told, plots, headings):
    folder = make_run(tmp_path / "part", **parts)
    source = write(folder).read_text()
    assert {file.stem for file in folder.glob("plots/*")} == plots
    assert re.findall("<h2>(.*)</h2>", source) == headings
    assert re.search("<h1>(.*)</h1>", source)[1].startswith(told)
    assert "python -m launch.report" in source
    for door, file in (("train", "config.yaml"), ("transfer", "transfer/config.yaml")):
        assert ((folder / file).exists()) == (f"python -m launch.{door} {folder / file}" in source)


def test_door(tmp_path, capsys):
    runs = [make_run(tmp_path / name, training=False, side=0) for name in ("one", "two")]
    main([str(folder) for folder in runs])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [str(folder / "report.html") for folder in runs]
    assert [line.split()[0] for line in lines if line.startswith(("vehicles", "one", "two"))] == [
        "vehicles", "one", "vehicles", "two"
    ]  # fmt: skip
    for folder, word in ((tmp_path / "none", "no such run folder"), (tmp_path, "config.yaml: missing")):
        with pytest.raises(SystemExit) as stopped:
            main([str(folder)])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert word in line


ASKED_FOR_HELP = """
import runpy, sys
sys.argv[1:] = ["--help"]
try:
    runpy.run_module("launch.report", run_name="__main__", alter_sys=True)
except SystemExit as left:
    assert left.code == 0
else:
    sys.exit("it did not end")
import pipeline.report
sys.exit("matplotlib.pyplot" in sys.modules)
"""
"""``python -m launch.report --help``, and what it has imported then."""


def test_door_as_a_command_and_no_global_state():
    shown = subprocess.run([sys.executable, "-c", ASKED_FOR_HELP], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "python -m launch.report runs/" in shown.stdout
