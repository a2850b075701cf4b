"""The cluster that other tests stand on is as it says: nodes apart, power cuts, preemption, no leftovers."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from . import slurm_cluster, slurm_config
from .machines import DOCKER
from .slurm_cluster import SlurmCluster, missing, until

BATCH = """#!/bin/bash
#SBATCH --open-mode=append
#SBATCH --output=told.log
trap 'echo script: SIGTERM' TERM
echo "script: start ${SLURM_RESTART_COUNT:-0}"
srun bash -c 'trap "echo step: SIGTERM; exit 75" TERM; setsid sleep 601 & echo step: start
  for i in {1..600}; do sleep 1; done'
echo "script: step ended with $?"
[ -n "${SLURM_RESTART_COUNT:-}" ] || scontrol requeue "$SLURM_JOB_ID"
"""


def submit(cluster: SlurmCluster, folder: Path, *words: str) -> tuple[str, str, Path]:
    """A job of the script above, once its step runs: its id, its first node, and where it tells."""
    (folder / "job.sbatch").write_text(BATCH)
    job = cluster.submit(*words, "job.sbatch", cwd=folder)
    told = folder / "told.log"
    until(lambda: told.exists() and "step: start" in told.read_text(), 30, lambda: cluster.job_log(job))
    return job, cluster.job(job)["BatchHost"], told


def test_nodes_are_apart(cluster, tmp_path):
    """Each lists a useless address first, and its name means localhost; only its own address leads to it."""
    words = ("--nodes=2", "--label", "bash", "-c", "hostname; hostname -i; hostname -I")
    told = cluster.run("srun", *words).stdout.splitlines()
    for task, node in enumerate(("n1", "n2")):
        lines = [line.removeprefix(f"{task}: ").strip() for line in told if line[0] == str(task)]
        assert lines == [node, "127.0.1.1", f"{DOCKER} {cluster.addresses[node]}"]

    def reached(address: str, client: str) -> bool:
        words = ("timeout", "5", "bash", "-c", f"echo > /dev/tcp/{address}/8000")
        return cluster.on(client, *words, check=False).returncode == 0

    serve = f"exec {sys.executable} -m http.server 8000"
    job = cluster.submit("--nodelist=n1", "--wrap", serve, cwd=tmp_path)
    until(lambda: reached("127.0.0.1", "n1"), 20, lambda: cluster.job_log(job))
    assert reached(cluster.addresses["n1"], "n2")
    assert reached("n1", "n2")
    assert not reached("127.0.0.1", "n2")
    assert not reached(DOCKER, "n2")
    cluster.run("scancel", job)
    cluster.wait(job, "CANCELLED")


def test_a_gpu_is_given(cluster):
    show = "echo $SLURM_GPUS_ON_NODE $CUDA_VISIBLE_DEVICES"
    for asked, told in ((1, "1 0"), (2, "2 0,1")):
        words = ("--partition=gpu", f"--gpus-per-node={asked}", "bash", "-c", show)
        assert cluster.run("srun", *words).stdout.strip() == told


def test_urgent_jobs_preempt(cluster, tmp_path):
    """First the steps get SIGTERM, and the script only when it is requeued."""
    job, *_, told = submit(cluster, tmp_path, "--nodes=2")
    urgent = cluster.submit("--partition=urgent", "--exclusive", "--wrap", "sleep 0.1", cwd=tmp_path)
    cluster.wait(urgent, "COMPLETED")
    cluster.start_soon(job)
    cluster.wait(job, "RUNNING", restarts=1)
    until(lambda: "script: start 1" in told.read_text(), 20, lambda: cluster.job_log(job))
    lines = told.read_text().splitlines()
    assert lines.count("step: SIGTERM") == 2
    assert lines.index("step: SIGTERM") < lines.index("script: step ended with 75")
    assert "script: SIGTERM" not in lines[: lines.index("script: step ended with 75")]
    assert cluster.job(job)["PreemptTime"] != "(null)"
    cluster.run("scancel", job)


def test_a_power_cut(cluster, tmp_path):
    """Ends even what has left its session; the job starts again elsewhere, and the node can come back."""
    job, node, told = submit(cluster, tmp_path)
    lost = cluster.processes(node)
    assert {"slurmd", "slurmstepd", "sleep"} <= {process.name() for process in lost}
    cluster.kill_node(node)
    assert not any(process.is_running() for process in lost)
    cluster.wait_node(node, "down")
    cluster.start_soon(job)
    cluster.wait(job, "RUNNING", restarts=1)
    assert cluster.job(job)["BatchHost"] != node
    assert "SIGTERM" not in told.read_text()
    cluster.revive_node(node)
    assert cluster.run("srun", f"--nodelist={node}", "hostname").stdout.strip() == node
    cluster.run("scancel", job)


def left(folder: Path) -> list[str]:
    """Processes, mounts, links and files of the cluster with this folder."""
    found = [str(folder)] if folder.exists() else []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = (process.info["cmdline"] or []) + list((process.info["environ"] or {}).values())
        found += [str(process)] if any(str(folder) in word for word in words) else []
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    return found + [link.name for link in Path("/sys/class/net").iterdir() if link.name == folder.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(cluster, tmp_path, number):
    """Whatever ends the owner. Clusters live side by side, and the next removes what no one could."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    abandoned = Path(tempfile.gettempdir(), f"slurm{ended.pid}a")
    abandoned.mkdir()
    # A shell that starts pytest in the background has it, and all below it, ignore SIGINT.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "tests.cluster.slurm_cluster"]
    owner = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    conf = owner.stdout.readline().partition("=")[2].split()[0]
    folder = Path(conf).parent
    assert not abandoned.exists()
    client = {"env": os.environ | {"SLURM_CONF": conf}, "cwd": tmp_path, "check": True}
    subprocess.run(["sbatch", "--nodes=2", "--wrap", "srun setsid sleep 602"], **client)
    until(lambda: "sleep" in "".join(left(folder)), 60, lambda: str(left(folder)))
    assert folder.name in left(folder)
    assert cluster.node_state("n1") == "idle"
    owner.send_signal(number)
    owner.communicate(timeout=60)
    until(lambda: not left(folder), 60, lambda: "\n".join(left(folder)))
    assert cluster.run("srun", "--nodes=2", "hostname").stdout.split() in (["n1", "n2"], ["n2", "n1"])


def test_a_start_that_fails_leaves_nothing(monkeypatch):
    monkeypatch.setattr(slurm_config, "SLURM_CONF", "Nonsense=1\n" + slurm_config.SLURM_CONF)
    with pytest.raises(RuntimeError, match="Nonsense") as failed:
        SlurmCluster()
    (folder,) = set(re.findall(r"/\S+/slurm\d+[a-z](?=/head.log)", str(failed.value)))
    assert not left(Path(folder))


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(slurm_cluster, "PATH", "/nowhere")
    assert "slurmctld" in missing()
