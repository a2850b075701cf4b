"""The probe's benchmark as a picture: seconds for each lambda, and how far from the minimum it ended."""

from typing import Any

from pipeline.bench.plot import LIGHT
from pipeline.figures.style import PNG_LIMIT, Look, new_figure, png, styled, title

LEAST = 1e-8
"""Shares below are drawn there."""


def draw(results: dict[str, Any], look: Look = LIGHT) -> bytes | None:
    """A PNG; none where the path was not measured."""
    if "path" not in results:
        return None
    told, theme = results["path"]["told"], look.theme
    lines = {"ours": ("ours", theme.frozen, "o"), "cold": ("scikit-learn, one by one", theme.finetuned, "D")}
    lines["warm"] = ("scikit-learn, warm-started", theme.muted, "s")
    best = {one["lam"]: one["value"] for one in told["ours"]["path"]}
    with styled(look):
        figure = new_figure(look.width, 2.6)
        left, right = figure.subplots(1, 2)
        for name, (words, colour, marker) in lines.items():
            path = told[name]["path"]
            lams = [one["lam"] for one in path]
            style = {"color": colour, "marker": marker, "markersize": 3, "linewidth": 1}
            left.plot(lams, [one["seconds"] for one in path], label=words, **style)
            if name != "ours":
                above = [max(LEAST, one["value"] / best[one["lam"]] - 1) for one in path]
                right.plot(lams, above, **style)
        for axes, words in ((left, "Seconds"), (right, "F above ours, relative")):
            title(axes, words, look)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("λ")
        left.legend(frameon=False, fontsize=7)
        figure.tight_layout()
        return png(figure, PNG_LIMIT)
