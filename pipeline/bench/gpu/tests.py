"""The test suite's GPU-marked part, in a process of its own: what passed, failed and was skipped, by name."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.bench.gpu.outcomes import FILE
from pipeline.bench.gpu.plan import Plan
from pipeline.bench.process import ROOT, end, last_line, program, stop_if_asked

LOOK = 2.0
"""Seconds between looks at what is known."""


def run(plan: Plan, before: dict[str, Any], until: float) -> Iterator[dict[str, Any]]:
    """``outcomes``, one a test: name, outcome, seconds, why, and seen (by ``record_property``)."""
    folder = plan.folder("tests")
    file, log = folder / "outcomes.jsonl", folder / "pytest.log"
    file.unlink(missing_ok=True)
    words = ["-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-m", "gpu", "-q"]
    words += ["-p", "pipeline.bench.gpu.outcomes", "-p", "no:cacheprovider"]
    # A process a file: they share one GPU, and most of their time is the starts of processes.
    words += ["-n", str(len(plan.tests)), "--dist", "loadfile"]
    words += ["--basetemp", str(folder / "tmp"), *map(str, plan.tests)]
    with log.open("w") as told:
        child = program(words, told, **{FILE: str(file)})
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
        said = last_line(log.read_text(errors="replace")) or "nothing said"
        raise RuntimeError(f"pytest ended with code {child.returncode}: {said}")
    else:
        yield found | {"complete": not found["counts"].get("failed")}


def figures(file: Path) -> dict[str, Any]:
    """``outcomes`` so far, and ``counts`` of them."""
    lines = file.read_text().splitlines() if file.exists() else []
    outcomes = [json.loads(line) for line in lines]
    return {"outcomes": outcomes, "counts": dict(Counter(one["outcome"] for one in outcomes))}
