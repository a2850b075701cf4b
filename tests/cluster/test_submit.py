"""What submit tells of a real SLURM's refusals, and what it hands to it."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, config_tree

from launch import submit
from pipeline.cluster import client

from .slurm_cluster import until

pytestmark = pytest.mark.slurm


@pytest.fixture
def place(cluster, tmp_path, small_index, monkeypatch) -> Path:
    """The folder that jobs are submitted from, with a config; this process is a client of the cluster."""
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(config_tree(small_index, Path("runs"))))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield tmp_path
    cluster.run("scancel", "--user=root")


def mistake(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        submit.main(list(words))
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_slurms_refusals_are_a_line_each(place, capsys):
    line = mistake(capsys, "train", "quick.yaml", "--partition", "fast")
    assert "sbatch: invalid partition specified: fast" in line
    assert "there are cpu, short, urgent, gpu" in line
    assert "Invalid --time specification" in mistake(capsys, "train", "quick.yaml", "--time", "soon")
    assert client.queued(["1", "2", "3"]) == []


def test_a_run_with_a_job_that_waits_is_refused(place, capsys):
    submit.main(["train", "quick.yaml", "--sbatch", "hold"])
    written = {file: file.read_bytes() for file in (place / "runs").rglob("*") if file.is_file()}
    line = mistake(capsys, "train", "quick.yaml", "train.epochs=3")
    assert "runs/quick: job " in line
    assert "is PENDING (JobHeldUser) for this run" in line
    assert written == {file: file.read_bytes() for file in (place / "runs").rglob("*") if file.is_file()}
    submit.main(["status", "runs/quick"])
    assert "train: PENDING (JobHeldUser)" in capsys.readouterr().out


def test_a_sweep_is_one_array_of_which_each_run_knows_its_task(place, capsys, cluster):
    submit.main(["train", "quick.yaml", "--array", "seed=3,5", "--parallel", "1", "--sbatch", "hold"])
    for number, seed in enumerate((3, 5)):
        (entry,) = yaml.safe_load((place / f"runs/quick-seed{seed}/slurm/submitted.yaml").read_text())
        assert entry["job"].endswith(f"_{number}")
        (job,) = client.queued([entry["job"]])
        assert job.state == "PENDING"
        (file,) = (place / "runs/quick/slurm").glob(f"train-*-{number}.yaml")
        config = yaml.safe_load(file.read_text())
        assert (config["name"], config["seed"]) == (f"quick-seed{seed}", seed)
    assert cluster.job(entry["job"])["ArrayTaskThrottle"] == "1"


def stand_in(place: Path, monkeypatch, torchrun: str) -> None:
    """Jobs whose torchrun is some bash: only what SLURM and the scripts make of it is looked at."""
    python = place / "python"
    instead = f'if [[ "$*" == *launch.torchrun* ]]; then {torchrun}; fi'
    python.write_text(f'#!/bin/bash\n{instead}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PYTHON", str(python))


def submitted(capsys, *words: str) -> str:
    """The training job's id."""
    submit.main(["train", "quick.yaml", *words])
    return re.search(r"train: job (\d+)", capsys.readouterr().out)[1]


def test_a_job_of_gpus_starts_a_rank_for_each(place, capsys, cluster, monkeypatch):
    """The cluster's GPUs are empty files."""
    stand_in(place, monkeypatch, 'echo "$@"; exit 0')
    job = submitted(capsys, "--partition", "gpu", "--gpus-per-node", "2")
    assert cluster.wait(job) == "COMPLETED"
    log = (place / f"runs/quick/slurm/{job}.log").read_text()
    assert "--nnodes=1 --nproc-per-node=2 --local-addr=127.0.0.1" in log
    assert f"-m launch.train runs/quick/slurm/train.yaml\njob {job}: done" in log


def test_a_job_without_gpus_has_one_rank_on_a_node_that_has_two(place, capsys, cluster, monkeypatch):
    """Its script sees both, as the node is the job's alone. A batch of 25 cannot be spread over two ranks."""
    stand_in(place, monkeypatch, 'echo "$@"; exit 0')
    job = submitted(capsys, "train.batch=25", "--partition", "gpu")
    assert cluster.wait(job) == "COMPLETED"
    log = (place / f"runs/quick/slurm/{job}.log").read_text()
    assert "--nnodes=1 --nproc-per-node=1 " in log


SAVES = 'trap "echo 75 > $EXIT_NOTE; exit 75" TERM; touch started; while :; do sleep 0.1; done'


def test_a_job_that_saves_when_it_is_cancelled_stays_cancelled(place, capsys, cluster, monkeypatch):
    stand_in(place, monkeypatch, SAVES)
    job = submitted(capsys)
    until((place / "started").exists, 30, lambda: cluster.job_log(job))
    cluster.run("scancel", job)
    assert cluster.wait(job, "CANCELLED") == "CANCELLED"
    log = place / f"runs/quick/slurm/{job}.log"
    told = f"job {job} is not queued again: it was cancelled"
    until(lambda: told in log.read_text(), 10, log.read_text)
    assert client.queued([job]) == []
    assert cluster.job(job)["Restarts"] == "0"


def test_a_job_that_gives_way_to_a_more_urgent_one_comes_back(place, capsys, cluster, monkeypatch):
    stand_in(place, monkeypatch, SAVES)
    job = submitted(capsys, "--nodes", "2")
    until((place / "started").exists, 30, lambda: cluster.job_log(job))
    urgent = cluster.submit("--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 1", cwd=place)
    assert cluster.wait(urgent) == "COMPLETED"
    cluster.wait(job, "PENDING", "RUNNING", restarts=1)
    log = (place / f"runs/quick/slurm/{job}.log").read_text()
    assert f"job {job}: preempted and saved; it asks to be queued again" in log


def test_a_chain_by_hand_waits_as_it_should(place, cluster):
    (place / "slurm").symlink_to(ROOT / "slurm")
    options = ("train.batch=48", "--partition", "short", "--nodes", "2", "--hold")
    words = ("quick.yaml", "transfer.yaml", "runs/quick", "0-1", *options)
    told = cluster.run("bash", "slurm/chain.sh", *words, cwd=place).stdout
    train, transfer, report = re.findall(r"\d+", told)
    asked = {job: cluster.job(job) for job in (train, transfer, report)}
    assert [about["Partition"] for about in asked.values()] == ["short"] * 3
    assert [about["NumNodes"].partition("-")[0] for about in asked.values()] == ["2", "1", "1"]
    assert asked[train]["Command"].endswith("/slurm/train.sbatch quick.yaml train.batch=48")
    waits = {job: cluster.job(job)["Dependency"] for job in (transfer, report)}
    assert f"afterok:{train}(unfulfilled)" in waits[transfer]
    assert f"afterok:{train}(unfulfilled)" in waits[report]
    assert f"afterany:{transfer}_*(unfulfilled)" in waits[report]
