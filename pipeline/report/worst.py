"""The classes that a network misses most often, drawn from confusion.json."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.figures.style import Look, new_figure, shorten, styled
from pipeline.monitor.confusion import worst_of
from pipeline.report.pictures import NAMED
from pipeline.report.tables import percent

LANE = 0.42
"""Inches for one class: its recall, and below it what it is taken for."""


def of_transfer(transfer: dict[str, Any]) -> dict[str, Any]:
    """The worst classes of the best mode, all its seeds together, where they are too many for the confusion
    matrix to name; else nothing."""
    classes, summary = [str(name) for name in transfer["classes"]], transfer["summary"]
    if len(classes) <= NAMED or not summary:
        return {}
    best = max(summary, key=lambda mode: summary[mode]["value"])
    told = [each.get("confusion") for each in transfer["results"] if each["mode"] == best]
    found = [np.asarray(each, np.int64) for each in told if each is not None]
    return {"worst": worst_of(np.sum(found, axis=0), classes, tests=len(found))} if found else {}


def worst_chart(confusion: dict[str, Any], look: Look) -> Figure | None:
    """Recall of each worst class with its 95 % interval, and what it is taken for.

    :returns: none if no class was missed.
    """
    worst = confusion.get("worst")
    if not worst:
        return None
    left, right = (1.2, 0.5) if look.narrow else (2.6, 0.6)
    height = len(worst) * LANE + 0.5
    with styled(look):
        figure = new_figure(look.width, height)
        place = (left, 0.46, look.width - left - right, len(worst) * LANE)
        axes = figure.add_axes(np.divide(place, (look.width, height, look.width, height)))
        axes.grid(axis="x")
        axes.grid(False, axis="y")
        for lane, each in enumerate(worst):
            _class(axes, each, lane, look)
        axes.set_ylim(len(worst), 0)
        axes.set_yticks([])
        axes.set_xlim(0, 100)
        axes.xaxis.set_major_locator(MaxNLocator(5 if look.narrow else 10))
        axes.set_xlabel("of the class's pictures called right, %")
    return figure


def _class(axes: Axes, each: dict[str, Any], lane: int, look: Look) -> None:
    theme, y = look.theme, lane + 0.3
    axes.plot([100 * each["low"], 100 * each["high"]], [y, y], color=theme.test, linewidth=2)
    axes.plot([100 * each["recall"]], [y], "o", color=theme.test, markersize=5.5, clip_on=False)
    common = {"va": "center", "annotation_clip": False, "parse_math": False}
    axes.annotate(
        percent(each["recall"]), (1, y), (8, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", color=theme.test, weight="bold", **common,
    )  # fmt: skip
    # Over the grid lines, which run behind the words.
    cover = {"facecolor": theme.ground, "linewidth": 0, "pad": 1.5}
    common |= {"xycoords": ("figure fraction", "data"), "bbox": cover}
    name = shorten(each["class"], 16 if look.narrow else 24)
    axes.annotate(name, (0, y), color=theme.ink, weight="bold", **common)
    said = [
        f"{shorten(other['class'], 18)} {100 * other['pictures'] / each['pictures']:.0f} %"
        for other in each["taken_for"][: 2 if look.narrow else 3]
    ]
    axes.annotate(f"taken for {', '.join(said)}", (0, y + 0.43), color=theme.muted, fontsize=8, **common)
