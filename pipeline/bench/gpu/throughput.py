"""ResNet-50: its step on noise, its pictures alone, and both together; and torchvision's step beside it."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from pipeline.bench.gpu import loader, whole
from pipeline.bench.gpu.cases import complete, worked
from pipeline.bench.gpu.kinds import STEPS, of_model
from pipeline.bench.gpu.plan import Plan
from pipeline.bench.process import reason
from pipeline.bench.ratios import Spread
from pipeline.bench.step.contest import pace
from pipeline.bench.step.plan import OURS, Workload
from pipeline.bench.step.plan import Plan as StepPlan
from pipeline.bench.step.players import play, units
from pipeline.config import UserError
from pipeline.preempt import Preempted
from pipeline.progress import Bar, say

RIVAL = "torchvision"
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
    """Our loop, compiled, and torchvision's script in turns, each in a process of its own: ``ours`` and
    ``torchvision``, pictures/s; ``faster``, ours over theirs within each round."""
    if before.get("complete"):
        return
    sizes = plan.sizes
    workload = Workload(sizes.model, sizes.size, sizes.batch, sizes.rounds, sizes.steps)
    mine = StepPlan((workload,), plan.work, 1, plan.threads, plan.device, plan.precision)
    theirs = replace(mine, precision=plan.rival_precision)
    with mine.folder() as folder, Bar("ours and torchvision's", units(2, sizes.rounds), "parts") as bar:
        entrants = {
            OURS: mine.loop(workload, folder / OURS, {"train.compile": True}),
            RIVAL: theirs.guest(workload, folder, RIVAL, {}),
        }
        played = play(entrants, sizes.rounds, max(30.0, until - time.time()), bar)
    played.need(OURS, RIVAL)
    rates = {name: [sizes.batch / pace(told[name]) for told in played.rounds] for name in entrants}
    ratios = [ours / rival for ours, rival in zip(rates[OURS], rates[RIVAL], strict=True)]
    about = {name: asdict(Spread.of(own)) for name, own in rates.items()}
    yield about | {"faster": asdict(Spread.of(ratios)), "told": played.rounds, "complete": True}


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
