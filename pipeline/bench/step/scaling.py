"""Several ranks against one on a CPU: real torchrun, DDP over gloo, the whole loop."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pipeline.bench.process import cores
from pipeline.bench.ratios import Spread
from pipeline.bench.step.contest import pace
from pipeline.bench.step.plan import LIMIT, Plan
from pipeline.bench.step.players import Entrant, play, units
from pipeline.progress import Bar


def cases(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Whose turn it is at once, by case: one rank on one core; as many ranks as cores; as many jobs of one
    rank that know nothing of each other: what the machine gives; one rank with all threads."""
    apart = tuple(f"apart{core}" for core in range(plan.threads))
    return {"alone": ("alone",), "ddp": ("ddp",), "apart": apart, "threads": ("threads",)}


def count(plan: Plan) -> int:
    entrants = sum(len(names) for names in cases(plan).values())
    return units(entrants, plan.workloads[0].rounds) if plan.threads > 1 and plan.device == "cpu" else 0


def run(plan: Plan, bar: Bar) -> Iterator[dict[str, Any]]:
    """Of the first workload, not compiled: pictures/s of all cores together, and their share of as many times
    one rank alone; nothing where there is one core, or for a GPU.

    :raises UserError, RuntimeError: our own loop does not run.
    """
    if not count(plan):
        return
    first, every, named = plan.workloads[0], cores(plan.threads), cases(plan)
    bar.advance(0, note=f"{plan.threads} ranks against one")
    with plan.folder() as folder:

        def loop(name: str, on: list[int], ranks: int = 1) -> Entrant:
            return plan.loop(first, folder / name, {}, on=on, ranks=ranks)

        entrants = {"alone": loop("alone", every[:1]), "ddp": loop("ddp", every, ranks=len(every))}
        entrants |= {name: loop(name, [core]) for name, core in zip(named["apart"], every, strict=True)}
        entrants["threads"] = loop("threads", every)
        played = play(entrants, first.rounds, LIMIT, bar, together=list(named.values()))
    played.need(*entrants)
    rates = {case: [] for case in named}
    for told in played.rounds:
        for case, names in named.items():
            ranks = plan.threads if case == "ddp" else 1
            rates[case].append(sum(ranks * first.batch / pace(told[name]) for name in names))
    found = figures(rates, plan.threads)
    yield asdict(first) | {"ranks": plan.threads} | found | {"told": played.rounds}


def figures(rates: dict[str, list[float]], ranks: int) -> dict[str, Any]:
    """:param rates: pictures/s of each round, by case.
    :return: by case, ``rate`` and ``efficiency``, its share of ``ranks`` times one rank alone in that round.
    """
    found = {}
    for case, own in rates.items():
        ideal = [one * (1 if case == "alone" else ranks) for one in rates["alone"]]
        shares = [mine / whole for mine, whole in zip(own, ideal, strict=True)]
        found[case] = {"rate": asdict(Spread.of(own)), "efficiency": asdict(Spread.of(shares))}
    return found
