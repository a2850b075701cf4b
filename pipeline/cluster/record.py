"""Which jobs were submitted for a run: ``slurm/submitted.yaml`` in its folder."""

import time
from pathlib import Path

import yaml

from pipeline.claim import in_use
from pipeline.cluster import client
from pipeline.config import UserError
from pipeline.files import write_whole


def read(run: Path) -> list[dict]:
    """Oldest first: job (its id), what, time (ISO), code (``monitor.codebase``), command."""
    try:
        return yaml.safe_load((run / "slurm" / "submitted.yaml").read_text()) or []
    except FileNotFoundError:
        return []


def add(run: Path, job: str, what: str, command: list[str], code: dict) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    entry = {"job": job, "what": what, "time": now, "command": command, "code": code}
    told = yaml.safe_dump([*read(run), entry], sort_keys=False, allow_unicode=True)
    write_whole(run / "slurm" / "submitted.yaml", told.encode())


def refuse_if_live(run: Path) -> None:
    """:raises UserError: a job waits or runs for this run, or somebody trains in its folder."""
    live = client.queued([entry["job"] for entry in read(run)])
    if live:
        job = live[0]
        raise UserError(
            f"{run}: job {job.id} is {job.state} ({job.where}) for this run; wait for it, "
            f"scancel {job.id}, or give another name"
        )
    if in_use(run):
        raise UserError(f"{run}: another job works in this folder; wait for it, or give another name")
