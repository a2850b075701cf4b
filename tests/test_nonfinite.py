"""Gradients that are not finite: skipped by all ranks together, counted, and in the end a reason to stop."""

import re
from itertools import pairwise

import pytest
import torch
from conftest import ROOT, quick_config, torchrun
from jobs import finish, long_job, same_bits, write_config

from pipeline.data.index import open_index
from pipeline.data.order import Order
from pipeline.monitor.metrics import read_rows
from pipeline.train import Job, checkpoint, fit
from pipeline.train.ranks import join


def poisoned(steps: str, config: str, *overrides: str) -> tuple[int, str]:
    process = torchrun(2, str(ROOT / "tests" / "poisoned_job.py"), steps, config, *overrides)
    _, told = process.communicate(timeout=900)
    return process.returncode, told


def test_one_ranks_nan_is_skipped_by_all_and_shown(small_index, tmp_path):
    """Every step is kept: the skipped one changes neither weights nor momentum nor statistics."""
    how = {"checkpoint": {"every": 0.05, "keep": 99}, "train__ema": 0.9, "train__epochs": 0.7}
    config, run = write_config(tmp_path, small_index, **how), tmp_path / "runs" / "quick"
    code, told = poisoned("4,6", config)
    assert code == 0, told
    assert "step 4: the loss is not finite; the step is skipped by all ranks" in told
    states = [checkpoint.read(path) for path in checkpoint.numbered(run / "checkpoints")]
    assert [state["step"] for state in states] == list(range(1, 9))
    for before, after in pairwise(states):
        same = all(same_bits(before[key], after[key]) for key in ("model", "optimizer", "ema"))
        assert same == (after["step"] in (4, 6))
    rows = read_rows(run / "metrics.jsonl")
    assert [row["skipped"] for row in rows] == [0, 0, 0, 1, 0, 1, 0, 0]
    assert [row["loss"] is None for row in rows] == [bool(row["skipped"]) for row in rows]
    assert all(torch.isfinite(value).all() for value in states[-1]["model"].values())


@pytest.mark.slow
def test_a_run_of_them_stops_the_job_with_the_state_of_before(small_index, tmp_path, undisturbed):
    config, run = long_job(tmp_path, small_index), tmp_path / "runs" / "quick"
    code, told = poisoned("5-", config, "train.nonfinite_limit=3", "checkpoint.every=0.1")
    assert code != 0
    (line,) = [line for line in told.splitlines() if line.startswith("error:")]
    assert "train.nonfinite_limit: no finite gradient in the 3 steps 5 to 7, each was skipped" in line
    assert "the state before step 5 is saved" in line
    assert re.search(r"exitcode\s*: 2", told)
    state = checkpoint.read(run)
    assert state["step"] == 4
    lines = [line.split("\t") for line in (run / "nonfinite.tsv").read_text().splitlines()]
    assert {(step, rank) for step, rank, _ in lines} == {(step, "1") for step in "567"}
    # The pictures named are those of rank 1 in step 5: the second half of the global batch.
    split = open_index(small_index).split("train")
    rows, _ = Order(len(split), 24, 0).piece(4, 1, 2)
    assert [path for step, _, path in lines if step == "5"] == [split.path(row) for row in rows]
    assert split.path(rows[0]) in line
    # What made it fail is gone: the same command goes on as if it had never been.
    finish(2, config)
    ended, expected = checkpoint.read(run), undisturbed("ddp", 2)
    assert all(same_bits(ended[key], expected[key]) for key in ("model", "optimizer", "ema"))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_a_rate_that_is_far_too_high_is_told_and_leaves_finite_weights(optimizer, small_index, tmp_path):
    """No injection: weights that explode by themselves, in fp32, without batch norm to hold them."""
    changes = {"optim": {"name": optimizer, "lr": 1e30}, "train__nonfinite_limit": 2}
    model = {"name": "resnet8", "norm": False}
    config = quick_config(small_index, tmp_path, model=model, train__epochs=20.0, **changes)
    with join("cpu") as ranks, pytest.raises(Exception, match=r"train\.nonfinite_limit: no finite gradient"):
        fit(Job(config, ranks, open_index(small_index).split("train")))
    state = checkpoint.read(tmp_path / "quick")
    assert all(torch.isfinite(value).all() for value in state["model"].values())
