"""The step's benchmark: its sections, one after the other."""

from pipeline.bench.kept import Kept
from pipeline.bench.step import contest, overhead, saving, scaling, starting
from pipeline.bench.step.plan import Plan
from pipeline.progress import Bar, say

SECTIONS = {
    "contest": contest,
    "overhead": overhead,
    "scaling": scaling,
    "start": starting,
    "saving": saving,
}


def run(plan: Plan, sections: tuple[str, ...], kept: Kept) -> None:
    """Each section's figures are kept as soon as they are known.

    :raises UserError, RuntimeError: our own loop does not run.
    :raises Preempted: this process was asked to stop.
    """
    total, left = sum(SECTIONS[name].count(plan) for name in sections), list(sections)
    try:
        with Bar("measure steps", total, "parts") as bar:
            for name in sections:
                for found in SECTIONS[name].run(plan, bar):
                    kept.keep(name, found)
                left.remove(name)
    finally:
        if left:
            say(f"not measured to its end: --only {','.join(left)} adds it to what there is")
