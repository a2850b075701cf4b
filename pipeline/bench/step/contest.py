"""Our step against those of torchvision's and timm's scripts: pictures/s, and how much faster ours is."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pipeline.bench.ratios import Spread
from pipeline.bench.step.plan import LIMIT, OURS, Plan, Workload
from pipeline.bench.step.players import Played, play, units
from pipeline.progress import Bar

LOOPS = {OURS: {"train.compile": True}, "plain": {"train.compile": False}}
TITLES = {
    OURS: "ours, compiled",
    "plain": "ours, not compiled",
    "bare": "forward, backward, optimizer, and nothing else; compiled",
    "torchvision": "torchvision, references/classification/train.py",
    "timm": "timm, train.py",
    "timm-tuned": "timm, train.py --channels-last --torchcompile",
}


def count(plan: Plan) -> int:
    return sum(units(len(TITLES), one.rounds) for one in plan.workloads)


def run(plan: Plan, bar: Bar) -> Iterator[list[dict[str, Any]]]:
    """Of each workload so far the ``lines`` of everybody, and ``told``: all rounds.

    :raises UserError, RuntimeError: our own loop does not run.
    """
    found: list[dict[str, Any]] = []
    for workload in plan.workloads:
        bar.advance(0, note=f"{workload.model} against the rivals")
        with plan.folder() as folder:
            entrants = {
                name: plan.loop(workload, folder / name, LOOPS[name])
                if name in LOOPS
                else plan.guest(workload, folder, name, LOOPS[OURS])
                for name in TITLES
            }
            played = play(entrants, workload.rounds, LIMIT, bar)
        played.need(*LOOPS)
        found = [*found, asdict(workload) | {"lines": lines(played, workload), "told": played.rounds}]
        yield found


def lines(played: Played, workload: Workload) -> list[dict[str, Any]]:
    """Of each contestant: rate (pictures/s), seconds and cpu_seconds of a step, and by how much each of our
    loops is faster, by its name."""
    found = []
    for name, title in TITLES.items():
        about = {"name": name, "title": title, "failed": played.failed.get(name, {}).get("failed")}
        if not about["failed"]:
            own = paces(played, name)
            about["rate"] = asdict(Spread.of([workload.batch / one for one in own]))
            about["seconds"] = asdict(Spread.of(own))
            cpu = [one[name]["cpu_seconds"] / len(one[name]["steps"]) for one in played.rounds]
            about["cpu_seconds"] = asdict(Spread.of(cpu))
            for loop in LOOPS:
                ratios = [theirs / ours for ours, theirs in zip(paces(played, loop), own, strict=True)]
                about[f"{loop}_faster"] = asdict(Spread.of(ratios))
        found.append(about)
    return found


def paces(played: Played, name: str) -> list[float]:
    """Seconds of a step in each round."""
    return [pace(one[name]) for one in played.rounds]


def pace(turn: dict[str, Any]) -> float:
    """Seconds of a step: the mean over a turn, for what a step leaves to the next one counts."""
    return sum(turn["steps"]) / len(turn["steps"])
