"""A real SLURM of several nodes on one machine: munged, slurmctld, and a slurmd on each node.

    cluster = SlurmCluster()      # or by hand, until Ctrl-C: python -m tests.cluster.slurm_cluster

Every node is a machine of namespaces (machines.py) with its own address: nothing on it reaches another node
by localhost. Its host name means 127.0.1.1 on itself, as on Debian, and `hostname -I` lists an address first
by which it cannot be reached. This host, where slurmctld runs and jobs are submitted, is not a node. Files
are shared by all, /dev/shm is not. Needs root, and Debian's packages slurmctld slurmd slurm-client munge
iproute2; a SLURM that this host belongs to is not touched.

Each node has two CPUs; g1 has two GPUs, too, which are /dev/null and /dev/zero. Partitions:
    cpu     n1, n2; the default; if urgent asks, a job's steps get SIGTERM, and what has not ended
            20 s later is requeued
    short   n1, n2; the same, for jobs of at most two minutes
    urgent  n1, n2; takes nodes from the jobs of cpu and short
    gpu     g1
"""

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from .machines import BOOT, NETWORK, PATH, UNSHARE, Machine, Switch, free_network
from .slurm_config import NODES, write_files

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "ip", "unshare", "nsenter", "setpriv")
PACKAGES = "slurmctld slurmd slurm-client munge iproute2"
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL"}

HEAD = """
mount --bind "$1/hosts.head" /etc/hosts || exit
munged --foreground --socket "$1/munge.socket" --key-file "$1/munge.key" --log-file "$1/munged.log" \
  --pid-file "$1/munged.pid" --seed-file "$1/munged.seed" &
until [ -S "$1/munge.socket" ]; do sleep 0.05; done
slurmctld -D -f "$1/slurm.conf" &
wait -n
"""

NODE = BOOT + 'slurmd -D -f "$2/slurm.conf" -N "$1" & wait $!\n'

_letters = itertools.cycle("abcdefghijklmnopqrstuvwxyz")


class SlurmCluster:
    """Up and idle once made; ``close`` ends it, as does the end of this process, and leaves nothing.

    ``environment`` is for clients (sbatch, scontrol …); ``address`` is this host's, ``addresses`` are the
    nodes'; ``folder`` holds all files. Raises RuntimeError or TimeoutError with the logs if SLURM does not
    come up.
    """

    def __init__(self):
        remove_abandoned()
        self.name = f"slurm{os.getpid()}{next(_letters)}"
        self.folder = Path(tempfile.gettempdir()) / self.name
        self.folder.mkdir(mode=0o755)
        network = free_network()
        self.address = str(network[1])
        self.addresses = {name: str(network[10 + i]) for i, name in enumerate(NODES, 1)}
        clean = {key: value for key, value in os.environ.items() if not re.match("SLURM|SBATCH|SRUN", key)}
        self.environment = clean | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self.machines: dict[str, Machine] = {}
        self.switch = None
        try:
            self.switch = Switch(self.name, f"{self.address}/24", self.folder)
            write_files(self.folder, self.address, self.addresses)
            self.machines["head"] = Machine(HEAD, str(self.folder), log=self.folder / "head.log")
            for name in NODES:
                self._start_node(name)
            until(self._is_up, 60, self.logs)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "SlurmCluster":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        while self.machines:
            self.machines.popitem()[1].kill()
        if self.switch is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self.switch.close()

    def run(self, *command: str, cwd: Path | None = None, check: bool = True, timeout: float = 60):
        """A client's command on this host; its CompletedProcess. With ``check`` it must succeed."""
        done = subprocess.run(
            command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        assert not check or done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}"
        return done

    def submit(self, *words: str, cwd: Path) -> str:
        """``sbatch`` with these words, in folder ``cwd``; the job's id."""
        return self.run("sbatch", "--parsable", *words, cwd=cwd).stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """What ``scontrol show job`` says: JobState, Restarts, ExitCode, NodeList, Requeue, StdOut …"""
        told = self.run("scontrol", "show", "job", job).stdout
        return dict(re.findall(r"([A-Z][\w/:]*)=(.*?)(?=\s+[A-Z][\w/:]*=|\s*\n|$)", told))

    def wait(self, job: str, *states: str, timeout: float = 60, restarts: int = 0) -> str:
        """Waits for one of the states, in the job's restart ``restarts`` or a later one; which it is.

        Without ``states``, for any in which it stays. An end in another state fails at once, with the log.
        """
        wanted = set(states or FINAL)

        def reached() -> str | None:
            told = self.job(job)
            state = told["JobState"]
            if int(told["Restarts"]) >= restarts and state in wanted:
                return state
            assert state not in FINAL, f"the job ended as {state}\n{self.job_log(job)}"
            return None

        return until(reached, timeout, lambda: f"{wanted} not seen in {timeout} s\n{self.job_log(job)}")

    def start_soon(self, job: str) -> None:
        """A requeued job need not wait until the credentials of its last start have expired."""
        self.wait(job, "PENDING")
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def job_log(self, job: str) -> str:
        """All that SLURM says of a job, and its output."""
        output = Path(self.job(job).get("StdOut", "none"))
        said = output.read_text(errors="replace") if output.is_file() else "(no output)"
        return self.run("scontrol", "show", "job", job).stdout + said

    def node_state(self, name: str) -> str:
        """In sinfo's words: idle, mixed, allocated, completing, down …; empty if slurmctld is silent."""
        told = self.run("sinfo", "--noheader", "--nodes", name, "--format", "%T", check=False).stdout
        return told.partition("\n")[0].rstrip("*~#!%$@^-+")

    def wait_node(self, name: str, *states: str, timeout: float = 60) -> None:
        until(lambda: self.node_state(name) in states, timeout, lambda: f"{name} is {self.node_state(name)}")

    def processes(self, name: str) -> list[psutil.Process]:
        """All on a node: slurmd, steps, ranks, and whatever they have left behind."""
        return self.machines[name].processes()

    def on(self, name: str, *command: str, check: bool = True):
        """A command on a node, beside SLURM; as ``run``."""
        place = ("--target", str(self.machines[name].first.pid), "--pid", "--mount", "--net", "--uts")
        return self.run("nsenter", *place, *command, check=check)

    def kill_node(self, name: str) -> None:
        """A power cut: all ends at once, with no goodbye on the network. SLURM notices in some 8 s."""
        self.switch.unplug(name)
        self.machines.pop(name).kill()

    def revive_node(self, name: str) -> None:
        """Boots a killed node, and waits until SLURM uses it again."""
        self._start_node(name)
        self.wait_node(name, "idle", "mixed", "allocated", "completing")

    def logs(self) -> str:
        """The last lines of all daemons."""
        return "\n".join(
            f"{log}:\n{log.read_text(errors='replace')[-3000:]}" for log in sorted(self.folder.glob("*.log"))
        )

    def _is_up(self) -> bool:
        for name, machine in self.machines.items():
            if machine.process.poll() is not None:
                raise RuntimeError(f"{name} ended\n{self.logs()}")
        return all(self.node_state(name) == "idle" for name in NODES)

    def _start_node(self, name: str) -> None:
        words = (name, str(self.folder), f"{self.addresses[name]}/24")
        machine = Machine(NODE, *words, log=self.folder / f"boot.{name}.log", options=NETWORK)
        self.machines[name] = machine
        self.switch.plug(name, machine)


def missing() -> str | None:
    """What this machine lacks for a cluster; None if nothing."""
    if os.geteuid() != 0:
        return "a SLURM cluster needs root"
    absent = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if absent:
        return f"a SLURM cluster needs {', '.join(absent)} (Debian: {PACKAGES})"
    links = "ip link add one type bridge && ip link add two type veth && mount -t tmpfs tmpfs /dev/shm"
    probe = [*UNSHARE, *NETWORK, "sh", "-c", links]
    done = subprocess.run(probe, capture_output=True, text=True, env={"PATH": PATH})
    return f"a SLURM cluster needs namespaces and links: {done.stderr.strip()}" if done.returncode else None


def remove_abandoned() -> None:
    """Folders of clusters whose owner and its switch were both killed; all else ended with the processes."""
    for folder in Path(tempfile.gettempdir()).glob("slurm*"):
        name = re.fullmatch(r"slurm(\d+)[a-z]", folder.name)
        if name and not Path("/proc", name[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)


def until(reached: Callable, timeout: float, words: Callable[[], str]):
    """Asks until the answer is true, and gives it; fails with ``words`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := reached()):
        if time.monotonic() > deadline:
            raise TimeoutError(words())
        time.sleep(0.2)
    return answer


if __name__ == "__main__":
    with SlurmCluster() as shown, suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={shown.environment['SLURM_CONF']}  # Ctrl-C ends it", flush=True)
        signal.pause()
