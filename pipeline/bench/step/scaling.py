"""Several ranks against one on a CPU: real torchrun, DDP over gloo, the whole loop."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

from pipeline.bench.process import cores
from pipeline.bench.ratios import Spread
from pipeline.bench.step.contest import seconds
from pipeline.bench.step.plan import Plan, Workload
from pipeline.bench.step.relay import OURS
from pipeline.bench.timing import turns
from pipeline.progress import Bar

CASES = ("alone", "ddp", "apart", "threads")
"""One rank on one core; as many ranks as cores; as many jobs of one rank, at once, that know nothing of each
other: what the machine gives; one rank with all threads."""


def count(plan: Plan) -> int:
    return len(CASES) * plan.runs if plan.threads > 1 and plan.device == "cpu" else 0


def run(plan: Plan, bar: Bar) -> dict[str, Any] | None:
    """Of the first workload, not compiled: pictures/s of all cores together, and their share of as many times
    one rank alone; none where there is one core, or for a GPU."""
    if not count(plan):
        return None
    first = plan.workloads[0]
    workload = replace(first, rounds=1, steps=max(2, first.rounds * first.steps // 2))
    rates: dict[str, list[float]] = {case: [] for case in CASES}
    for number in range(plan.runs):
        for case in turns(CASES, number):
            bar.advance(0, note=f"scaling: {case}")
            rates[case].append(rate(plan, workload, case))
            bar.advance()
    return asdict(workload) | {"ranks": plan.threads, "told": rates} | figures(rates, plan.threads)


def rate(plan: Plan, workload: Workload, case: str) -> float:
    """Pictures/s of the whole case."""
    every = cores(plan.threads)
    if case == "apart":
        with ThreadPoolExecutor(len(every)) as pool:
            return sum(pool.map(lambda core: _rate(plan, workload, 1, [core]), every))
    ranks = plan.threads if case == "ddp" else 1
    return _rate(plan, workload, ranks, every[:1] if case == "alone" else every)


def _rate(plan: Plan, workload: Workload, ranks: int, on: list[int]) -> float:
    told = plan.rounds(workload, {}, on=on, ranks=ranks)
    return ranks * workload.batch / seconds(told["rounds"][0][OURS])


def figures(rates: dict[str, list[float]], ranks: int) -> dict[str, Any]:
    """:param rates: pictures/s of each run, by case.
    :return: by case, ``rate`` and ``efficiency``, its share of ``ranks`` times one rank alone in that run.
    """
    found = {}
    for case, own in rates.items():
        ideal = [one * (1 if case == "alone" else ranks) for one in rates["alone"]]
        shares = [mine / whole for mine, whole in zip(own, ideal, strict=True)]
        found[case] = {"rate": asdict(Spread.of(own)), "efficiency": asdict(Spread.of(shares))}
    return found
