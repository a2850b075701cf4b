"""The step's benchmark: its sections, one after the other."""

from dataclasses import asdict
from typing import Any

from pipeline.bench.step import contest, overhead, saving, scaling, starting
from pipeline.bench.step.plan import Plan
from pipeline.config import UserError
from pipeline.progress import Bar

SECTIONS = {
    "contest": contest,
    "overhead": overhead,
    "scaling": scaling,
    "start": starting,
    "saving": saving,
}


def run(plan: Plan, sections: tuple[str, ...]) -> dict[str, Any]:
    """The figures as JSON: ``setting``, and each section by its name.

    :raises RuntimeError: our own loop failed.
    """
    found: dict[str, Any] = {"setting": asdict(plan) | {"work": str(plan.work)}}
    with Bar("measure steps", sum(SECTIONS[name].count(plan) for name in sections), "processes") as bar:
        for name in sections:
            found[name] = SECTIONS[name].run(plan, bar)
    return found


def known(names: str) -> tuple[str, ...]:
    """The sections in "a,b", in their order.

    :raises UserError: no such section.
    """
    wanted = [name for name in names.split(",") if name]
    for name in wanted:
        if name not in SECTIONS:
            raise UserError(f"--only {name}: no such section; there are {', '.join(SECTIONS)}")
    return tuple(name for name in SECTIONS if name in wanted)
