"""The GPU's benchmark as a picture: pictures/s of everybody, and what a step's time is made of."""

from functools import partial
from typing import Any

from matplotlib.axes import Axes

from pipeline.bench.gpu import goals, loader, roofline
from pipeline.bench.gpu.cases import missing
from pipeline.bench.plot import LIGHT, Line, draw_bars, draw_parts, stacked
from pipeline.bench.step.plan import OURS
from pipeline.figures.style import Look


def draw(results: dict[str, Any], look: Look = LIGHT) -> bytes | None:
    """A PNG; none where nothing of it was measured."""
    plots, model = [], results["setting"]["model"]
    if bars := rates(results.get("throughput", {}), model):
        heading = f"Pictures/s: {model}"
        plots.append((len(bars), partial(draw_bars, heading=heading, bars=bars, look=look)))
    cases = results.get("roofline", {}).get("cases", {})
    if steps := {name: cases[name] for name in roofline.PROFILES if not missing(cases.get(name))}:
        plots.append((len(steps), partial(_classes, steps=steps, look=look)))
    return stacked(plots, 0.8, look)


def rates(found: dict[str, Any], model: str) -> list[Line]:
    """Ours, torchvision's, the loader's best, end to end, other steps; and published ones of ResNet-50."""
    contest, lines = found.get("contest", {}), []
    if "faster" in contest:
        how = "our loop, compiled, on noise" if contest["compiled"] else "our loop on noise"
        lines.append((how, contest[OURS], "", "ours"))
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
    """Classes of kernels, the longest one first."""
    most = max(one["step_ms"] for one in steps.values())
    parts = {name: one["classes"] for name, one in steps.items()}
    draw_parts(axes, "Milliseconds of a step", parts, most, look, named_from=0.07, letters=6)
