"""The report's parts: what is read, what is said, and how tables and pictures are laid out."""

import io
import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from report_run import make_run
from rich.console import Console

from pipeline.config import UserError
from pipeline.figures.style import PNG_LIMIT, spread
from pipeline.monitor.history import busy
from pipeline.report import load, print_table, table
from pipeline.report.inputs import MODES, Run
from pipeline.report.page import html, markdown
from pipeline.report.pictures import COLUMNS, GAP, TILE, confusions, sheet
from pipeline.report.plots import MOST_POINTS, smoothed, thinned
from pipeline.report.summary import duration, facts, headline, notes, tiles
from pipeline.report.tables import markdown as escape


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A whole run as loaded; tests leave it as it is."""
    return load(make_run(tmp_path_factory.mktemp("runs") / "demo"))


def test_cut_off_and_broken_lines(tmp_path):
    folder = make_run(tmp_path / "cut", transfer=False)
    whole = load(folder)
    assert len(whole.rows) == 5 * 20 + 5 + 1
    assert whole.unreadable == 0
    lines = (folder / "metrics.jsonl").read_bytes().split(b"\n")
    lines[3] = lines[3][:20] + lines[4]
    lines[6] = json.dumps(json.loads(lines[6]) | {"loss": float("nan"), "top1": None}).encode()
    lines[8] = json.dumps(json.loads(lines[8]) | {"loss": None, "skipped": 2}).encode()
    (folder / "metrics.jsonl").write_bytes(b"\n".join(lines))
    broken = load(folder)
    assert len(broken.rows) == len(whole.rows) - 1
    assert len(broken.column("train", "loss")[0]) == 5 * 20 - 3
    page = html(broken, {})
    assert "1 unreadable lines of metrics.jsonl" in page
    assert "not a finite number in 2 rows, first at epoch 0.35" in page
    assert "2 steps were skipped, as the gradient was not finite" in page


def test_headline_claims_no_more_than_the_interval(run):
    transfer = run.transfers[0]

    def told(value, low, high):
        gain = {"frozen": {"value": value, "low": low, "high": high}}
        return headline(replace(run, transfers=[transfer | {"improvement": gain}]))

    assert told(0.2, 0.15, 0.25).endswith("20.0 points above training from scratch")
    assert told(0.02, -0.01, 0.05).endswith("not told apart from training from scratch")
    assert told(-0.1, -0.15, -0.05).endswith("10.0 points below training from scratch")


@given(st.text("ab_*`~|\\[]()<>&!#: \n-$1", max_size=30))
def test_escaped_text_renders_as_itself(text):
    shown = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .render(f"| head |\n| --- |\n| x{escape(text)}x |\n")
    )
    (cell,) = re.findall(r"<td>(.*)</td>", shown, re.DOTALL)
    assert "<" not in cell
    assert unescape(cell) == f"x{' '.join(text.split())}x"


def test_table_without_a_mode(run):
    transfer = run.transfers[0]
    only = {"finetuned": transfer["summary"]["finetuned"]}
    transfer = transfer | {"summary": only, "improvement": {}}
    cells = [cell.strip() for cell in table([transfer]).splitlines()[2].split("|")[1:-1]]
    assert [cells[1], cells[2], cells[4]] == ["–", "–", "–"]
    alone = replace(run, transfers=[transfer])
    assert headline(alone).startswith("Finetuned reaches 7")
    assert "## Transfer" in markdown(alone, {})


def test_terminal_table_fits_80_columns_and_shows_names_as_they_are(run):
    console = Console(file=io.StringIO(), width=80, color_system=None)
    print_table([run.transfers[0] | {"dataset": "[red]x[/red]", "run": "one"}], console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith("[red]x[/red]")]
    assert [line for line in lines if line.startswith("one ")]


def test_confusions_sum_seeds_and_share_rows(run):
    transfer = run.transfers[0]
    for mode, shares in confusions(transfer).items():
        counts = sum(np.array(r["confusion"]) for r in transfer["results"] if r["mode"] == mode)
        np.testing.assert_allclose(shares, counts / counts.sum(axis=1, keepdims=True), rtol=1e-12)
        assert np.trace(shares) / 4 == pytest.approx(transfer["summary"][mode]["value"], abs=1e-12)
    assert list(confusions(transfer)) == list(MODES)


def test_small_pictures_are_not_resampled(run):
    samples = run.samples
    flat = samples.pictures.copy()
    flat[:] = np.arange(24, dtype=np.uint8)[:, None, None, None] * 7
    flat[:, :, 20:] += 30
    flat[:, 10:, :, 0] += 60
    drawn = np.asarray(Image.open(io.BytesIO(sheet(replace(samples, pictures=flat)))))
    for number in range(COLUMNS):
        left = number * (TILE + GAP)
        want = flat[number].repeat(TILE // 32, 0).repeat(TILE // 32, 1)
        np.testing.assert_array_equal(drawn[1 : TILE - 1, left + 1 : left + TILE - 1], want[1:-1, 1:-1])


@pytest.mark.parametrize("side", [32, 200])
def test_sheet_of_noise_is_small(run, side):
    # Noise is the worst that a PNG can meet: pictures are left out until the rest fits.
    noise = np.random.default_rng(0).integers(0, 256, (24, side, side, 3), np.uint8)
    (samples,) = run.transfer_samples.values()
    drawn = sheet(replace(samples, pictures=noise))
    assert len(drawn) <= PNG_LIMIT
    assert Image.open(io.BytesIO(drawn)).width >= 2 * TILE


BROKEN = {
    "config.yaml": ["a: [", "- a list"],
    "transfer/vehicles.json": [
        '{"dataset": "x"', "[]", '{"dataset": "x", "classes": [], "results": []}',
        '{"dataset": "x", "classes": [], "results": [{"mode": "warm"}], "summary": {}}',
        '{"dataset": "x", "classes": [], "results": [], "summary": {"frozen": {"value": "high"}}}',
        '{"dataset": "x", "classes": ["a"], "summary": {}, '
        '"results": [{"mode": "frozen", "value": 1.0, "confusion": [[1, 2]]}]}',
        '{"dataset": "x", "classes": [], "results": [], "summary": {}, "improvement": [1]}',
    ],
    "samples.npz": ["", "not a zip file at all"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BROKEN.items() for text in texts])
def test_broken_file_is_named(tmp_path, name, text):
    folder = make_run(tmp_path / "broken", training=False, transfer=False)
    (folder / "transfer").mkdir()
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=f"^{re.escape(str(folder / name))}: ") as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"pictures": np.zeros((2, 4, 4, 3))},
        {"labels": np.array([0, 9])},
        {"predictions": np.array([0])},
        {"classes": np.array(["a", {}], dtype=object)},
    ],
)
def test_broken_samples_are_named(tmp_path, change):
    folder = make_run(tmp_path / "broken", training=False, transfer=False)
    good = {
        "pictures": np.zeros((2, 4, 4, 3), np.uint8),
        "labels": np.array([0, 1]),
        "predictions": np.array([0, 0]),
        "classes": np.array(["a", "b"]),
    }
    np.savez(folder / "samples.npz", **good)
    assert len(load(folder).samples.labels) == 2
    np.savez(folder / "samples.npz", **good | change)
    with pytest.raises(UserError, match=r"samples\.npz: "):
        load(folder)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=6), st.floats(0.1, 20))
def test_spread_keeps_order_and_distance(wanted, gap):
    places = spread(wanted, gap)
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(np.array(places)[order]) >= gap - 1e-9).all()
    # Labels that don't collide stay where their lines end.
    apart = [50 * gap * step for step in range(len(wanted))]
    assert spread(apart, gap) == pytest.approx(apart)


@settings(max_examples=30)
@given(st.integers(1, 5000), st.integers(0, 2**32 - 1))
def test_thinned_and_smoothed(n, seed):
    values = np.random.default_rng(seed).normal(size=n)
    epochs, kept = thinned(np.arange(n) / 7, values)
    assert len(kept) <= MOST_POINTS
    assert {values.min(), values.max()} <= set(kept)
    assert (np.diff(epochs) > 0).all()
    smooth = smoothed(values)
    assert smooth.shape == values.shape
    assert values.min() - 1e-9 <= smooth.min() <= smooth.max() <= values.max() + 1e-9
    np.testing.assert_allclose(smoothed(np.full(n, 3.0)), 3.0)


def test_the_moving_average_has_a_figure_of_its_own(run):
    rows = [row | ({"ema_top1": 0.5} if row["split"] == "test" else {}) for row in run.rows]
    (tile,) = [tile for tile in tiles(replace(run, rows=rows)) if tile.name == "average"]
    assert (tile.value, tile.note) == ("50.0", "of the weights' moving average")
    assert "average" not in [tile.name for tile in tiles(run)]


def test_duration():
    assert [duration(s) for s in (47.6, 725, 12_000)] == ["48 s", "12 min 05 s", "3 h 20 min"]


def test_time_between_jobs_is_no_time_of_the_run(run):
    """100 steps of 64 pictures at 900 a second, stopped for two days after the half."""
    late = [row | {"time": row["time"] + 2 * 86400 * (row["step"] > 50)} for row in run.rows]
    told = facts(replace(run, rows=late))
    assert "5 epochs, steps took 7 s" in told
    fewer = [*late[::2], {"split": "train", "samples": None}]
    assert busy(replace(run, rows=fewer)) == pytest.approx(7.1, rel=0.05)


def test_waiting_and_replaced_pictures_are_told(run):
    assert tiles(run)[-1].note == "median; 3% waiting for pictures"
    (told,) = [note for note in notes(run) if "faults.tsv" in note]
    assert told.startswith("2 times a picture could not be read or decoded and another stood in for it")
