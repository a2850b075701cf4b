"""The README's first command, whole, on real CIFAR-10; minutes on two cores."""

import json

import pytest
from conftest import command, door

from pipeline.monitor.metrics import read_rows


def test_ranks_that_cannot_split_the_batches_cost_a_line_and_no_download(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    got = door("launch.demo", "--ranks", "3")
    assert got.returncode == 2
    assert got.stderr.count("\n") == 1, got.stderr
    assert "train.batch: 128 pictures cannot be split over 3 ranks" in got.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_demo_shows_that_transfer_beats_starting_over(tmp_path):
    got = command("launch.demo", cwd=tmp_path)
    assert got.returncode == 0, got.stderr[-3000:]
    run = tmp_path / "runs" / "demo"
    assert str(run.relative_to(tmp_path) / "report.html") in got.stdout
    (test,) = [row for row in read_rows(run / "metrics.jsonl") if row["split"] == "test"]
    assert test["top1"] > 0.6, "chance is 0.167"
    result = json.loads((run / "transfer" / "vehicles.json").read_text())
    assert {row["n_test"] for row in result["results"]} == {4000}
    assert {row["n_train"] for row in result["results"]} == {80}
    over_seeds = result["summary"]
    for mode in ("frozen", "finetuned"):
        assert over_seeds[mode]["seeds"] == 5
        assert over_seeds[mode]["low"] > over_seeds["scratch"]["high"], over_seeds
        assert result["improvement"][mode]["low"] > 0
    page = (run / "report.html").read_text()
    assert 'src="http' not in page
    assert len(list((run / "plots").glob("*.png"))) >= 5
