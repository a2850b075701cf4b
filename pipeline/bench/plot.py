"""The loader's benchmark as a picture: rates with their spread, and how they grow with threads."""

from typing import Any

from matplotlib.axes import Axes

from pipeline.report.style import LOOKS, PNG_LIMIT, Look, new_figure, png, styled, title

LIGHT = LOOKS["light"]


def draw(results: dict[str, Any], look: Look = LIGHT) -> bytes:
    """A PNG: medians as bars, whiskers from least to greatest, and pictures/s by threads if measured."""
    full = [one for one in results["contestants"] if not one["failed"]]
    threads = results["setting"]["threads"]
    bars = [one for one in full if one["threads"] == threads or one["kind"] == "limit"]
    scaled = {one["name"]: [] for one in full if one["threads"] < threads and one["kind"] != "limit"}
    for one in full:
        if one["name"] in scaled:
            scaled[one["name"]].append((one["threads"], one["rate"]["median"]))
    with styled(look):
        figure = new_figure(look.width, 0.28 * len(bars) + 0.8)
        if scaled:
            left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
            _scaling(right, {name: sorted(points) for name, points in scaled.items()}, look)
        else:
            left = figure.subplots()
        _bars(left, bars, look)
        figure.tight_layout()
        return png(figure, PNG_LIMIT)


def colour(kind: str, look: Look) -> str:
    """Ours stand out; limits are drawn faint."""
    return {"ours": look.theme.frozen, "limit": look.theme.grid}.get(kind, look.theme.muted)


def _bars(axes: Axes, bars: list[dict[str, Any]], look: Look) -> None:
    title(axes, "Pictures/s", look)
    axes.grid(axis="x")
    axes.grid(False, axis="y")
    most = max(one["rate"]["high"] for one in bars)
    for place, one in enumerate(bars):
        rate = one["rate"]
        axes.barh(place, rate["median"], height=0.62, color=colour(one["kind"], look))
        axes.plot([rate["low"], rate["high"]], [place, place], color=look.theme.ink, linewidth=1.2)
        words = f"{rate['median']:,.0f}  ×{one['ratio']['median']:.2f}"
        axes.text(rate["high"] + 0.015 * most, place, words, va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [one["title"] for one in bars])
    axes.tick_params(axis="y", labelcolor=look.theme.ink)
    axes.set_xlim(0, 1.32 * most)
    axes.invert_yaxis()


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
