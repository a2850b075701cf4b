"""What contestants read, made before the rounds: our indexes by ``launch.prepare``, FFCV's files by FFCV."""

import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.bench.contestants import Contestant
from pipeline.bench.process import environment, last_line

PREPARE_LIMIT = 24 * 3600
"""Seconds; a folder of the user's may be large."""


@dataclass(frozen=True)
class Made:
    """What there is to open.

    :ivar data: none if it cannot be had, and ``failed`` says why.
    :ivar bytes: of all that is read in an epoch.
    :ivar seconds: that making it took.
    """

    data: Path | None
    bytes: int = 0
    seconds: float = 0.0
    failed: str | None = None


def make(contestant: Contestant, pictures: Path, work: Path, ffcv_python: Path | None) -> Made:
    """Always anew: what lies there may be another version's."""
    work.mkdir(parents=True, exist_ok=True)
    if contestant.kind == "ours":
        out = work / f"index-{contestant.name}"
        words = ["-m", "launch.prepare", "imagefolder", "--root", str(pictures), "--out", str(out)]
        made = _run([sys.executable, *words, *contestant.prepare], out)
        if "--pack" in contestant.prepare or made.failed:
            return made
        return replace(made, bytes=made.bytes + size_of(pictures))  # the index points to the files
    if contestant.kind == "ffcv":
        if ffcv_python is None:
            return Made(None, failed="no interpreter with FFCV given: --ffcv-python PATH")
        out = work / f"{contestant.name}.beton"
        words = ["-m", "pipeline.bench.ffcv_rival", str(pictures), str(out), *contestant.prepare]
        return _run([str(ffcv_python), *words], out)
    return Made(pictures, size_of(pictures))


def _run(command: list[str], out: Path) -> Made:
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=PREPARE_LIMIT
        )
    except OSError as error:
        return Made(None, failed=f"{command[0]}: {error.strerror}")
    if done.returncode:
        return Made(None, failed=last_line(done.stderr) or f"exit code {done.returncode}")
    return Made(out, size_of(out), time.monotonic() - start)


def picture_files(root: Path) -> list[Path]:
    """All files in class folders, sorted."""
    return [path for path in sorted(root.glob("*/**/*")) if path.is_file()]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(found.stat().st_size for found in path.rglob("*") if found.is_file())
