"""The test suite's GPU-marked part, in a process of its own: what passed, failed and was skipped, by name."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.bench.gpu.outcomes import FILE
from pipeline.bench.gpu.plan import Plan
from pipeline.bench.process import ROOT, end, environment, stop_if_asked

LOOK = 2.0
"""Seconds between looks at what is known."""


def run(plan: Plan, before: dict[str, Any], until: float) -> Iterator[dict[str, Any]]:
    """``outcomes``, one a test: name, outcome, seconds, why, and seen (by ``record_property``)."""
    folder = plan.folder("tests")
    file, log = folder / "outcomes.jsonl", folder / "pytest.log"
    file.unlink(missing_ok=True)
    words = [
        "-m",
        "pytest",
        "-c",
        str(ROOT / "pyproject.toml"),
        "-m",
        "gpu",
        "-q",
        "-p",
        "pipeline.bench.gpu.outcomes",
    ]
    # One after the other: they share one GPU.
    words += ["-n0", "-p", "no:cacheprovider", "--basetemp", str(folder / "tmp"), *map(str, plan.tests)]
    with log.open("w") as told:
        child = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment() | {FILE: str(file)},
            stdout=told,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while child.poll() is None and time.time() < until:
                stop_if_asked()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(LOOK)
                yield figures(file)
            late = child.poll() is None
        finally:
            end(child)
    found = figures(file)
    if late:
        yield found | {"left": "no time for the rest of the tests"}
    elif not found["outcomes"]:
        raise RuntimeError(f"pytest ended with code {child.returncode}: {_last(log)}")
    else:
        yield found | {"complete": not found["counts"].get("failed")}


def figures(file: Path) -> dict[str, Any]:
    """``outcomes`` so far, and ``counts`` of them."""
    lines = file.read_text().splitlines() if file.exists() else []
    outcomes = [json.loads(line) for line in lines]
    return {"outcomes": outcomes, "counts": dict(Counter(one["outcome"] for one in outcomes))}


def _last(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing said"
