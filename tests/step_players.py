"""Contestants of test_bench_step.py, without torch: ``play`` runs them as processes."""

import os
import time
from typing import Any

from pipeline.bench.step.baton import Baton

TURN = 0.05
"""Seconds."""


def plays(started: float, name: str, fails: str = "") -> dict[str, Any]:
    """Tells of each turn when it began and ended.

    :param fails: "at first", "at its turn", or "silently".
    """
    if fails == "at first":
        raise ValueError("no such precision\nat all")
    baton, count = Baton(), 0
    print("5\nnot json: a library greets")
    for _ in baton:
        count += 1
        if fails == "at its turn" and count == 2:
            import no_such_library  # noqa: F401
        if fails == "silently":
            os._exit(3)
        begun = time.monotonic()
        time.sleep(TURN)
        baton.tell({"name": name, "turn": [begun, time.monotonic()]})
    return {"count": count}
