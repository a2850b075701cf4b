"""The step's benchmark as a picture: pictures/s of everybody, and what the start is made of."""

from typing import Any

from matplotlib.axes import Axes

from pipeline.bench.plot import LIGHT, Line, draw_bars, lying
from pipeline.report.style import PNG_LIMIT, Look, new_figure, png, styled

KINDS = {"ours": "ours", "plain": "ours", "bare": "limit"}
TITLES = {
    "ours": "ours, compiled",
    "plain": "ours, not compiled",
    "bare": "bare step",
    "torchvision": "torchvision's script",
    "timm": "timm's script",
    "timm-tuned": "timm's, channels last, compiled",
}
NAMED_FROM = 0.06
"""Share of the longest start from which a part is named within its bar."""


def draw(results: dict[str, Any], look: Look = LIGHT) -> bytes | None:
    """A PNG with one plot for each workload that was run against the rivals, and one for the start; none
    where neither was measured."""
    contest, cases = results.get("contest", []), results.get("start", {}).get("cases", [])
    plots = [len(bars(one)) for one in contest] + [len(cases)] * bool(cases)
    if not plots:
        return None
    with styled(look):
        figure = new_figure(look.width, sum(0.28 * count + 0.7 for count in plots))
        every = figure.subplots(len(plots), 1, height_ratios=[count + 1 for count in plots], squeeze=False)
        places = iter(every[:, 0])
        for one in contest:
            named = f"Pictures/s: {one['model']}, {one['batch']} of {one['size']}×{one['size']}"
            draw_bars(next(places), named, bars(one), look)
        if cases:
            _start(next(places), cases, look)
        figure.tight_layout()
        return png(figure, PNG_LIMIT)


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
    """Parts side by side in their order, in alternating shades; the longer ones are named."""
    most = max(case["total"]["median"] for case in cases)
    lying(axes, "Seconds to the first step", [case["title"] for case in cases], 1.05 * most, look)
    for place, case in enumerate(cases):
        left = 0.0
        for number, (part, seconds) in enumerate(case["parts"].items()):
            shade = look.theme.grid if number % 2 else look.theme.frozen
            axes.barh(place, seconds, left=left, height=0.62, color=shade)
            if seconds > NAMED_FROM * most:
                ink = look.theme.ink if number % 2 else look.theme.ground
                axes.text(left + seconds / 2, place, part, ha="center", va="center", fontsize=7, color=ink)
            left += seconds
