"""The loader's benchmark as a picture: rates with their spread, and how they grow with threads; and bars."""

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes

from pipeline.figures.style import LOOKS, PNG_LIMIT, Look, new_figure, png, styled, title

LIGHT = LOOKS["light"]
Line = tuple[str, dict[str, float], str, str]
"""Name, {median, low, high}, words and kind of a bar."""


def draw(results: dict[str, Any], look: Look = LIGHT) -> bytes:
    """A PNG: medians as bars, whiskers from least to greatest, and pictures/s by threads if measured."""
    full = [one for one in results["contestants"] if not one["failed"]]
    threads = results["setting"]["threads"]
    bars = [one for one in full if one["threads"] == threads or one["kind"] == "limit"]
    scaled = {one["name"]: [] for one in full if one["threads"] < threads and one["kind"] != "limit"}
    for one in full:
        if one["name"] in scaled:
            scaled[one["name"]].append((one["threads"], one["rate"]["median"]))
    lines = [
        (
            one["title"],
            one["rate"],
            f"{one['rate']['median']:,.0f}  ×{one['ratio']['median']:.2f}",
            one["kind"],
        )
        for one in bars
    ]
    with styled(look):
        figure = new_figure(look.width, 0.28 * len(bars) + 0.8)
        if scaled:
            left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
            _scaling(right, {name: sorted(points) for name, points in scaled.items()}, look)
        else:
            left = figure.subplots()
        draw_bars(left, "Pictures/s", lines, look)
        figure.tight_layout()
        return png(figure, PNG_LIMIT)


def colour(kind: str, look: Look) -> str:
    """Ours stand out; limits are drawn faint."""
    return {"ours": look.theme.frozen, "limit": look.theme.grid}.get(kind, look.theme.muted)


def draw_bars(axes: Axes, heading: str, bars: list[Line], look: Look) -> None:
    """Medians as bars with whiskers, the first one on top, each with its words behind it."""
    most = max(spread["high"] for _, spread, _, _ in bars)
    lying(axes, heading, [name for name, _, _, _ in bars], 1.32 * most, look)
    for place, (_, spread, words, kind) in enumerate(bars):
        axes.barh(place, spread["median"], height=0.62, color=colour(kind, look))
        axes.plot([spread["low"], spread["high"]], [place, place], color=look.theme.ink, linewidth=1.2)
        axes.text(spread["high"] + 0.015 * most, place, words, va="center", fontsize=8)


def lying(axes: Axes, heading: str, names: list[str], most: float, look: Look) -> None:
    """Axes for lying bars from 0 to ``most``, named at the left, the first one on top."""
    title(axes, heading, look)
    axes.grid(axis="x")
    axes.grid(False, axis="y")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=look.theme.ink)
    axes.set_xlim(0, most)
    axes.set_ylim(len(names) - 0.4, -0.6)


def draw_parts(
    axes: Axes,
    heading: str,
    rows: dict[str, dict[str, float]],
    most: float,
    look: Look,
    *,
    named_from: float,
    letters: int,
) -> None:
    """What each whole is made of: parts side by side in their order, in alternating shades; the longer ones
    are named.

    :param rows: by name of a bar its parts. :param most: the longest whole. :param named_from: the share of
        it from which a part is named within its bar, in ``letters`` points.
    """
    lying(axes, heading, list(rows), 1.05 * most, look)
    for place, parts in enumerate(rows.values()):
        left = 0.0
        for number, (part, size) in enumerate(parts.items()):
            shade = look.theme.grid if number % 2 else look.theme.frozen
            axes.barh(place, size, left=left, height=0.62, color=shade)
            if size > named_from * most:
                ink = look.theme.ink if number % 2 else look.theme.ground
                middle = left + size / 2
                axes.text(middle, place, part, ha="center", va="center", fontsize=letters, color=ink)
            left += size


def stacked(plots: list[tuple[int, Callable[[Axes], None]]], gap: float, look: Look) -> bytes | None:
    """A PNG of plots of lying bars, one below the other; none of none.

    :param plots: how many bars each has, and what draws them. :param gap: inches for what is around a plot.
    """
    if not plots:
        return None
    counts = [count for count, _ in plots]
    with styled(look):
        figure = new_figure(look.width, sum(0.28 * count + gap for count in counts))
        every = figure.subplots(len(plots), 1, height_ratios=[count + 1 for count in counts], squeeze=False)
        for axes, (_, draws) in zip(every[:, 0], plots, strict=True):
            draws(axes)
        figure.tight_layout()
        return png(figure, PNG_LIMIT)


def _scaling(axes: Axes, scaled: dict[str, list[tuple[int, float]]], look: Look) -> None:
    title(axes, "Pictures/s by threads", look)
    shades = [look.theme.frozen, look.theme.finetuned, look.theme.val, look.theme.test, look.theme.muted]
    for number, (name, points) in enumerate(scaled.items()):
        marker, shade = "osD^v"[number % 5], shades[number % len(shades)]
        axes.plot(*zip(*points, strict=True), marker=marker, color=shade, label=name, markersize=4)
    counts = sorted({count for points in scaled.values() for count, _ in points})
    axes.set_xticks(counts)
    axes.set_xlim(0, counts[-1] * 1.05)
    axes.set_ylim(0, 1.08 * max(rate for points in scaled.values() for _, rate in points))
    axes.legend(frameon=False, fontsize=8)
