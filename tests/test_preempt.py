"""Asked to stop at any moment: saved at the next step, code 75, and the same command finishes the run."""

import os
import re
import signal
import time

import pytest
from conftest import ROOT, command, torchrun
from jobs import SIGNALS, finish, same_bits, start, steps_done, wait_until, workers, write_config

from pipeline.monitor.metrics import read_rows
from pipeline.train import checkpoint

STEPS = 32
WATCHED = [11, 21, 32]


@pytest.fixture(scope="module")
def undisturbed(small_index, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(2, job(folder, small_index))
    return checkpoint.read(folder / "runs" / "quick")


def job(folder, index, **changes) -> str:
    """32 steps on two ranks, evaluated after 11, 21 and 32, saved every 5 or 6."""
    how = {"train__epochs": 3.05, "data__val": "val", "checkpoint": {"every": 0.5}}
    return write_config(folder, index, **how | changes)


def goes_on_as_if_nothing_had_been(config, run, undisturbed) -> None:
    finish(2, config)
    assert same_bits(checkpoint.read(run)["model"], undisturbed["model"])
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, STEPS + 1))
    assert [row["step"] for row in rows if row["split"] == "val"] == WATCHED


def stopped_with_75(process, told: str, ranks: int = 2) -> None:
    """A torchrun that handed the signal on shows no exit codes (and a traceback of its own)."""
    assert process.returncode != 0
    assert "[rank" not in told, "a rank's traceback"
    assert told.count("the same command goes on") == ranks, told


@pytest.mark.parametrize(
    ("number", "whom"),
    [
        (signal.SIGUSR1, "torchrun"),
        pytest.param(signal.SIGTERM, "torchrun", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "one rank", marks=pytest.mark.slow),
    ],
)
def test_a_signal_leads_to_a_checkpoint_at_the_next_step(number, whom, small_index, tmp_path, undisturbed):
    config, run = job(tmp_path, small_index), tmp_path / "runs" / "quick"
    process = start(2, config, options=SIGNALS)
    wait_until(process, lambda: steps_done(run) >= 7)
    os.kill(process.pid if whom == "torchrun" else workers(process.pid)[1], number)
    _, told = process.communicate(timeout=120)
    stopped_with_75(process, told)
    if whom == "one rank":
        assert re.search(r"exitcode\s*: 75", told)
    stopped = checkpoint.read(run)["step"]
    assert 7 <= stopped < STEPS, told
    assert steps_done(run) == stopped, "no step was lost"
    assert f"stopped at step {stopped} of {STEPS} ({number.name})" in told
    goes_on_as_if_nothing_had_been(config, run, undisturbed)


@pytest.mark.parametrize(
    ("place", "saved"),
    [
        ("evaluation", 11),
        pytest.param("first pass", None, marks=pytest.mark.slow),
        pytest.param("first batch", 1, marks=pytest.mark.slow),
        pytest.param("saving", 7, marks=pytest.mark.slow),  # the save of step 6, agreed before
    ],
)
def test_asked_at_any_place_it_loses_nothing(place, saved, small_index, tmp_path, undisturbed):
    """One rank is asked; all agree. An evaluation that was cut short is made up for."""
    config, run = job(tmp_path, small_index), tmp_path / "runs" / "quick"
    process = torchrun(2, str(ROOT / "tests" / "interrupted_job.py"), place, config)
    _, told = process.communicate(timeout=120)
    stopped_with_75(process, told)
    assert re.search(r"exitcode\s*: 75", told)
    newest = checkpoint.latest(run)
    assert newest == (saved and run / "checkpoints" / f"step_{saved:08d}.pt"), told
    goes_on_as_if_nothing_had_been(config, run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["train.time_limit", "SLURM"])
def test_the_time_limit_is_kept_by_itself(whose, small_index, tmp_path, monkeypatch):
    """Six seconds from when the run begins, or 36 from now: at whatever step that is."""
    config = job(tmp_path, small_index)
    limits = ("train.time_limit=0.15", "train.time_margin=0.05")
    if whose == "SLURM":
        monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 90))
        limits = ("train.time_margin=0.9",)
    process = start(2, config, "train.epochs=200", "name=long", *limits)
    _, told = process.communicate(timeout=120)
    stopped_with_75(process, told)
    assert "(time limit)" in told
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert checkpoint.read(tmp_path / "runs" / "long")["step"] == steps_done(tmp_path / "runs" / "long") > 0


def test_a_margin_as_long_as_the_limit_is_refused(small_index, tmp_path):
    config = write_config(tmp_path, small_index)
    got = command("launch.train", config, "train.time_limit=2")
    assert got.returncode == 2
    assert "train.time_limit: 2 minutes are not more than time_margin 2; no step would be done" in got.stderr
