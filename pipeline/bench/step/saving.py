"""How long a checkpoint holds training up, written in the background and in the foreground."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from statistics import median
from typing import Any

from pipeline.bench.ratios import Spread
from pipeline.bench.step.plan import LIMIT, Plan
from pipeline.bench.step.players import play, units
from pipeline.progress import Bar

EVERY = 20
"""Steps between checkpoints; in the second half nothing is written any more."""
SIZE, BATCH = 64, 8
"""Of the pictures: short steps, for what is saved does not depend on them."""


WAYS = ("background", "foreground")


def count(plan: Plan) -> int:
    return units(len(WAYS), 1)


def run(plan: Plan, bar: Bar) -> Iterator[dict[str, Any]]:
    """Of the last workload's network: ``background`` and ``foreground``, see ``figures``.

    :raises UserError, RuntimeError: our own loop does not run.
    """
    last = plan.workloads[-1]
    bar.advance(0, note=f"checkpoints, {last.model}")
    workload = replace(last, size=min(SIZE, last.size), batch=min(BATCH, last.batch))
    workload = replace(workload, rounds=1, steps=EVERY * (plan.runs + 1))
    with plan.folder() as folder:
        entrants = {}
        for way in WAYS:
            changes = {"checkpoint.every": float(EVERY), "checkpoint.background": way == "background"}
            entrants[way] = plan.loop(workload, folder / way, changes)
        played = play(entrants, 1, LIMIT, bar)
    played.need(*WAYS)
    (told,) = played.rounds
    found: dict[str, Any] = asdict(workload) | {"every": EVERY}
    for way in WAYS:
        size = played.last[way]["checkpoint_bytes"]
        found[way] = figures(told[way]) | {"bytes": size, "told": told[way]}
    yield found


def figures(turn: dict[str, Any]) -> dict[str, Any]:
    """Over the checkpoints of one turn, from each to the one after.

    :return: ``step``, seconds of a step with nothing to write; ``held``, seconds more of the step that
        saves; ``after``, seconds more of the steps behind it, together.
    """
    numbered = dict(enumerate(turn["steps"], turn["first"]))
    saves = [number for number in numbered if number % EVERY == 0 and number + EVERY - 1 in numbered]
    quiet = median(numbered[save + place] for save in saves for place in range(EVERY // 2, EVERY))
    after = [sum(numbered[save + place] - quiet for place in range(1, EVERY)) for save in saves]
    held = [numbered[save] - quiet for save in saves]
    return {"step": quiet, "held": asdict(Spread.of(held)), "after": asdict(Spread.of(after))}
