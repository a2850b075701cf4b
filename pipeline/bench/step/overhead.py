"""What our step costs beyond forward, backward and optimizer, and what makes it up."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from statistics import median
from typing import Any

from pipeline.bench.ratios import Spread
from pipeline.bench.step.plan import LIMIT, OURS, Plan
from pipeline.bench.step.players import play, units
from pipeline.progress import Bar

ROW_EVERY, LOOK_EVERY = 2, 4
"""Steps between rows of metrics, and between looks at the gradients' flow: steps with and without take turns
in one loop, so that their difference is not one of two processes."""
STEPS = 8
"""Measured in a turn: four without a row, two with a row, two with a row and a look."""
MORE = 2
"""Times as many rounds as against the rivals: the differences are small."""
GUESTS = ("bare", "again")
CHANGES = {"train.compile": True, "monitor.log_every": ROW_EVERY, "monitor.gradients_every": LOOK_EVERY}


def count(plan: Plan) -> int:
    return units(1 + len(GUESTS), MORE * plan.workloads[0].rounds)


def run(plan: Plan, bar: Bar) -> Iterator[dict[str, Any]]:
    """Of the first workload, see ``figures``; ``parts``, each called alone: seconds by name; ``told``."""
    first = plan.workloads[0]
    bar.advance(0, note=f"overhead, {first.model}")
    longer = replace(first, rounds=MORE * first.rounds, steps=STEPS)
    with plan.folder() as folder:
        entrants = {OURS: plan.loop(longer, folder / OURS, CHANGES, with_parts=True)}
        entrants |= {name: plan.guest(longer, folder, name, CHANGES) for name in GUESTS}
        played = play(entrants, longer.rounds, LIMIT, bar)
    played.need(OURS, *GUESTS)
    alone = played.last[OURS]["parts"]
    yield asdict(longer) | figures(played.rounds) | {"parts": alone, "told": played.rounds}


def figures(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and middle halves over rounds, each difference taken within its round.

    :return: ``bare``, seconds of a bare step; ``again``, ``step``, ``step_with_row``: by how much longer
        than bare these are, as shares of it; ``row``, ``look``: seconds of one.
    """
    kinds = [_by_kind(one) for one in rounds]

    def over(measure: Callable[[dict[str, float]], float]) -> dict[str, float]:
        return asdict(Spread.middle([measure(one) for one in kinds]))

    found = {"bare": over(lambda one: one["bare"])}
    for name, kind in (("again", "again"), ("step", "plain"), ("step_with_row", "row")):
        found[name] = over(lambda one, kind=kind: one[kind] / one["bare"] - 1)
    found["row"] = over(lambda one: one["row"] - one["plain"])
    found["look"] = over(lambda one: one["look"] - one["row"])
    return found


def _by_kind(told: dict[str, Any]) -> dict[str, float]:
    """Median seconds of a step in one round, by guest, and of ours by what is done besides."""
    kinds: dict[str, list[float]] = {name: told[name]["steps"] for name in GUESTS}
    for number, seconds in enumerate(told[OURS]["steps"], told[OURS]["first"]):
        kind = "plain" if number % ROW_EVERY else "row" if number % LOOK_EVERY else "look"
        kinds.setdefault(kind, []).append(seconds)
    return {kind: median(steps) for kind, steps in kinds.items()}
