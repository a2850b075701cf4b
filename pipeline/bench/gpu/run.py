"""The sections, one after the other, each within its time; what fails is told, and the rest goes on."""

import time
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pipeline.bench.gpu import cifar, models, probe, roofline, tests, throughput
from pipeline.bench.gpu.plan import LEAST, Plan
from pipeline.bench.kept import Kept
from pipeline.bench.process import reason
from pipeline.config import UserError
from pipeline.progress import clock, say

SECTIONS: dict[str, ModuleType] = {
    "tests": tests,
    "throughput": throughput,
    "roofline": roofline,
    "models": models,
    "cifar": cifar,
    "probe": probe,
}


def run(
    plan: Plan, names: tuple[str, ...], seconds: float, kept: Kept, sections: Mapping[str, Any] = SECTIONS
) -> list[str]:
    """Each section's figures are kept as soon as they are known.

    :param seconds: for all of it.
    :return: names of sections that failed.
    :raises Preempted: this process was asked to stop; what was measured is kept.
    """
    end, failed = time.time() + seconds, []
    for place, name in enumerate(names):
        before = kept.results.get(name, {})
        if before.get("complete") and not plan.again:
            say(f"{name}: measured before; --again measures anew")
            continue
        # A later section keeps its least, unless this one would then have less than its own.
        later = sum(LEAST[each] for each in names[place + 1 :])
        needed = min(LEAST[name], plan.limits[name])
        spare = max(needed, end - time.time() - later)
        until = min(end, time.time() + min(plan.limits[name], spare))
        if until - time.time() < needed - 1:
            why = f"no time: needs {needed:g} s, {max(0.0, end - time.time()):.0f} are left"
            kept.keep(name, before | {"left": why})
            say(f"{name}: {why}")
            continue
        say(f"{name}: at most {clock(until - time.time())}")
        problem = _section(plan, name, sections[name], before, until, kept)
        if problem:
            failed.append(name)
            say(f"{name}: {problem}")
    return failed


def _section(
    plan: Plan, name: str, section: Any, before: dict[str, Any], until: float, kept: Kept
) -> str | None:
    """Why it failed, if it did."""
    found = {key: value for key, value in before.items() if key not in ("left", "failed")}
    try:
        for told in section.run(plan, found, until):
            found = told
            kept.keep(name, found)
    except UserError as error:
        kept.keep(name, found | {"failed": str(error)})
    except Exception as error:  # nobody is there to see it: the other sections run
        traceback.print_exc()
        kept.keep(name, found | {"failed": reason(error)})
    return kept.results.get(name, {}).get("failed")
