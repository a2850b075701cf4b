"""The GPU's benchmark as a picture: pictures/s of everybody, and what a step's time is made of."""

from typing import Any

from matplotlib.axes import Axes

from pipeline.bench.gpu import goals, loader, roofline
from pipeline.bench.gpu.cases import missing
from pipeline.bench.plot import LIGHT, Line, draw_bars, lying
from pipeline.bench.step.plan import OURS
from pipeline.report.style import PNG_LIMIT, Look, new_figure, png, styled

NAMED_FROM = 0.07
"""Share of the longest step from which a class is named within its bar."""


def draw(results: dict[str, Any], look: Look = LIGHT) -> bytes | None:
    """A PNG; none where nothing of it was measured."""
    bars = rates(results.get("throughput", {}), results["setting"]["model"])
    cases = results.get("roofline", {}).get("cases", {})
    steps = {name: cases[name] for name in roofline.PROFILES if not missing(cases.get(name))}
    plots = [count for count in (len(bars), len(steps)) if count]
    if not plots:
        return None
    with styled(look):
        figure = new_figure(look.width, sum(0.28 * count + 0.8 for count in plots))
        every = figure.subplots(len(plots), 1, height_ratios=[count + 1 for count in plots], squeeze=False)
        places = iter(every[:, 0])
        if bars:
            draw_bars(next(places), f"Pictures/s: {results['setting']['model']}", bars, look)
        if steps:
            _classes(next(places), steps, look)
        figure.tight_layout()
        return png(figure, PNG_LIMIT)


def rates(found: dict[str, Any], model: str) -> list[Line]:
    """Ours, torchvision's, the loader's best, end to end, other steps; and published ones of ResNet-50."""
    contest, lines = found.get("contest", {}), []
    if "faster" in contest:
        lines.append(("our loop, compiled, on noise", contest[OURS], "", "ours"))
        words = f"ours ×{contest['faster']['median']:.2f}"
        lines.append(("torchvision's step", contest["torchvision"], words, "rival"))
    if best := loader.best(found.get("loader", {})):
        lines.append((f"loader: {best['name']}", best["rate"], "", "ours"))
    if "rate" in found.get("whole", {}):
        lines.append(("end to end", found["whole"]["rate"], "", "ours"))
    cases = found.get("steps", {}).get("cases", {})
    lines += [(name, one["rate"], "", "rival") for name, one in cases.items() if not missing(one)]
    if lines and model == "resnet50":
        for title, _, rate in goals.PUBLISHED:
            flat = dict.fromkeys(("median", "low", "high"), rate)
            lines.append((title, flat, "published", "limit"))
    return [
        (name, rate, f"{rate['median']:,.0f}  {words}".rstrip(), kind) for name, rate, words, kind in lines
    ]


def _classes(axes: Axes, steps: dict[str, Any], look: Look) -> None:
    """Classes of kernels side by side, the longest one first."""
    lying(
        axes,
        "Milliseconds of a step",
        list(steps),
        1.05 * max(one["step_ms"] for one in steps.values()),
        look,
    )
    most = max(one["step_ms"] for one in steps.values())
    for place, one in enumerate(steps.values()):
        left = 0.0
        for number, (kind, milliseconds) in enumerate(one["classes"].items()):
            shade = look.theme.grid if number % 2 else look.theme.frozen
            axes.barh(place, milliseconds, left=left, height=0.62, color=shade)
            if milliseconds > NAMED_FROM * most:
                ink = look.theme.ink if number % 2 else look.theme.ground
                axes.text(
                    left + milliseconds / 2, place, kind, ha="center", va="center", fontsize=6, color=ink
                )
            left += milliseconds
