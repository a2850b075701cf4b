"""torchrun as jobs need it: the ranks' code, and no more words than theirs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

NOTHING_SAVED = """
import os, pathlib, signal, sys, time
from launch import leave
here = pathlib.Path({here!r})
def stopped(*_):
    leave(75)
signal.signal(signal.SIGTERM, stopped)
(here / os.environ["RANK"]).touch()
while not (here / "0").exists() or not (here / "1").exists():
    time.sleep(0.05)
if os.environ["RANK"] == "1":
    {end}
time.sleep(100)
"""
"""Rank 1 ends, and the other one, which torchrun asks to stop then, believes to be preempted."""


def start(folder: Path, program: str, *options: str) -> subprocess.Popen:
    (folder / "rank.py").write_text(program)
    command = [
        sys.executable,
        "-m",
        "launch.torchrun",
        "--standalone",
        "--nproc-per-node=2",
        *options,
        str(folder / "rank.py"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "EXIT_NOTE": str(folder / "note")}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE)


def test_a_mistake_of_the_ranks_ends_with_their_code_and_their_line(tmp_path):
    process = start(tmp_path, "import sys; print('error: no', file=sys.stderr); sys.exit(2)")
    _, told = process.communicate(timeout=900)
    assert process.returncode == 2
    assert "Traceback" not in told
    assert "error: no" in told


def test_a_killed_rank_is_told_with_its_signal(tmp_path):
    process = start(
        tmp_path,
        "import os; os.kill(os.getpid(), 9) if os.environ['RANK'] == '1' else __import__('time').sleep(100)",
    )
    _, told = process.communicate(timeout=900)
    assert process.returncode == 137
    assert "exitcode  : -9" in told


@pytest.mark.parametrize(
    ("end", "code"), [("leave(2)", 2), ("os.kill(os.getpid(), signal.SIGKILL)", 137), ("leave(75)", 75)]
)
def test_what_ended_the_job_is_noted_and_not_what_came_of_it(end, code, tmp_path):
    process = start(tmp_path, NOTHING_SAVED.format(here=str(tmp_path), end=end))
    process.communicate(timeout=900)
    assert process.returncode == code
    assert (tmp_path / "note").read_text() == f"{code}\n"


def test_a_job_begins_with_its_command_however_often_its_ranks_are_started(tmp_path):
    """torchrun starts ranks again that ended with 75: their time limit is over by then."""
    given = time.time()
    program = f"""
import os, pathlib, sys, time
from pipeline.preempt import job_start
file = pathlib.Path({str(tmp_path / "began")!r})
with file.open("a") as began:
    print(job_start(), file=began)
while file.read_text().count("\\n") < 2 * (1 + int(os.environ["TORCHELASTIC_RESTART_COUNT"])):
    time.sleep(0.05)
sys.exit(75)
"""
    start(tmp_path, program, "--max-restarts=1").communicate(timeout=900)
    began = np.loadtxt(tmp_path / "began")
    assert began.shape == (4,)
    assert np.ptp(began) < 0.1
    assert given - 0.1 < began[0] < given + 2


def test_a_mistake_of_one_rank_alone_is_told(tmp_path):
    """The other one waits for it, and fails when it has gone, not before it has spoken."""
    process = start(
        tmp_path,
        """
import launch
from launch import door, preemptible
from pipeline.config import UserError
from pipeline.train.ranks import join
launch.PATIENCE = 3
with door(), preemptible(), join("cpu") as ranks:
    if ranks.rank == 1:
        raise UserError("data.index: not on this node")
    ranks.barrier()
""",
    )
    _, told = process.communicate(timeout=900)
    assert "error: rank 1: data.index: not on this node" in told
    assert (tmp_path / "note").read_text() == "2\n"


def test_asked_to_stop_when_all_is_done_the_job_is_done(tmp_path):
    """As in W&B's last minute. torchrun itself ends by the signal."""
    process = start(
        tmp_path,
        f"""
import os, pathlib, time
from launch import door, preemptible
from pipeline.preempt import STOP
with door(), preemptible():
    pathlib.Path({str(tmp_path)!r}, os.environ["RANK"]).with_suffix(".ready").touch()
    while not STOP.asked:
        time.sleep(0.05)
""",
    )
    while len(list(tmp_path.glob("*.ready"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGUSR1)
    process.communicate(timeout=900)
    assert process.returncode == 128 + signal.SIGUSR1
    assert (tmp_path / "note").read_text() == "0\n"


def test_sigusr1_reaches_the_ranks_which_have_the_time_to_save(tmp_path):
    process = start(
        tmp_path,
        f"""
import pathlib, signal, sys, time, os
here = pathlib.Path({str(tmp_path)!r}) / os.environ["RANK"]
def save(*_):
    time.sleep(1)
    here.with_suffix(".saved").touch()
    sys.exit(75)
signal.signal(signal.SIGUSR1, save)
here.with_suffix(".ready").touch()
time.sleep(100)
""",
    )
    while len(list(tmp_path.glob("*.ready"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGUSR1)
    _, told = process.communicate(timeout=900)
    assert process.returncode == 128 + signal.SIGUSR1
    assert len(list(tmp_path.glob("*.saved"))) == 2
    assert "Traceback" not in told
