"""Metrics, W&B offline, and the progress bar, on real runs."""

import io
import os
import sys

import yaml
from conftest import command, config_tree

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
    assert "W&B is off for this run" in got.stderr
    assert checkpoint.read(tmp_path / "quick")["wandb_id"] is None
    assert len(read_rows(tmp_path / "quick" / "metrics.jsonl")) == 3


def test_without_a_terminal_the_bar_is_plain_lines_with_rate_and_time_left(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    bar = Bar("measure", 200, "pictures", show=True, done=100)
    for _ in range(100):
        bar.advance()
    bar.close()
    (line,) = out.getvalue().splitlines()
    assert line.startswith("measure: 200/200 pictures, ")
    assert "pictures/s, 0:00 left" in line
    silent = Bar("measure", 1, "pictures", show=False)
    silent.advance()
    assert len(out.getvalue().splitlines()) == 1
