"""SLURM's own commands, asked by this machine; their complaints become a user's line."""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.config import UserError

PATIENCE = 60.0
"""Seconds that a command may take: a controller under load answers late."""
PERSISTENCE, PAUSE = 120.0, 5.0
"""Seconds for which a job that has saved asks to be queued again, and between two times."""
_UNANSWERED = re.compile(r"no answer|[Uu]nable to contact|timed out|Zero Bytes|standby")
"""In what SLURM's commands say when the controller did not hear them (slurm_errno.c)."""


@dataclass(frozen=True)
class Job:
    """A line of squeue.

    :ivar id: "17", or of an array "17_3". :ivar state: RUNNING, PENDING, ... :ivar elapsed, left: as SLURM
        writes times. :ivar where: its nodes, or why it waits.
    """

    id: str
    state: str
    elapsed: str
    left: str
    where: str


def available() -> bool:
    return shutil.which("sbatch") is not None


def sbatch(script: Path, words: list[str], options: list[str]) -> str:
    """Submits a script; the job's id.

    :raises UserError: there is no SLURM here, or it does not take the job.
    """
    if not available():
        raise UserError(
            "sbatch: not found; submit on a login node of the cluster, or read the plan with --dry-run"
        )
    told = _run(["sbatch", "--parsable", *options, str(script), *words])
    if told.returncode:
        raise UserError(_complaint(told.stderr))
    return told.stdout.strip().split(";")[0]


def cancel(jobs: list[str]) -> None:
    _run(["scancel", *jobs])


def queued(jobs: list[str]) -> list[Job]:
    """Those of the jobs, and of their arrays' tasks, that wait or run."""
    if not jobs or not available():
        return []
    # Asked for all of the user's: an id that SLURM has forgotten makes an error of the whole answer.
    told = _run(["squeue", "--noheader", "--me", "--array", "--format=%i|%A|%F|%T|%M|%L|%R"])
    if told.returncode:
        raise UserError(f"squeue: {_last(told.stderr)}")
    found = []
    for line in told.stdout.splitlines():
        name, number, array, *rest, where = line.split("|")
        if {name, number, array} & set(jobs):
            found.append(Job(name, *rest, where.strip("()")))
    return found


def shown(kind: str, name: str) -> dict[str, str]:
    """What ``scontrol show job`` (or ``node``) says, by its own names; empty if it knows none.

    Values with spaces are cut at the first.
    """
    return dict(re.findall(r"(\w+)=(\S*)", _run(["scontrol", "show", kind, "--oneliner", name]).stdout))


def cancelled(job: str) -> bool:
    """Whether somebody has ended a job that is still saving; SLURM calls it COMPLETING by then."""
    now = shown("job", job)
    return now.get("JobState") in ("CANCELLED", "COMPLETING") and now.get("Reason") != "TimeLimit"


def requeue(job: str) -> str | None:
    """Queues a job again, unless somebody has cancelled it; what is against it, if anything.

    A controller that does not answer is asked again for a while: it is slow when many jobs are preempted at
    once, which is when each of them asks.
    """
    deadline = time.monotonic() + PERSISTENCE
    while True:
        try:
            if cancelled(job):
                return "it was cancelled"
            told = _run(["scontrol", "requeue", job])
            refusal = _last(told.stderr) if told.returncode else None
        except UserError as unanswered:
            refusal = str(unanswered)
        if refusal is None or not _UNANSWERED.search(refusal) or time.monotonic() > deadline:
            return refusal
        time.sleep(PAUSE)


def end_time(job: str) -> float | None:
    """When its time limit ends a running job, Unix seconds; none if the controller does not say."""
    try:
        told = _run(["squeue", "--noheader", f"--jobs={job}", "--format=%e"]).stdout.strip()
    except UserError:
        return None
    return datetime.fromisoformat(told).timestamp() if told.startswith("20") else None


def hostnames(nodes: str) -> list[str]:
    """The names in "n[1-3]"."""
    return _run(["scontrol", "show", "hostnames", nodes]).stdout.split()


def partitions() -> list[str]:
    told = _run(["sinfo", "--noheader", "--format=%R"])
    return list(dict.fromkeys(told.stdout.split()))


def _complaint(errors: str) -> str:
    told = [line.split("error:", 1)[1].strip() for line in errors.splitlines() if "error:" in line]
    line = "; ".join(told) or _last(errors)
    if "partition" in line and (there := partitions()):
        line = f"{line}; there are {', '.join(there)}"
    return f"sbatch: {line}"


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["failed"])[-1]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: no answer within {PATIENCE:.0f} s; is slurmctld up?") from None
