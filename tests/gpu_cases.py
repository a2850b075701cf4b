"""Cases of test_bench_gpu.py, without torch: ``worked`` has them measured in a process of its own."""

import sys
from typing import Any

from pipeline.bench.gpu.cases import work_off


def measured(started: float, cases: list[dict[str, Any]], until: float, device: str) -> dict[str, bool]:
    """A case may fail, end the process, or be there."""

    def measure(case: dict[str, Any]) -> dict[str, Any]:
        if case["does"] == "fails":
            raise ValueError("no such kernel\nat all")
        if case["does"] == "ends":
            sys.exit(7)
        return {"rate": case["name"]}

    return work_off(cases, until, measure)
