"""ResNet-50: its step on noise, its pictures alone, and both together; and torchvision's step beside it."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from statistics import median
from typing import Any

from pipeline.bench.gpu import loader, whole
from pipeline.bench.gpu.cases import complete, worked
from pipeline.bench.gpu.kinds import STEPS, of_model
from pipeline.bench.gpu.plan import Plan
from pipeline.bench.process import reason
from pipeline.bench.ratios import Spread
from pipeline.bench.step.contest import LOOPS, pace
from pipeline.bench.step.plan import OURS, Workload
from pipeline.bench.step.plan import Plan as StepPlan
from pipeline.bench.step.players import play, units
from pipeline.config import UserError
from pipeline.preempt import Preempted
from pipeline.progress import Bar, say

RIVAL = "torchvision"
STARTS = 0.7
"""Share of the contest's time in which each must answer: a compiler alone may take a minute."""
LATER = {"contest": 0.62, "steps": 0.38, "loader": 0.18}
"""Share of the section's time that is kept for what comes after each part."""


def run(plan: Plan, before: dict[str, Any], until: float) -> Iterator[dict[str, Any]]:
    """``contest`` (see ``contest``), ``steps``, ``loader`` (cases by name) and ``whole`` (see ``whole``)."""
    begun, found = time.time(), {} if plan.again else {key: before[key] for key in PARTS if key in before}
    for name, part in PARTS.items():
        limit = until - LATER.get(name, 0.0) * (until - begun)
        try:
            for told in part(plan, found.get(name, {}), limit, found):
                found = found | {name: told}
                yield found
        except (Preempted, KeyboardInterrupt):
            raise
        except Exception as error:  # the other parts may do
            say(f"{name}: {reason(error)}")
            why = str(error) if isinstance(error, UserError) else reason(error)
            found = found | {name: found.get(name, {}) | {"failed": why}}
            yield found
    yield found | {"complete": all(found.get(name, {}).get("complete") for name in PARTS)}


def contest(
    plan: Plan, before: dict[str, Any], until: float, found: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Our loop, compiled and not, and torchvision's script in turns, each in a process of its own: ``ours``
    (the quicker; whether it is ``compiled``) and ``torchvision``, pictures/s; ``faster``, ours over theirs
    within each round; ``left``, why one of our two loops has no figures."""
    if before.get("complete"):
        return
    sizes = plan.sizes
    workload = Workload(sizes.model, sizes.size, sizes.batch, sizes.rounds, sizes.steps)
    mine = StepPlan((workload,), plan.work, 1, plan.threads, plan.device, plan.precision)
    theirs = replace(mine, precision=plan.rival_precision)
    with mine.folder() as folder, Bar("ours and torchvision's", units(3, sizes.rounds), "parts") as bar:
        entrants = {name: mine.loop(workload, folder / name, changes) for name, changes in LOOPS.items()}
        entrants[RIVAL] = theirs.guest(workload, folder, RIVAL, {})
        # All start at once: where the compiler takes too long, the other two have time left for their turns.
        played = play(entrants, sizes.rounds, max(30.0, STARTS * (until - time.time())), bar)
    loops = [name for name in LOOPS if name not in played.failed]
    played.need(RIVAL, *([] if loops else [OURS]))
    rates = {name: [sizes.batch / pace(told[name]) for told in played.rounds] for name in (*loops, RIVAL)}
    best = max(loops, key=lambda name: median(rates[name]))
    ratios = [ours / rival for ours, rival in zip(rates[best], rates[RIVAL], strict=True)]
    spreads = {OURS: Spread.of(rates[best]), RIVAL: Spread.of(rates[RIVAL]), "faster": Spread.of(ratios)}
    found = {name: asdict(spread) for name, spread in spreads.items()} | {"compiled": best == OURS}
    if played.failed:
        found["left"] = "; ".join(f"{name}, {one['failed']}" for name, one in played.failed.items())
    yield found | {"told": played.rounds, "complete": not played.failed}


def steps(
    plan: Plan, before: dict[str, Any], until: float, found: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    wanted = of_model(plan)
    for cases in worked(plan, STEPS, wanted, before.get("cases", {}), until):
        yield {"cases": cases, "complete": complete(wanted, cases)}


PARTS = {"contest": contest, "steps": steps, "loader": loader.run, "whole": whole.run}


def summary(found: dict[str, Any]) -> dict[str, float]:
    """Pictures/s: ``synthetic`` (our loop on noise), ``loader`` (the best case), ``whole``; ``share``, whole
    over the lower of the two; ``faster``, ours over torchvision's. What is not known is missing."""
    told: dict[str, float] = {}
    with suppress(KeyError):
        told["synthetic"] = found["contest"][OURS]["median"]
        told["faster"] = found["contest"]["faster"]["median"]
    if best := loader.best(found.get("loader", {})):
        told["loader"] = best["rate"]["median"]
    with suppress(KeyError):
        told["whole"] = found["whole"]["rate"]["median"]
    if {"synthetic", "loader", "whole"} <= told.keys():
        told["share"] = told["whole"] / min(told["synthetic"], told["loader"])
    return told
