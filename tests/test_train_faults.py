"""Bad files in a real job: it goes on, says so, and stops only when they are too many."""

import math
import os
import signal
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from conftest import torchrun
from jobs import back_to_the_first, damage, kill_all_at, photographs, same_bits, steps_done, workers

from pipeline.config import TrainConfig, load
from pipeline.monitor.metrics import read_rows
from pipeline.train import checkpoint
from pipeline.train.engine import base
from pipeline.train.ranks import join
from pipeline.train.run import run as train


@pytest.fixture
def job(tmp_path) -> Path:
    """A config for 15 steps on 120 photographs, three epochs."""
    return photographs(tmp_path)


def run(job: Path, ranks: int = 2) -> str:
    process = torchrun(ranks, "-m", "launch.train", str(job / "config.yaml"))
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return errors


def test_bad_files_are_counted_and_named_and_the_job_goes_on(job):
    damage(job, 17, 90)
    errors = run(job)
    for name in ("017.jpg", "090.jpg"):
        assert f"{name}: cannot be decoded; another picture stands in for it" in errors
    assert "017.jpg: cannot be decoded; it is left out of the evaluation" in errors
    rows = read_rows(job / "runs" / "quick" / "metrics.jsonl")
    train = [row for row in rows if row["split"] == "train"]
    assert [row["step"] for row in train] == list(range(1, 16))
    lines = (job / "runs" / "quick" / "faults.tsv").read_text().splitlines()
    assert sum(row["faults"] for row in train) == len(lines) >= 6
    assert {line.split("\t")[1] for line in lines} == {"017.jpg", "090.jpg"}
    for row in train:
        told = [line for line in lines if line.startswith(f"{row['step']}\t")]
        assert row["faults"] == len(told)
        assert 0 <= row["data_wait"] <= 1
    (val,) = [row for row in rows if row["split"] == "val"]
    assert val["faults"] == 1


def test_between_rows_they_are_told_with_every_evaluation_and_save(job):
    """Else those of the steps between would be lost when a run goes on after them."""
    damage(job, 17, 90)
    config = load(
        TrainConfig,
        job / "config.yaml",
        ["monitor.log_every=100", "monitor.eval_every=1", "checkpoint.every=1"],
    )
    with join("cpu") as ranks:
        train(config, ranks)
    lines = (config.folder / "faults.tsv").read_text().splitlines()
    assert {line.split("\t")[0] for line in lines} == {"5", "10", "15"}
    (row,) = [row for row in read_rows(config.folder / "metrics.jsonl") if row["split"] == "train"]
    assert row["faults"] == len(lines) >= 6


def test_what_happened_between_a_row_and_a_stop_is_in_the_next_row(job, monkeypatch):
    """Pictures that were replaced and a step that was skipped, of the two epochs before it went on."""
    damage(job, 27, 105)
    words = ["monitor.log_every=3", "checkpoint.every=1", "checkpoint.keep=9"]
    config = load(TrainConfig, job / "config.yaml", words)
    losses, real = count(1), base.cross_entropy

    def poisoned(*words) -> torch.Tensor:
        return real(*words) * (math.nan if next(losses) in (2, 5) else 1.0)

    def rows() -> list[tuple]:
        found = read_rows(config.folder / "metrics.jsonl")
        return [(row["step"], row["skipped"], row["faults"]) for row in found if row["split"] == "train"]

    with join("cpu") as ranks:
        with monkeypatch.context() as patch:
            patch.setattr(base, "cross_entropy", poisoned)
            train(config, ranks)
        expected, lines = rows(), (config.folder / "faults.tsv").read_text()
        assert [skipped for _, skipped, _ in expected] == [1, 1, 0, 0, 0]
        assert lines.startswith("5\t"), "between the rows of steps 3 and 6"
        assert back_to_the_first(config.folder) == 5
        train(config, ranks)
    assert rows() == expected
    assert (config.folder / "faults.tsv").read_text() == lines


def test_too_many_files_going_bad_in_a_run_stop_it_with_the_list(job):
    process = torchrun(2, "-m", "launch.train", str(job / "config.yaml"))
    while steps_done(job / "runs" / "quick") < 2 and process.poll() is None:
        time.sleep(0.005)
    damage(job, *range(0, 120, 2))
    _, errors = process.communicate(timeout=900)
    assert process.returncode != 0
    told = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, errors
    assert "data.loading.fault_limit: " in told[0]
    assert "of 120 training pictures cannot be shown, more than 2.000%" in told[0]
    assert ".jpg (cannot be decoded)" in told[0]
    assert "exitcode  : 2" in errors


@pytest.mark.slow
def test_killed_with_bad_files_it_ends_in_the_same_bits_and_leaves_nothing_behind(job):
    damage(job, 3, 58)
    straight = job / "straight.yaml"
    straight.write_text((job / "config.yaml").read_text().replace("name: quick", "name: straight"))
    process = torchrun(2, "-m", "launch.train", str(straight))
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    shared = set(os.listdir("/dev/shm"))
    kill_all_at(7, 2, str(job / "config.yaml"), job / "runs" / "quick")
    assert set(os.listdir("/dev/shm")) <= shared
    run(job)
    ended, expected = (checkpoint.read(job / "runs" / name) for name in ("quick", "straight"))
    assert same_bits(ended["model"], expected["model"])
    rows = {name: read_rows(job / "runs" / name / "metrics.jsonl") for name in ("quick", "straight")}
    counts = {name: [row["faults"] for row in rows[name]] for name in rows}
    assert counts["quick"] == counts["straight"]
    assert sum(counts["quick"]) >= 6


def test_no_process_outlives_a_killed_rank(job):
    """SIGKILL gives nobody a chance to tidy up: whatever reads for a rank must be part of it."""
    process = torchrun(1, "-m", "launch.train", str(job / "config.yaml"))
    while steps_done(job / "runs" / "quick") < 2 and process.poll() is None:
        time.sleep(0.01)
    (rank,) = workers(process.pid)
    below = [int(pid) for pid in Path(f"/proc/{rank}/task/{rank}/children").read_text().split()]
    os.kill(process.pid, signal.SIGKILL)
    os.kill(rank, signal.SIGKILL)
    process.communicate(timeout=60)
    assert below == []
