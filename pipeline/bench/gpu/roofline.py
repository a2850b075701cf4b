"""What bounds the step: its bytes and operations at the measured ceilings, beside where its time goes."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pipeline.bench.gpu.cases import Case, missing, worked
from pipeline.bench.gpu.kinds import COMPILED, EAGER, case
from pipeline.bench.gpu.plan import Plan
from pipeline.bench.process import ask, cores

FUNCTION = "pipeline.bench.gpu.ceilings:asked"
COPY, MATRIX = "copy", "matrix"
PROFILES = {"ours": None, "ours, compiled": "default"}
"""Title and mode of the compiler."""
COUNTING = 120.0
"""Seconds that counting on shapes may take."""


def run(plan: Plan, before: dict[str, Any], until: float) -> Iterator[dict[str, Any]]:
    """``work`` by kind (see ``traffic``), ``cases``: the ceilings and the profiles."""
    sizes = plan.sizes
    words = {"name": sizes.model, "size": sizes.size, "batch": sizes.batch, "classes": sizes.classes}
    work = before.get("work") or ask(
        "pipeline.bench.gpu.roofline:counted", words, cores(plan.threads), COUNTING
    )
    if "failed" in work:
        raise RuntimeError(f"counting: {work['failed']}")
    wanted = cases(plan)
    for found in worked(plan, FUNCTION, wanted, before.get("cases", {}), until):
        complete = not any(missing(found.get(one["name"])) for one in wanted)
        yield {"work": work, "cases": found, "complete": complete}


def cases(plan: Plan) -> list[Case]:
    sizes, quick = plan.sizes, 3.0 if plan.gpu else 0.0
    found = [
        {"name": COPY, "what": "copy", "bytes": sizes.copy, "least": quick},
        {"name": MATRIX, "what": "matrix", "side": sizes.matrix, "least": quick},
    ]
    for title, mode in PROFILES.items():
        least = (COMPILED / 2 if mode else EAGER) if plan.gpu else 0.0
        about = case(plan, title, "ours", sizes.model, sizes.batch, mode)
        found.append(about | {"what": "profile", "steps": sizes.profiled, "least": least})
    return found


def counted(started: float, **words: Any) -> dict[str, dict[str, float]]:
    """In a process of its own: ``traffic`` as JSON."""
    from pipeline.bench.gpu.traffic import traffic

    return {kind: asdict(work) for kind, work in traffic(**words).items()}


def ceilings(found: dict[str, Any]) -> tuple[float, float] | None:
    """Bytes/s and FLOP/s; none where one is not known."""
    cases = found.get("cases", {})
    if missing(cases.get(COPY)) or missing(cases.get(MATRIX)):
        return None
    return cases[COPY]["bytes_per_s"], cases[MATRIX]["flop_per_s"]


def bounds(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Milliseconds of a step at the ceilings, by kind of work: ``alone``, ``fused``; empty if unknown."""
    limits = ceilings(found)
    if limits is None:
        return {}
    bandwidth, peak = limits
    told = {}
    for kind, work in found["work"].items():
        computing = work["flops"] / peak
        told[kind] = {
            "alone": 1000 * max(work["bytes"] / bandwidth, computing),
            "fused": 1000 * max(work["fused"] / bandwidth, computing),
        }
    return told
