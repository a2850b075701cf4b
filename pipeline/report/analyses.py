"""What the frozen network's features say besides the score: λ's path, few pictures, depths, resolutions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from pipeline.figures.style import Look, new_figure, shorten, styled, title
from pipeline.report.atlas import Atlas, atlas_chart
from pipeline.report.plots import STEPS
from pipeline.report.tables import METRIC_NAMES, count, interval, metric, percent

EMBED = "embed"
"""The depth that the head sees."""
NAMES = {
    "neighbours": "nearest neighbours",
    "shots": "few pictures",
    "depth": "depth",
    "resolution": "resolution",
}
PANELS = ("shots", "depth", "resolution")
PATH = (
    "Validation score of the frozen probe at every λ that was tried, a line a seed; the ring is the one that "
    "was chosen. At the edge of the grid a better one may lie outside."
)
FEATURES = (
    "95 % intervals over test pictures and over seeds or draws, single ones as small points. Few pictures "
    "are drawn anew each time and chosen by nobody (λ is fixed); at the other depths and resolutions λ is "
    "chosen on validation again. Dashed, and hollow: the frozen figure of the table."
)


@dataclass(frozen=True)
class Chart:
    heading: str
    reading: str
    draw: Callable[[Look], Figure]


def charts(transfer: dict[str, Any], atlas: Atlas | None) -> dict[str, Chart]:
    """By plot's name those of a dataset for which there is something to draw."""
    stem, found = transfer["stem"], {}
    if paths(transfer):
        found[f"path-{stem}"] = Chart("How λ was chosen", PATH, lambda look: path_chart(transfer, look))
    if _panels(transfer):
        heading = "What the features hold"
        found[f"features-{stem}"] = Chart(heading, FEATURES, lambda look: features_chart(transfer, look))
    if atlas is not None:
        reading = (
            f"{count(len(atlas.labels))} test pictures by {atlas.method}. What lies together is alike to the "
            "network; distances between groups mean little."
        )
        draw = lambda look: atlas_chart(atlas, transfer["classes"], look)  # noqa: E731
        found[f"map-{stem}"] = Chart("A map of the features", reading, draw)
    return found


def rows(transfer: dict[str, Any]) -> list[dict[str, str]]:
    """Every analysis as printed: what was asked, where, score, repetitions, and what was chosen for it."""
    return [
        {
            "kind": NAMES[each["kind"]],
            "x": _place(each),
            "score": percent(each["value"]),
            "interval": interval(each),
            "n_train": count(each["n_train"]),
            "seeds": str(each.get("seeds", "")),
            "chosen": "as frozen" if each.get("mode") else _chosen(each["results"]),
        }
        for each in transfer.get("analyses") or []
    ]


def _place(analysis: dict[str, Any]) -> str:
    x = analysis["x"]
    words = {"neighbours": "", "shots": f"{x} a class", "depth": str(x), "resolution": f"{x} pixels"}
    return "in front of the head" if x == EMBED else words[analysis["kind"]]


def _chosen(results: list[dict[str, Any]]) -> str:
    """Of all seeds, each value once: 'λ 0.01, 0.0316'."""
    found = []
    for key, symbol in (("lambda", "λ"), ("k", "k")):
        values = sorted({each["chosen"][key] for each in results if key in each["chosen"]})
        found += [f"{symbol} {', '.join(f'{value:.3g}' for value in values)}"] if values else []
    return "; ".join(found)


def paths(transfer: dict[str, Any]) -> list[dict[str, Any]]:
    """What the frozen mode chose, seed by seed, with the path there."""
    frozen = [each.get("chosen") for each in transfer["results"] if each["mode"] == "frozen"]
    known = [chosen for chosen in frozen if isinstance(chosen, dict)]
    return [chosen for chosen in known if len(chosen.get("path") or []) > 1 and "lambda" in chosen]


def path_chart(transfer: dict[str, Any], look: Look) -> Figure:
    """Score on validation against λ, or cross-entropy where that chose."""
    found = paths(transfer)
    by = str(found[0].get("by") or "top1")
    by = metric(transfer) if by == "metric" else METRIC_NAMES.get(by, by)
    loss = by == "loss"
    colour, height = look.theme.frozen, 2.6
    with styled(look):
        figure = new_figure(look.width, height)
        axes = figure.subplots()
        name = "Cross-entropy a picture" if loss else f"{by[:1].upper()}{by[1:]}"
        title(axes, f"{name} on validation{'' if loss else ', %'}", look)
        shown = []
        for chosen in found:
            lams, scores, losses = np.array(chosen["path"], np.float64).T
            values = losses if loss else 100 * scores
            axes.plot(lams, values, ".-", color=colour, alpha=0.55, linewidth=1.2, markersize=3.5)
            at = np.abs(np.log(lams / chosen["lambda"])).argmin()
            axes.plot(
                lams[at], values[at], "o", markersize=9, color=colour, fillstyle="none", mew=2, clip_on=False
            )
            shown.append(values[np.isfinite(values)])
        axes.set_xscale("log")
        if loss:
            _log_scale(axes, np.concatenate(shown))
        axes.margins(x=0.02)
        axes.set_xlabel("λ, the penalty's weight")
        _fit(figure, look, height)
    return figure


def _log_scale(axes: Axes, values: np.ndarray) -> None:
    """Upwards, with a few plain numbers: matplotlib's own, as 6 × 10⁻¹, are wider than their margin."""
    axes.set_yscale("log")
    known = np.log10(values[values > 0])
    decades = np.ptp(known) if len(known) else 0.0
    subs = (1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 3 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _panels(transfer: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found = {
        kind: [each for each in transfer.get("analyses") or [] if each["kind"] == kind] for kind in PANELS
    }
    return {kind: points for kind, points in found.items() if points}


def features_chart(transfer: dict[str, Any], look: Look) -> Figure:
    """Few pictures, depths and resolutions in a panel each, on the same scale of scores."""
    found = _panels(transfer)
    across = 1 if look.narrow else len(found)
    down = len(found) // across
    height = 2.7 * down + 0.1
    words = {
        "shots": "training pictures a class",
        "depth": "stage",
        "resolution": "side, pixels",
    }
    with styled(look):
        figure = new_figure(look.width, height)
        grid = figure.subplots(down, across, squeeze=False, sharey=True).flat
        for axes, (kind, points) in zip(grid, found.items(), strict=True):
            head = f"{NAMES[kind].capitalize()}: {metric(transfer)}, %"
            title(axes, head if len(found) < 3 or look.narrow else shorten(head, 34), look)
            _panel(axes, kind, points, look)
            frozen = transfer["summary"].get("frozen")
            if frozen:
                axes.axhline(
                    100 * frozen["value"], color=look.theme.muted, linestyle=(0, (3, 2)), linewidth=1
                )
            axes.set_xlabel(words[kind])
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
            axes.tick_params(labelleft=True)
        _fit(figure, look, height)
    return figure


def _panel(axes: Axes, kind: str, points: list[dict[str, Any]], look: Look) -> None:
    colour = look.theme.frozen
    places = np.arange(len(points)) if kind == "depth" else np.array([each["x"] for each in points], float)
    value, low, high = (100 * np.array([each[key] for each in points]) for key in ("value", "low", "high"))
    if len(points) > 1:
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.errorbar(places, value, (value - low, high - value), color=colour, linewidth=1.6, elinewidth=1.6)
    for place, each, score in zip(places, points, value, strict=True):
        hollow = (
            {"fillstyle": "none", "mew": 1.6, "markersize": 7} if each.get("mode") else {"markersize": 4.5}
        )
        axes.plot(place, score, "o", color=colour, **hollow)
        single = [100 * row["value"] for row in each["results"]]
        axes.plot([place] * len(single), single, "o", color=colour, markersize=2.2, alpha=0.7, mew=0)
    names = [count(each["x"]) if kind != "depth" else str(each["x"]) for each in points]
    if kind == "shots":
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, [name.removeprefix("stage") if kind == "depth" else name for name in names])
    axes.margins(x=0.12)


def _fit(figure: Figure, look: Look, height: float) -> None:
    left, right = 0.46 / look.width, 1 - 0.15 / look.width
    figure.subplots_adjust(left, 0.46 / height, right, 1 - 0.32 / height, wspace=0.2, hspace=0.55)
