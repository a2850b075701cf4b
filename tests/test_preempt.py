"""Asked to stop at any moment: saved at the next step, code 75, and the same command finishes the run."""

import os
import re
import signal
import time

import pytest
from conftest import ROOT, door, torchrun
from jobs import (
    SIGNALS,
    STEPS,
    finish,
    long_job,
    same_bits,
    start,
    steps_done,
    wait_until,
    write_config,
)

from pipeline import preempt
from pipeline.monitor.metrics import read_rows
from pipeline.preempt import StopSignal
from pipeline.train import checkpoint

WATCHED = [11, 21, 32]


def goes_on_as_if_nothing_had_been(config, run, undisturbed) -> None:
    finish(2, config)
    assert same_bits(checkpoint.read(run)["model"], undisturbed("ddp", 2)["model"])
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, STEPS + 1))
    watched = {row["step"]: row["top1"] for row in rows if row["split"] == "val"}
    assert list(watched) == WATCHED
    assert checkpoint.read(run / "checkpoints" / "best")["step"] == max(watched, key=watched.get)


def stopped_with_75(process, told: str, ranks: int = 2) -> None:
    """A torchrun that handed the signal on shows no exit codes (and a traceback of its own)."""
    assert process.returncode != 0
    assert "[rank" not in told, "a rank's traceback"
    assert told.count("the same command goes on") == ranks, told


def test_a_signal_leads_to_a_checkpoint_at_the_next_step(small_index, tmp_path, undisturbed):
    """torchrun hands it on to all ranks."""
    config, run = long_job(tmp_path, small_index), tmp_path / "runs" / "quick"
    process = start(2, config, options=SIGNALS)
    wait_until(process, lambda: steps_done(run) >= 7)
    os.kill(process.pid, signal.SIGUSR1)
    _, told = process.communicate(timeout=900)
    stopped_with_75(process, told)
    saved_where_it_stopped(run, 7, "SIGUSR1", told)
    goes_on_as_if_nothing_had_been(config, run, undisturbed)


def saved_where_it_stopped(run, least: int, why: str, told: str) -> None:
    stopped = checkpoint.read(run)["step"]
    assert least <= stopped < STEPS, told
    assert steps_done(run) == stopped, "no step was lost"
    assert f"stopped at step {stopped} of {STEPS} ({why})" in told


PLACES = {"first pass": None, "first batch": 1, "saving": 7, "evaluation": 11}
"""Where one rank is asked to stop, and the step of the checkpoint that all leave then. At "saving" it is the
save of step 6, agreed before."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_asked_at_any_place_it_loses_nothing(small_index, tmp_path, undisturbed):
    """One run, stopped at one place after the other. An evaluation that was cut short is made up for."""
    config, run = long_job(tmp_path, small_index), tmp_path / "runs" / "quick"
    for place, saved in PLACES.items():
        process = torchrun(2, str(ROOT / "tests" / "interrupted_job.py"), place, config)
        _, told = process.communicate(timeout=900)
        stopped_with_75(process, told)
        assert re.search(r"exitcode\s*: 75", told)
        newest = checkpoint.latest(run)
        assert newest == (saved and run / "checkpoints" / f"step_{saved:08d}.pt"), told
    process = start(2, config)
    wait_until(process, lambda: steps_done(run) >= 12)
    process.kill()  # torchrun alone: its ranks save, and are gone when their end of the pipe is closed
    _, told = process.communicate(timeout=900)
    assert told.count("(SIGTERM); the same command goes on") == 2, told
    saved_where_it_stopped(run, 12, "SIGTERM", told)
    process = start(2, config, options=SIGNALS)
    wait_until(process, lambda: steps_done(run) >= 14)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C, which torchrun hands on as such
    _, told = process.communicate(timeout=900)
    stopped_with_75(process, told)
    saved_where_it_stopped(run, 14, "SIGINT", told)
    process = torchrun(2, str(ROOT / "tests" / "interrupted_job.py"), "last evaluation", config)
    _, told = process.communicate(timeout=900)
    stopped_with_75(process, told)
    assert checkpoint.read(run)["step"] == STEPS
    goes_on_as_if_nothing_had_been(config, run, undisturbed)


@pytest.mark.slow
def test_the_time_limit_is_kept_by_itself(small_index, tmp_path):
    """A minute from the command: at whatever step that is."""
    config, run = long_job(tmp_path, small_index), tmp_path / "runs" / "long"
    limits = ("train.time_limit=1.1", "train.time_margin=0.1")
    process = start(2, config, "train.epochs=2000", "name=long", *limits)
    _, told = process.communicate(timeout=900)
    stopped_with_75(process, told)
    assert "(time limit)" in told
    assert checkpoint.read(run)["step"] == steps_done(run) > 0


@pytest.fixture
def signals():
    numbers = (*preempt.SCHEDULERS, *preempt.TERMINALS)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_one_ctrl_c_asks_and_a_second_one_ends(signals):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stop = StopSignal()
    stop.listen()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    stop.listen(terminal=True)
    signal.raise_signal(signal.SIGINT)
    assert (stop.asked, stop.why) == (True, "SIGINT")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("ignored", [True, False])
def test_a_closed_terminal_asks_unless_nohup_has_it_ignored(ignored, signals):
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    stop = StopSignal()
    stop.listen(terminal=True)
    signal.raise_signal(signal.SIGHUP)
    assert stop.asked != ignored


@pytest.mark.parametrize(
    ("minutes", "slurm", "asked"),
    [
        (None, None, False),
        (10, None, False),
        (2, None, True),
        (None, 60, True),
        (10, 60, True),
        (2, 900, True),
    ],
)
def test_the_earlier_end_counts(minutes, slurm, asked, monkeypatch):
    """The config's limit, and SLURM's end in seconds from now; both less the margin of two minutes."""
    monkeypatch.setattr(preempt, "job_start", time.time)
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    if slurm is not None:
        monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + slurm))
    stop = StopSignal()
    stop.end_after(minutes, margin=2)
    assert stop.asked == bool(asked)
    assert stop.why == ("time limit" if asked else "")


def test_a_margin_as_long_as_the_limit_is_refused(small_index, tmp_path):
    config = write_config(tmp_path, small_index)
    got = door("launch.train", config, "train.time_limit=2")
    assert got.returncode == 2
    assert "train.time_limit: 2 minutes are not more than time_margin 2; no step would be done" in got.stderr
