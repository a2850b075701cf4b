"""Real jobs on a real SLURM: they lose nothing, come back by themselves, and end when that leads nowhere."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import ROOT, config_tree, door, torchrun
from jobs import damage, ended, photographs, same_bits, steps_done

from pipeline.cluster.restarts import saved_step
from pipeline.monitor.metrics import read_rows
from pipeline.train import checkpoint

from .slurm_cluster import until

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(1800)]
PATIENCE = 240.0
"""Seconds for whatever is waited for: two cores carry all nodes."""


@pytest.fixture
def place(cluster, tmp_path, monkeypatch) -> Path:
    """The folder that jobs are submitted from."""
    monkeypatch.setitem(cluster.environment, "PYTHONPATH", str(ROOT))
    monkeypatch.setitem(cluster.environment, "PYTHON", str(one_core(tmp_path)))
    monkeypatch.setitem(cluster.environment, "WANDB_MODE", "offline")
    return tmp_path


def one_core(folder: Path) -> Path:
    """A Python that keeps to one core of a node: sums of another number of threads round differently."""
    file = folder / "python"
    file.write_text(
        f'#!/bin/bash\nexec taskset -c $((${{SLURM_NODEID:-0}} % {os.cpu_count()})) {sys.executable} "$@"\n'
    )
    file.chmod(0o755)
    return file


def config(place: Path, index: Path, **changes) -> str:
    (place / "quick.yaml").write_text(yaml.safe_dump(config_tree(index, Path("runs"), **changes)))
    return "quick.yaml"


def submit(cluster, place: Path, *words: str) -> dict[str, str]:
    """``launch.submit`` with these words; the jobs' ids by what they do."""
    return dict(re.findall(r"^(\w+): job (\d+)$", answer(cluster, place, *words), re.MULTILINE))


def answer(cluster, place: Path, *words: str) -> str:
    """What ``launch.submit`` says; this process is a client of the cluster for so long."""
    with pytest.MonkeyPatch.context() as client:
        client.chdir(place)
        for name in os.environ.keys() - cluster.environment.keys():
            client.delenv(name)
        for name, value in cluster.environment.items():
            client.setenv(name, value)
        done = door("launch.submit", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def reaches(cluster, job: str, run: Path, step: int, restarts: int = 0) -> None:
    """Waits until a job has done a step in its restart."""
    cluster.wait(job, "RUNNING", restarts=restarts, timeout=PATIENCE)

    def reached() -> bool:
        state = cluster.job(job)["JobState"]
        assert state == "RUNNING", f"{state}\n{cluster.job_log(job)}"
        return steps_done(run) >= step

    until(reached, PATIENCE, lambda: cluster.job_log(job))


@contextmanager
def paused(cluster) -> Iterator[list[psutil.Process]]:
    """The ranks of the job that runs, standing still."""
    found = [process for node in ("n1", "n2") for process in cluster.processes(node)]
    ranks = [each for each in found if each.name() == "python" and "RANK" in each.environ()]
    assert len(ranks) == 2
    for process in ranks:
        process.suspend()
    yield ranks
    for process in ranks:
        with suppress(psutil.NoSuchProcess):  # SLURM has made it go on, to end it
            process.resume()


def signalled(process: psutil.Process) -> bool:
    """Whether SIGUSR1 waits for a process that stands still, or has ended it."""
    try:
        told = Path(f"/proc/{process.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    pending = [int(mask, 16) for mask in re.findall(r"(?:SigPnd|ShdPnd):\s*(\w+)", told)]
    return any(mask >> (signal.SIGUSR1 - 1) & 1 for mask in pending)


def test_a_job_that_is_preempted_twice_ends_in_the_bits_of_an_undisturbed_one(cluster, place, small_index):
    """Two nodes of one rank against torchrun with two ranks on one machine. Preempted by its time limit, of
    which SLURM warns with a signal, and by scancel; queued again by itself, as the same W&B run."""
    name = config(place, small_index, train__epochs=6.0, monitor__wandb=True)
    job = submit(cluster, place, "train", name, "--nodes", "2", "--time", "60")["train"]
    run = place / "runs" / "quick"
    reaches(cluster, job, run, 10)
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=2")  # less than the warning's 3 minutes
    with paused(cluster) as ranks:  # SLURM looks at its clock twice a minute; the run might end before
        until(lambda: all(map(signalled, ranks)), PATIENCE, lambda: cluster.job_log(job))
    cluster.wait(job, "PENDING", restarts=1, timeout=PATIENCE)
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    stopped = saved_step(run)
    assert stopped >= 10
    reaches(cluster, job, run, stopped + 10, restarts=1)
    cluster.run("scancel", "--signal=USR1", job)
    assert cluster.wait(job, restarts=2, timeout=PATIENCE) == "COMPLETED"

    log = (run / "slurm" / f"{job}.log").read_text()
    assert log.count(f"job {job}: preempted and saved; it asks to be queued again") == 2
    assert "(SIGUSR1); the same command goes on" in log
    assert "Traceback" not in log
    rows = [row["step"] for row in read_rows(run / "metrics.jsonl") if row["split"] == "train"]
    assert rows == list(range(1, rows[-1] + 1))
    ids = {folder.name.rpartition("-")[2] for folder in (run / "wandb").glob("offline-run-*")}
    assert len(ids) == 1

    undisturbed = [str(place / name), f"runs={place / 'local'}", "monitor.wandb=false"]
    ended(torchrun(2, "-m", "launch.train", *undisturbed))
    _, here = checkpoint.find(run)
    _, there = checkpoint.find(place / "local" / "quick")
    assert here["step"] == there["step"] == rows[-1]
    assert same_bits(here["model"], there["model"])
    assert same_bits(here["optimizer"], there["optimizer"])


def test_a_job_comes_back_on_what_a_dead_node_leaves_and_sees_the_same_pictures(cluster, place):
    """Which pictures come at which step is seen by the bad ones: faults.tsv names each with its step."""
    work = photographs(place)
    tree = yaml.safe_load((work / "config.yaml").read_text())
    tree["train"]["epochs"], tree["data"]["loading"]["fault_limit"] = 12.0, 0.5
    (work / "config.yaml").write_text(yaml.safe_dump(tree))
    damage(work, *range(3, 120, 9))
    job = submit(cluster, place, "train", "config.yaml", "--nodes", "1-2")["train"]
    run = work / "runs" / "quick"
    reaches(cluster, job, run, 8)
    assert cluster.job(job)["NumNodes"] == "2"
    cluster.kill_node("n2")
    try:
        assert cluster.wait(job, restarts=1, timeout=PATIENCE) == "COMPLETED"
        assert cluster.job(job)["NodeList"] == "n1"
    finally:
        cluster.revive_node("n2")
    undisturbed = [str(work / "config.yaml"), f"runs={place / 'local'}"]
    ended(torchrun(1, "-m", "launch.train", *undisturbed))
    faults = (run / "faults.tsv").read_text()
    assert len(faults.splitlines()) > 20
    assert sorted(faults.splitlines()) == sorted((place / "local/quick/faults.tsv").read_text().splitlines())


TRANSFER = """
name: elsewhere
checkpoint: none
datasets:
  - {name: first, index: INDEX, per_class: 8, seeds: 1, validation: 0.25}
  - {name: second, index: INDEX, per_class: 16, seeds: 1, validation: 0.25}
modes: [frozen]
pictures: {size: 32, crop: pad, eval_resize: null}
finetuned: &recipe {optim: {lr: 0.1}, train: {batch: 8, epochs: 1}}
scratch: *recipe
monitor: {wandb: false}
"""


def test_a_chain_trains_transfers_and_reports_and_ends_where_it_fails(cluster, place, small_index):
    (place / "transfer.yaml").write_text(TRANSFER.replace("INDEX", str(small_index)))
    copied = place / "index"
    subprocess.run(["cp", "-r", small_index, copied], check=True)
    words = ["chain", config(place, copied), "--transfer", "transfer.yaml"]
    jobs = submit(cluster, place, *words)
    assert list(jobs) == ["train", "transfer", "report"]
    assert cluster.wait(jobs["report"], timeout=PATIENCE) == "COMPLETED"
    run = place / "runs" / "quick"
    assert sorted(file.name for file in run.glob("transfer/*.json")) == ["first.json", "second.json"]
    assert "second" in (run / "report.html").read_text()
    status = answer(cluster, place, "status", "runs/quick")
    assert "step 11 of 11" in status
    assert "transferred: first, second" in status
    assert f"the last was {jobs['report']} (report)" in status

    jobs = submit(cluster, place, *words, "name=failing")
    copied.rename(place / "gone")  # after the checks, before the job reads it
    assert cluster.wait(jobs["report"], "CANCELLED", timeout=PATIENCE) == "CANCELLED"
    assert cluster.job(jobs["train"])["JobState"] == "FAILED"
    assert cluster.job(jobs["train"])["ExitCode"] == "2:0"
    assert cluster.job(jobs["train"])["Restarts"] == "0"
    assert cluster.job(jobs["transfer"])["JobState"] == "CANCELLED"
    log = (place / "runs/failing/slurm" / f"{jobs['train']}.log").read_text()
    assert log.count(f"error: data.index: no index in {copied}") == 1
    assert "a mistake, which another start would only repeat" in log
    assert "Traceback" not in log


def test_a_job_that_cannot_succeed_is_not_queued_for_ever(cluster, place, small_index):
    """A node on which torchrun does not even start."""
    python = Path(cluster.environment["PYTHON"])
    python.write_text(python.read_text().replace("exec", '[[ "$*" == *launch.torchrun* ]] && exit 9\nexec'))
    job = submit(cluster, place, "train", config(place, small_index))["train"]
    assert cluster.wait(job, "FAILED", restarts=1, timeout=PATIENCE) == "FAILED"
    assert cluster.job(job)["Restarts"] == "1"
    assert cluster.job(job)["ExitCode"] == "9:0"
    log = (place / "runs/quick/slurm" / f"{job}.log").read_text()
    assert f"job {job}: a fault (code 9); it asks to be queued again" in log
    assert "a fault (code 9), but 2 starts in a row did not get the run any further" in log
