"""Metrics, W&B offline, and the progress bar, on real runs."""

import io
import os
import time

import pytest
import yaml
from conftest import command, config_tree
from rich.console import Console

from pipeline.monitor.metrics import read_rows
from pipeline.progress import Bar
from pipeline.train import checkpoint


def test_wandb_offline_is_one_run_across_restarts_and_holds_no_secret(small_index, tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key in a ~/.netrc either: offline by itself
    monkeypatch.setenv("SECRET_TOKEN", "hunter2-hunter2")
    tree = config_tree(small_index, tmp_path, monitor={"wandb": True, "samples": 0})
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    got = command("launch.train", str(config))
    assert got.returncode == 0, got.stderr
    run = tmp_path / "quick"
    first_id = checkpoint.read(run)["wandb_id"]
    saved = checkpoint.numbered(run / "checkpoints")
    saved[-1].unlink()  # as if killed before the last save
    (run / "checkpoints" / "latest").write_text(saved[-2].name)
    got = command("launch.train", str(config))
    assert got.returncode == 0, got.stderr
    assert checkpoint.read(run)["wandb_id"] == first_id
    folders = sorted((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all(folder.name.endswith(first_id) for folder in folders)
    assert all(list(folder.glob("run-*.wandb")) for folder in folders)
    assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == list(range(1, 12))
    for file in run.rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes(), file


def test_wandb_that_fails_to_start_costs_a_line_and_no_training(small_index, tmp_path):
    tree = config_tree(small_index, tmp_path, monitor={"wandb": True, "samples": 0})
    tree["train"]["epochs"] = 0.2
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    environment = {"WANDB_MODE": "nonsense"}
    os.environ |= environment
    try:
        got = command("launch.train", str(tmp_path / "config.yaml"))
    finally:
        del os.environ["WANDB_MODE"]
    assert got.returncode == 0, got.stderr
    assert "W&B is off from here on: " in got.stderr
    assert len(read_rows(tmp_path / "quick" / "metrics.jsonl")) == 3


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_and_plain_lines_elsewhere(terminal, monkeypatch):
    monkeypatch.setattr("pipeline.progress.PLAIN_EVERY", 0.0)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120)
    with Bar("fetching [x]", 20_000_000, "bytes", console=console) as bar:
        bar.advance(5_000_000)
        time.sleep(0.2)  # a drawn bar is redrawn ten times a second
        bar.advance(15_000_000, "almost")
    text = out.getvalue()
    if terminal:
        assert "\x1b[" in text
        assert "of 20.0 MB" in text
    else:
        first, second, last = text.splitlines()
        assert first.startswith("fetching [x]: 5.0 MB of 20.0 MB, ")
        assert " left" in first
        assert second.startswith("fetching [x]: 20.0 MB of 20.0 MB, ")
        assert second.endswith(", almost")
        assert last.startswith("fetching [x]: 20.0 MB in 0.2 s (")


def test_the_rate_leaves_out_what_was_done_before_and_other_ranks_are_silent():
    out = io.StringIO()
    console = Console(file=out)
    with Bar("run", 200, "steps", done=100, console=console) as bar:
        assert "left" not in bar.state(), "nothing is known yet"
        bar.advance(50)
        assert bar.state().startswith("150 of 200 steps, ")
    Bar("run", 1, "steps", show=False, console=console).close()
    Bar("run", 200, "steps", done=200, console=console).close()
    first, second = out.getvalue().splitlines()
    assert first.startswith("run: 150 steps in ")
    assert second == "run: 200 steps were done already"


def test_a_bar_within_a_bar():
    """Evaluation within training, on one terminal."""
    console = Console(file=io.StringIO(), force_terminal=True)
    with (
        Bar("train", 3, "steps", console=console) as outer,
        Bar("val", 2, "batches", console=console) as inner,
    ):
        inner.advance()
        outer.advance()
