"""Where a run stands, as its folder tells it; what SLURM says of its jobs is in tests/cluster."""

import json
import os
import time

import yaml
from conftest import config_tree

from pipeline.cluster import record
from pipeline.cluster.status import status


def test_a_run_that_diverges_is_told_like_any_other(small_index, tmp_path):
    run = tmp_path / "quick"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(config_tree(small_index, tmp_path)))
    row = {"time": time.time(), "step": 10, "epoch": 1.0, "split": "train", "images_per_s": 1234.5}
    for loss, words in ((0.5, "loss 0.500"), (None, "loss not finite")):
        (run / "metrics.jsonl").write_text(json.dumps(row | {"loss": loss}) + "\n")
        (line, *_) = status(run)
        assert line.startswith(f"{run}: step 10 of "), line
        assert f"{words}, 1,234 pictures/s, " in line


def test_a_save_that_failed_does_not_make_the_one_before_younger(tmp_path):
    folder = tmp_path / "quick" / "checkpoints"
    folder.mkdir(parents=True)
    for step, hours in ((9, 3), (10, 2)):
        file = folder / f"step_{step:08d}.pt"
        file.touch()
        os.utime(file, (time.time() - 3600 * hours,) * 2)
    partial = folder / "step_00000011.partial"
    partial.touch()
    partial.unlink()
    assert status(tmp_path / "quick") == [f"{tmp_path / 'quick'}: saved: step 10, 2 hours ago"]


def test_a_run_of_an_array_names_the_log_of_its_task(tmp_path, monkeypatch):
    """Which lies in the folder of the recipe; there are the other tasks' logs, too."""
    monkeypatch.setenv("PATH", str(tmp_path))  # no SLURM
    logs = tmp_path / "runs/quick/slurm"
    logs.mkdir(parents=True)
    for number in (0, 1):
        (logs / f"17_{number}.log").touch()
        command = ["sbatch", "runs/quick/slurm/train.sbatch", f"runs/quick/slurm/train-x-{number}.yaml"]
        record.add(tmp_path / f"runs/quick-seed{number}", f"17_{number}", "train", command, {})
    for number in (0, 1):
        assert status(tmp_path / f"runs/quick-seed{number}")[-1] == f"log: {logs / f'17_{number}.log'}"
