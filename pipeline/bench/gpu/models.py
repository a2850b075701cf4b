"""Other networks: our step, compiled and not, beside torchvision's, on one batch of noise."""

from collections.abc import Iterator
from typing import Any

from pipeline.bench.gpu.cases import complete, worked
from pipeline.bench.gpu.kinds import STEPS, of_others
from pipeline.bench.gpu.plan import Plan


def run(plan: Plan, before: dict[str, Any], until: float) -> Iterator[dict[str, Any]]:
    """``cases`` by name, "NETWORK: STEP"."""
    wanted = of_others(plan)
    for found in worked(plan, STEPS, wanted, before.get("cases", {}), until):
        yield {"cases": found, "complete": complete(wanted, found)}
