"""The report's sections on gradient flow and on a step's time: what is put together, drawn and said."""

import json
import re

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.figures.style import LOOKS, PNG_LIMIT, png
from pipeline.report import load, write
from pipeline.report.clock import MOST_COLUMNS, NAMES, clock_chart, means, shares
from pipeline.report.flow import flow_chart, noise_scale, parts, windows
from pipeline.report.inputs import Run

LAYERS = ["conv1", "layer1.0.conv1", "layer1.0.downsample.0", "layer2.0.conv1", "fc"]


def look(step: int, *, snr=(0.5, 0.2, -0.3, 1.0, 4.0), **changes) -> dict:
    row = {"step": step, "epoch": step / 10, "split": "gradients", "layers": LAYERS}
    row |= {"norm": [0.1, 0.2, 0.3, 0.4, 2.0], "snr": list(snr)}
    row |= {"update_ratio": [1e-3, 2e-3, 1e-3, 4e-3, 1e-2]}
    return row | {"total_norm": 2.1, "total_snr": 0.25, "noise_scale": 512.0} | changes


def trained(step: int, **changes) -> dict:
    row = {"step": step, "epoch": step / 10, "split": "train", "loss": 1.0, "samples": 128 * step}
    row |= {"images_per_s": 1000.0, "data_wait": 0.1, "forward": 0.3, "backward": 0.4}
    return row | {"communication": 0.1, "optimizer": 0.05} | changes


def made(tmp_path, rows: list[dict], batch: int = 128) -> Run:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"name": "made", "train": {"batch": batch}}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(tmp_path)


# --- gradient flow ----------------------------------------------------------------------------------------


@given(st.floats(1e-6, 1e6), st.floats(-0.999, 1e6))
def test_signal_and_noise_come_out_of_norm_and_snr(norm, snr):
    signal, noise = parts(norm, snr)
    assert signal + noise == pytest.approx(norm**2)
    assert signal / noise == pytest.approx(snr, rel=1e-6, abs=1e-9)


def test_windows_are_the_first_look_and_equal_parts(tmp_path):
    run = made(tmp_path, [look(step) for step in (1, *range(10, 90, 10))])
    layers, lines = windows(run)
    assert layers == LAYERS
    assert [line.name for line in lines] == ["step 1", "to epoch 2", "to 4", "to 6", "to 8"]
    few = made(tmp_path, [look(1), look(4), look(8)])
    assert [line.name for line in windows(few)[1]] == ["step 1", "to 4", "to 8"]
    alone = made(tmp_path, [look(1)])
    assert [line.name for line in windows(alone)[1]] == ["step 1"]


def test_signal_and_noise_are_averaged_apart_and_unknown_values_left_out(tmp_path):
    """Two looks of one window: norm^2 = 4 and 16 of a layer, signal 3 and -2, so noise 1 and 18."""
    first = look(2, norm=[2.0] * 5, snr=[3.0] * 4 + [None], update_ratio=[1.0] * 5)
    second = look(3, norm=[4.0] * 3 + [None] * 2, snr=[-2 / 18] * 3 + [None] * 2, update_ratio=[3.0] * 5)
    *_, line = windows(made(tmp_path, [look(1), *[first, second] * 4]))[1]
    np.testing.assert_allclose(line.norm, [10**0.5] * 3 + [2.0] * 2)
    np.testing.assert_allclose(line.snr[:4], [1 / 19] * 3 + [3.0])
    assert np.isnan(line.snr[4])
    np.testing.assert_allclose(line.update_ratio, 2.0)


def test_noise_scale_is_told_with_its_batch(tmp_path):
    told = noise_scale(made(tmp_path, [look(step) for step in range(1, 9)], batch=128))
    assert "about 512 pictures, the batch being 128" in told
    unseen = noise_scale(made(tmp_path, [look(step, total_snr=-0.1) for step in range(1, 9)]))
    assert "too large to be told at a batch of 128" in unseen
    alone = [look(step, total_snr=None, snr=[None] * 5) for step in range(1, 9)]
    assert noise_scale(made(tmp_path, alone)) is None
    assert len(flow_chart(load(tmp_path), LOOKS["light"]).axes) == 2, "nothing is known of noise"


@pytest.mark.parametrize(
    "broken", [{"norm": [1.0]}, {"snr": None}, {"layers": "conv1"}, {"norm": [None] * 5, "snr": [None] * 5}]
)
def test_a_row_that_is_not_whole_is_left_out(tmp_path, broken):
    run = made(tmp_path, [look(1), look(2) | broken, look(3)])
    assert flow_chart(run, LOOKS["light"]) is not None
    _, lines = windows(run)
    np.testing.assert_allclose(lines[-1].norm, look(1)["norm"])


# --- a step's time ----------------------------------------------------------------------------------------


def test_shares_add_up_and_their_mean_is_weighted_by_time(tmp_path):
    slow = trained(2, images_per_s=250.0, data_wait=0.5, forward=0.1, backward=0.2)
    run = made(tmp_path, [trained(1), slow, {"split": "train", "epoch": 0.3, "data_wait": 0.9}])
    epochs, table, seconds = shares(run)
    assert epochs.tolist() == [0.1, 0.2]
    np.testing.assert_allclose(table.sum(1), 1)
    np.testing.assert_allclose(seconds, [0.128, 0.512])
    assert means(run)["data_wait"] == pytest.approx((0.128 * 0.1 + 0.512 * 0.5) / 0.64)
    assert means(run)["loop"] == pytest.approx(0.05)
    assert list(means(run)) == list(NAMES)
    busy = made(tmp_path, [trained(1, data_wait=0.6)])
    assert sum(means(busy).values()) == pytest.approx(1), "a GPU works while its rank waits"


def test_long_runs_are_put_into_columns(tmp_path):
    run = made(tmp_path, [trained(step) for step in range(1, 1001)])
    figure = clock_chart(run, LOOKS["light"])
    (outline,) = figure.axes[0].collections[0].get_paths()
    assert len(outline.vertices) < 3 * MOST_COLUMNS
    words = [text.get_text() for text in figure.axes[0].texts]
    assert {"forward 30 %", "wait for pictures 10 %", "the loop itself 5 %"} <= set(words)


# --- both, on the page ------------------------------------------------------------------------------------


def test_sections_are_there_with_how_to_read_them(tmp_path):
    rows = [row for step in range(1, 41) for row in (look(step), trained(step))]
    run = made(tmp_path, rows)
    source = write(run).read_text()
    assert re.findall("<h2>(.*)</h2>", source) == [
        "Training",
        "Gradient flow",
        "Where the time goes",
        "Settings",
    ]
    report = (tmp_path / "report.md").read_text()
    for text in (source, report):
        for word in ("gradients vanish", "they explode", "CS231n", "about 512 pictures", "accumulation"):
            assert word in text, word
    assert "median; 10% waiting for pictures" in report
    for chart in (flow_chart, clock_chart):
        for name, each in LOOKS.items():
            assert len(png(chart(run, each))) < PNG_LIMIT, name


def test_without_rows_there_are_no_sections(tmp_path):
    run = made(tmp_path, [{"split": "train", "step": 1, "epoch": 0.1, "loss": 1.0, "data_wait": 0.1}])
    assert flow_chart(run, LOOKS["light"]) is clock_chart(run, LOOKS["light"]) is None
    assert re.findall("<h2>(.*)</h2>", write(run).read_text()) == ["Training", "Settings"]
