"""The step's benchmark as a picture: pictures/s of everybody, and what the start is made of."""

from functools import partial
from typing import Any

from matplotlib.axes import Axes

from pipeline.bench.plot import LIGHT, Line, draw_bars, draw_parts, stacked
from pipeline.figures.style import Look

KINDS = {"ours": "ours", "plain": "ours", "bare": "limit"}
TITLES = {
    "ours": "ours, compiled",
    "plain": "ours, not compiled",
    "bare": "bare step",
    "torchvision": "torchvision's script",
    "timm": "timm's script",
    "timm-tuned": "timm's, channels last, compiled",
}


def draw(results: dict[str, Any], look: Look = LIGHT) -> bytes | None:
    """A PNG with one plot for each workload that was run against the rivals, and one for the start; none
    where neither was measured."""
    plots = []
    for one in results.get("contest", []):
        named = f"Pictures/s: {one['model']}, {one['batch']} of {one['size']}×{one['size']}"
        lines = bars(one)
        plots.append((len(lines), partial(draw_bars, heading=named, bars=lines, look=look)))
    if cases := results.get("start", {}).get("cases", []):
        plots.append((len(cases), partial(_start, cases=cases, look=look)))
    return stacked(plots, 0.7, look)


def bars(one: dict[str, Any]) -> list[Line]:
    """Of a workload: everybody, with how many times as fast ours, compiled, is."""
    found = []
    for each in one["lines"]:
        if not each["failed"]:
            rate = each["rate"]["median"]
            words = f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}"
            if KINDS.get(each["name"]) != "ours":
                words += f"  ours ×{each['ours_faster']['median']:.2f}"
            found.append((TITLES[each["name"]], each["rate"], words, KINDS.get(each["name"], "rival")))
    return found


def _start(axes: Axes, cases: list[dict[str, Any]], look: Look) -> None:
    most = max(case["total"]["median"] for case in cases)
    parts = {case["title"]: case["parts"] for case in cases}
    draw_parts(axes, "Seconds to the first step", parts, most, look, named_from=0.06, letters=7)
