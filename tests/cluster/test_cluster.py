"""The cluster that other tests stand on is as it says: nodes apart, power cuts, preemption, no leftovers."""

import sys

from .machines import DOCKER
from .slurm_cluster import until


def test_nodes_are_apart(cluster, tmp_path):
    """Each lists a useless address first, and its name means localhost; only its own address leads to it."""
    told = cluster.run(
        "srun", "--nodes=2", "--label", "bash", "-c", "hostname; hostname -i; hostname -I"
    ).stdout
    for task, node in enumerate(("n1", "n2")):
        lines = [line.removeprefix(f"{task}: ").strip() for line in told.splitlines() if line[0] == str(task)]
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
