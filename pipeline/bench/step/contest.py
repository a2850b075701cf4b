"""Our step against those of torchvision's and timm's scripts: pictures/s, and how much faster ours is."""

from dataclasses import asdict
from typing import Any

from pipeline.bench.ratios import Spread
from pipeline.bench.step.guests import GUESTS
from pipeline.bench.step.plan import Plan, Workload
from pipeline.bench.step.relay import OURS
from pipeline.progress import Bar

RIVALS = ("torchvision", "timm")
COMPILED = ("bare", *RIVALS, "timm-tuned")
"""Guests of our compiled loop; the loop that is not compiled has the rivals alone."""


def count(plan: Plan) -> int:
    return 2 * len(plan.workloads)


def run(plan: Plan, bar: Bar) -> list[dict[str, Any]]:
    """Of each workload ``compiled`` and ``plain``: lines of everybody, ours first; ``told``: all rounds."""
    found = []
    for workload in plan.workloads:
        bar.advance(0, note=workload.title)
        told = {}
        for kind, guests in (("compiled", COMPILED), ("plain", RIVALS)):
            told[kind] = plan.rounds(workload, {"train.compile": kind == "compiled"}, guests)
            bar.advance()
        raw = {"told": {kind: one["rounds"] for kind, one in told.items()}}
        found.append(asdict(workload) | {kind: lines(one, workload) for kind, one in told.items()} | raw)
    return found


def lines(told: dict[str, Any], workload: Workload) -> list[dict[str, Any]]:
    """:param told: by ``ours.rounds``."""
    ours = [seconds(one[OURS]) for one in told["rounds"]]
    found = []
    for name, title in {OURS: "ours", **{name: kind.title for name, kind in GUESTS.items()}}.items():
        about = {"name": name, "title": title, "failed": told["failed_guests"].get(name)}
        if about["failed"]:
            found.append(about)
        elif name in told["rounds"][0]:
            theirs = [seconds(one[name]) for one in told["rounds"]]
            cpu = [one[name]["cpu_seconds"] / len(one[name]["steps"]) for one in told["rounds"]]
            found.append(
                about
                | {"rate": asdict(Spread.of([workload.batch / one for one in theirs]))}
                | {"seconds": asdict(Spread.of(theirs))}
                | {"faster": asdict(Spread.of([b / a for a, b in zip(ours, theirs, strict=True)]))}
                | {"cpu_seconds": asdict(Spread.of(cpu))}
            )
    return found


def seconds(turn: dict[str, Any]) -> float:
    """Of a step, mean over a turn."""
    return sum(turn["steps"]) / len(turn["steps"])
