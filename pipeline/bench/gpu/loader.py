"""The loader alone: photographs to batches on the device, by decoder's share, threads and packing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.bench.gpu.cases import Case, Found, complete, missing, worked
from pipeline.bench.gpu.plan import Plan
from pipeline.bench.loading import check, class_root
from pipeline.bench.photographs import debian_photographs, make
from pipeline.bench.process import ask, cores

FUNCTION = "pipeline.bench.gpu.loading:asked"
PACKED, FILES = "packed", "files"
LEAST = 12.0
PREPARE = 120.0
"""Seconds that writing both indexes may take."""


def run(plan: Plan, before: dict[str, Any], until: float, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """``cases`` by name, and how many ``pictures`` there are.

    :raises UserError: there are no pictures, and none can be made.
    """
    if before.get("complete"):
        return
    indexes, pictures = prepared(plan)
    wanted = cases(plan, indexes)
    for told in worked(plan, FUNCTION, wanted, before.get("cases", {}), until):
        yield {"cases": told, "pictures": pictures, "complete": complete(wanted, told)}


def prepared(plan: Plan) -> tuple[dict[str, Path], int]:
    """Two indexes of the pictures, by how they lie there; and their number."""
    folder = plan.folder("pictures")
    pictures = plan.pictures or make(debian_photographs(), plan.work / "pictures", plan.sizes.pictures)
    root = class_root(pictures)
    check(root)
    indexes = {name: folder / name for name in (FILES, PACKED)}
    words = {"pictures": str(root), "out": {name: str(out) for name, out in indexes.items()}}
    words["classes"] = plan.sizes.classes
    told = ask("pipeline.bench.gpu.loading:write", words, cores(plan.threads), PREPARE)
    if "failed" in told:
        raise RuntimeError(f"index of {root}: {told['failed']}")
    return indexes, told["pictures"]


def cases(plan: Plan, indexes: dict[str, Path]) -> list[Case]:
    """What one would try first comes first: packed or not, then the decoder's share, then fewer threads."""
    some, first = plan.threads, plan.sizes.hardware[0]
    settings = [(name, share, some) for share in plan.sizes.hardware for name in (FILES, PACKED)]
    settings += [
        (name, first, threads) for threads in (some // 2, some // 4) if threads for name in (FILES, PACKED)
    ]
    return [
        {
            "name": f"{name}, hardware {share:g}, {threads} threads",
            "index": str(indexes[name]),
            "how": name,
            "hardware": share,
            "threads": threads,
            "batch": plan.sizes.batch,
            "size": plan.sizes.size,
            "seconds": plan.sizes.seconds,
            "repeats": plan.sizes.repeats,
            "half": plan.gpu,
            "least": LEAST if plan.gpu else 0.0,
        }
        for name, share, threads in settings
    ]


def best(found: dict[str, Any]) -> Found | None:
    """The quickest case, with its name; none where none is known."""
    known = [{"name": name} | one for name, one in found.get("cases", {}).items() if not missing(one)]
    return max(known, key=lambda one: one["rate"]["median"], default=None)
