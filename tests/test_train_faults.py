"""Bad files in a real job: it goes on, says so, and stops only when they are too many."""

import math
import os
import subprocess
from itertools import count
from pathlib import Path

import pytest
import torch
from conftest import torchrun
from jobs import (
    back_to_the_first,
    damage,
    kill_all_at,
    photographs,
    same_bits,
    steps_done,
    wait_until,
    workers,
)

from pipeline.config import TrainConfig, load
from pipeline.monitor.metrics import read_rows
from pipeline.train import checkpoint
from pipeline.train.engine import base
from pipeline.train.ranks import join
from pipeline.train.run import run as train

BAD = (17, 90)


@pytest.fixture
def job(tmp_path) -> Path:
    """A config for 15 steps on 120 photographs, three epochs."""
    return photographs(tmp_path)


def run(job: Path, ranks: int = 2) -> str:
    process = torchrun(ranks, "-m", "launch.train", str(job / "config.yaml"))
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return errors


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple[Path, str]:
    """A job with two bad files, done without a stop, and what it said; tests read it only."""
    job = photographs(tmp_path_factory.mktemp("straight"))
    damage(job, *BAD)
    return job, run(job)


def test_bad_files_are_counted_and_named_and_the_job_goes_on(straight):
    job, errors = straight
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
    damage(job, *BAD)
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


def children(pids: list[int]) -> list[str]:
    """Of all their threads; /proc/PID/task/PID/children lists only what the main one has forked."""
    found = subprocess.run(["pgrep", "-P", ",".join(map(str, pids))], capture_output=True, text=True)
    return found.stdout.split()


def test_too_many_files_going_bad_in_a_run_stop_it_with_the_list(job):
    """And whatever reads for a rank is part of it: SIGKILL gives nobody a chance to tidy up."""
    process = torchrun(2, "-m", "launch.train", str(job / "config.yaml"), "train.epochs=12")
    wait_until(process, lambda: steps_done(job / "runs" / "quick") >= 2)
    ranks = workers(process.pid)
    assert children([process.pid]), "who has some is known to have them"
    assert len(ranks) == 2, "both read"
    assert children(ranks) == []
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
def test_killed_with_bad_files_it_ends_in_the_same_bits_and_leaves_nothing_behind(job, straight):
    damage(job, *BAD)
    shared = set(os.listdir("/dev/shm"))
    kill_all_at(7, 2, str(job / "config.yaml"), job / "runs" / "quick")
    assert set(os.listdir("/dev/shm")) <= shared
    run(job)
    runs = [folder / "runs" / "quick" for folder in (job, straight[0])]
    ended, expected = map(checkpoint.read, runs)
    assert same_bits(ended["model"], expected["model"])
    counts, wanted = ([row["faults"] for row in read_rows(each / "metrics.jsonl")] for each in runs)
    assert counts == wanted
    assert sum(counts) >= 6
