"""The probe's benchmark: its sections, one after the other."""

from pipeline.bench.probe import extraction, path
from pipeline.bench.probe.plan import Plan
from pipeline.bench.step.kept import Kept
from pipeline.config import UserError
from pipeline.progress import Bar

SECTIONS = {"path": path, "extraction": extraction}


def run(plan: Plan, sections: tuple[str, ...], kept: Kept) -> None:
    """Each section's figures are kept as soon as they are known.

    :raises RuntimeError: something does not run. :raises Preempted: this process was asked to stop.
    """
    with Bar("measure the probe", sum(SECTIONS[name].count(plan) for name in sections), "parts") as bar:
        for name in sections:
            for found in SECTIONS[name].run(plan, bar):
                kept.keep(name, found)


def known(names: str) -> tuple[str, ...]:
    """The sections in "a,b", in their order.

    :raises UserError: no such section.
    """
    wanted = [name for name in names.split(",") if name]
    for name in wanted:
        if name not in SECTIONS:
            raise UserError(f"--only {name}: no such section; there are {', '.join(SECTIONS)}")
    return tuple(name for name in SECTIONS if name in wanted)
