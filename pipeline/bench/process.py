"""Processes of a benchmark: found from anywhere, stopped with all their workers, a mistake told in a line."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pipeline.preempt import STOP, Preempted

ROOT = Path(__file__).parent.parent.parent
GRACE = 40.0
"""Seconds for torchrun to end its ranks; those that do not listen it kills after 30."""


def environment() -> dict[str, str]:
    """This program's modules are found from any folder and by any interpreter, before all others."""
    before = [path] if (path := os.environ.get("PYTHONPATH")) else []
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *before])}


def named(function: str) -> Callable[..., Any]:
    """What ``module:function`` names."""
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


def cores(count: int) -> list[int]:
    """The first ``count`` cores that this process may use: by number, the same ones every time."""
    return sorted(os.sched_getaffinity(0))[:count]


def torchrun(ranks: int) -> list[str]:
    """Python's words in front of ``-m MODULE`` for that many ranks on this machine; none for 0 ranks."""
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []


def ask(
    function: str,
    words: dict[str, Any],
    on: list[int],
    limit: float,
    *,
    python: str = sys.executable,
    ranks: int = 0,
) -> dict[str, Any]:
    """What ``child`` tells of a function, or {"failed": why, "errors": all it said}; none of it runs on.

    :param on: the cores that all of it may use, by number. :param limit: seconds until it is given up.
    :param ranks: processes under torchrun; 0 = one without it.
    """
    return told(command(function, words, on, python=python, ranks=ranks), limit)


def command(
    function: str, words: dict[str, Any], on: list[int], *, python: str = sys.executable, ranks: int = 0
) -> list[str]:
    """``child`` with that function; see ``ask``."""
    told = json.dumps(words | {"cores": on})
    return [python, *torchrun(ranks), "-m", "pipeline.bench.child", function, told]


def program(words: list[str], log: IO[str], **environs: str) -> subprocess.Popen:
    """Python with these words, in the repository's root; all it says goes to ``log``. For ``end``."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment() | environs,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def told(command: list[str], limit: float, **environs: str) -> dict[str, Any]:
    """The last line of what a command prints, as JSON, or {"failed": why, "errors": all it said}."""
    # Files, not pipes: a worker that outlives the child would keep a pipe open.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            child = subprocess.Popen(
                command, env=environment() | environs, stdout=out, stderr=err, start_new_session=True
            )
        except OSError as error:
            return {"failed": f"{command[0]}: {error.strerror}", "errors": ""}
        try:
            wait(child, limit)
        except subprocess.TimeoutExpired:
            return {"failed": f"no result after {limit:.0f} s", "errors": ""}
        finally:
            end(child)
        out.seek(0)
        err.seek(0)
        line, errors = last_line(out.read()), err.read()
    try:
        result = json.loads(line)
    except ValueError:
        result = {"failed": last_line(errors) or f"ended with code {child.returncode}"}
    return result | {"errors": errors} if "failed" in result else result


def reason(error: Exception) -> str:
    """Why something did not run, in a line."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def wait(child: subprocess.Popen, limit: float) -> None:
    """:raises subprocess.TimeoutExpired: after ``limit`` seconds.
    :raises Preempted: this process was asked to stop.
    """
    ends = time.monotonic() + limit
    while child.poll() is None:
        stop_if_asked()
        if time.monotonic() > ends:
            raise subprocess.TimeoutExpired(child.args, limit)
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.5)


def stop_if_asked() -> None:
    """:raises Preempted: this process was asked to stop."""
    if STOP.asked:
        raise Preempted(f"stopped ({STOP.why})")


def end(child: subprocess.Popen) -> None:
    """Ends the child, if it still runs, and kills whatever lives in its group; it is waited for."""
    if child.poll() is None:
        child.terminate()  # torchrun's ranks are in groups of their own; asked, it ends them
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
