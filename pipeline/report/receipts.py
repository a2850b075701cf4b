"""Whether two runs were fed the same pictures, in order, cut and changed alike (``data.receipt``)."""

from typing import Any

from pipeline.report.inputs import Run


def same_pictures(runs: list[Run]) -> list[str]:
    """A line for each run against the first one of its seed, where both kept receipts of the same steps.

    That another seed is another order needs no saying.
    """
    first: dict[Any, tuple[str, dict[int, str]]] = {}
    lines = []
    for run in runs:
        seed, kept = run.config.get("seed"), _receipts(run)
        if seed in first and (line := _told(*first[seed], run.name, kept)):
            lines.append(line)
        elif kept:
            first.setdefault(seed, (run.name, kept))
    return lines


def _receipts(run: Run) -> dict[int, str]:
    rows = (row for row in run.rows if row.get("split") == "train")
    return {row["step"]: row["receipt"] for row in rows if "receipt" in row}


def _told(name: str, kept: dict[int, str], other: str, its: dict[int, str]) -> str | None:
    common = sorted(kept.keys() & its.keys())
    if not common:
        return None
    apart = [step for step in common if kept[step] != its[step]]
    rows = f"{len(common):,} steps up to {common[-1]:,} of which both have rows"
    if not apart:
        return (
            f"{name} and {other}: the same pictures in the same order, cut and changed alike, in all {rows}"
        )
    told = f"other pictures, or cut otherwise, in {len(apart):,} of {rows}, first in {apart[0]:,}"
    return f"{name} and {other}: {told}"
