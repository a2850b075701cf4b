"""Score against the number of training pictures a class, and what transfer gains: one plot a curve."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from pipeline.figures.style import MARKERS, MODE_NAMES, Look, new_figure, styled, title
from pipeline.report.inputs import MODES
from pipeline.report.plots import STEPS, label_ends
from pipeline.report.tables import count, metric

READING = (
    "Means over the seeds, each with its own draw of training pictures; bands are 95 % intervals, on the "
    "right those of the paired differences: where a band leaves out zero, transfer and training from "
    "scratch are told apart."
)


def curves(transfers: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """By curve's name its points, from few pictures to many; one point is no curve."""
    found: dict[str, list[dict[str, Any]]] = {}
    for transfer in transfers:
        if transfer.get("curve") and transfer["summary"]:
            found.setdefault(str(transfer["curve"]), []).append(transfer)
    return {name: sorted(points, key=pictures_a_class) for name, points in found.items() if len(points) > 1}


def pictures_a_class(transfer: dict[str, Any]) -> float:
    """Training pictures over classes."""
    trained = [result["n_train"] for result in transfer["results"] if result.get("n_train")]
    return max(trained, default=1) / max(len(transfer["classes"]), 1)


def amount_chart(points: list[dict[str, Any]], look: Look) -> Figure:
    """The score of every mode, and beside it the transfers' gain over training from scratch.

    :param points: at least two, as ``curves`` has them.
    """
    panels = [("summary", f"{metric(points[0]).capitalize()}, %")]
    if any(point["improvement"] for point in points):
        panels.append(("improvement", "Above training from scratch, points"))
    across = 1 if look.narrow else len(panels)
    height = 2.9 * len(panels) // across + 0.1
    with styled(look):
        figure = new_figure(look.width, height)
        grid = figure.subplots(len(panels) // across, across, squeeze=False).flat
        for axes, (key, name) in zip(grid, panels, strict=True):
            title(axes, name, look)
            _lines(axes, points, key, look)
            _amounts(axes, points)
        left, right = 0.42, 1.36
        figure.subplots_adjust(
            left / look.width, 0.44 / height, 1 - right / look.width, 1 - 0.32 / height,
            wspace=0.62, hspace=0.45,
        )  # fmt: skip
    return figure


def _lines(axes: Axes, points: list[dict[str, Any]], key: str, look: Look) -> None:
    """A mode's figures of ``key`` as a line in their band; its name and last value at the line's end."""
    ends = []
    for mode in MODES:
        known = [point for point in points if mode in point[key]]
        if not known:
            continue
        amounts, colour = [pictures_a_class(point) for point in known], getattr(look.theme, mode)
        value, low, high = (
            100 * np.array([point[key][mode][each] for point in known]) for each in ("value", "low", "high")
        )
        axes.fill_between(amounts, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(amounts, value, MARKERS[mode], linestyle="-", color=colour, markersize=4.5, linewidth=1.6)
        ends.append((MODE_NAMES[mode], value[-1], colour))
    if key == "improvement":
        axes.axhline(0, color=look.theme.muted, linewidth=1, linestyle=(0, (3, 2)))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    form = "{:+.1f}" if key == "improvement" else "{:.1f}"
    label_ends(axes, ends, form, 0.08 * np.ptp(axes.get_ylim()))


def _amounts(axes: Axes, points: list[dict[str, Any]]) -> None:
    amounts = [pictures_a_class(point) for point in points]
    axes.set_xscale("log")
    names = [count(round(amount)) for amount in amounts]
    if points[-1].get("per_class") is None:
        names[-1] = f"all ({names[-1]})"
    axes.set_xticks(amounts, names)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("training pictures a class")
