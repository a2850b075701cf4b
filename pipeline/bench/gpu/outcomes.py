"""A pytest plugin: each test's outcome as a line of JSON, at once: a run that is stopped tells too."""

import json
import os
from pathlib import Path
from typing import Any

FILE = "GPU_TEST_OUTCOMES"
"""Environment: the file that the lines go to."""


def pytest_configure(config: Any) -> None:
    """Processes that run tests for another one (pytest-xdist) report to it, and it writes."""
    if hasattr(config, "workerinput"):
        config.pluginmanager.unregister(name=__name__)


def pytest_runtest_logreport(report: Any) -> None:
    """Of a test that ran, its call; of one that did not, what came before."""
    if report.when != "call" and report.outcome == "passed":
        return
    told = {
        "name": report.nodeid.rpartition("/")[2],
        "outcome": report.outcome,
        "seconds": round(report.duration, 3),
        "why": _why(report),
        "seen": {key: value for key, value in report.user_properties},
    }
    with Path(os.environ[FILE]).open("a") as file:
        file.write(json.dumps(told, default=str) + "\n")


def _why(report: Any) -> str | None:
    """In a line, of what did not pass."""
    if report.outcome == "passed":
        return None
    if report.outcome == "skipped":
        return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else str(report.longrepr)).strip().splitlines()[0][:300]
