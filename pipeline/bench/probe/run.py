"""The probe's benchmark: its sections, one after the other."""

from pipeline.bench.kept import Kept
from pipeline.bench.probe import extraction, path
from pipeline.bench.probe.plan import Plan
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
