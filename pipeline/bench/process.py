"""Processes of a benchmark: found from anywhere, stopped with all their workers, a mistake told in a line."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.bench.timing import Setting

ROOT = Path(__file__).parent.parent.parent
START_LIMIT = 600.0
"""Seconds that a contestant may take before its first batches; FFCV compiles for half a minute or more."""


def environment() -> dict[str, str]:
    """This program's modules are found from any folder and by any interpreter."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def one_round(setting: Setting, stream: str, python: str = sys.executable) -> dict[str, Any]:
    """What ``child`` tells of one round, or {"failed": why, "errors": all it said}; none of it runs on."""
    command = [python, "-m", "pipeline.bench.child", json.dumps(asdict(setting)), stream]
    limit = START_LIMIT + 3 * (setting.seconds + setting.warm_up)
    # Files, not pipes: a worker that outlives the child would keep a pipe open.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            child = subprocess.Popen(
                command, env=environment(), stdout=out, stderr=err, start_new_session=True
            )
        except OSError as error:
            return {"failed": f"{python}: {error.strerror}", "errors": ""}
        try:
            child.wait(limit)
        except subprocess.TimeoutExpired:
            return {"failed": f"no result after {limit:.0f} s", "errors": ""}
        finally:
            _end(child)
        out.seek(0)
        err.seek(0)
        told, errors = last_line(out.read()), err.read()
    try:
        result = json.loads(told)
    except ValueError:
        result = {"failed": last_line(errors) or f"ended with code {child.returncode}"}
    return result | {"errors": errors} if "failed" in result else result


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _end(child: subprocess.Popen) -> None:
    """Kills whatever lives in the child's group; it is waited for."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
